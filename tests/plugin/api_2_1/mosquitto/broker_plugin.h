/* By its presence compat.h knows 2.1. */

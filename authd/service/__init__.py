"""Use cases over the pure core: async, through ports, with no third-party I/O library."""

"""The daemon with one bound lifted: ``python -m tests.bench.wide_daemon up``.

A daemon compiles at most 64 filters a session, the plugin takes 1 024. What more of them would cost
a broker can only be measured beside a daemon that hands them out.
"""

from typing import Final

from authd.cli import main
from authd.core import limits

MOST_FILTERS: Final = 512

if __name__ == "__main__":
    vars(limits)["MAX_COMPILED_FILTERS"] = MOST_FILTERS
    main()

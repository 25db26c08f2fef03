"""The budgets as one table: ``python -m tests.bench [--full] [core] [http] [grpc] [start]``."""

import argparse
import sys
from collections.abc import Callable
from typing import Final

from tests.bench.core_rows import core_rows
from tests.bench.edge_rows import grpc_rows, http_rows
from tests.bench.measure import Row, table
from tests.bench.start_rows import start_rows

_GROUPS: Final[dict[str, Callable[..., list[Row]]]] = {
    "core": core_rows,
    "http": http_rows,
    "grpc": grpc_rows,
    "start": start_rows,
}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="the largest sizes; takes minutes")
    parser.add_argument("groups", nargs="*", choices=[*_GROUPS, []], help="by default all")
    options = parser.parse_args()
    rows: list[Row] = []
    for name in options.groups or _GROUPS:
        sys.stderr.write(f"measuring: {name}\n")
        rows += _GROUPS[name](full=options.full)
    sys.stdout.write(table(rows))


if __name__ == "__main__":
    main()

"""What a command prints: sentences for people, or one JSON object with ``--json``."""

import json
import sys
from collections.abc import Iterable, Sequence

from authd.errors import ReasonCode


class Output:
    """Prints either for people or for programs, never both."""

    def __init__(self, *, as_json: bool) -> None:
        """Choose."""
        self.as_json = as_json

    def result(self, data: dict[str, object], lines: Iterable[str]) -> None:
        """Print what happened and what to do next."""
        if self.as_json:
            print(json.dumps(data, indent=1))
        else:
            for line in lines:
                print(line)

    def progress(self, line: str) -> None:
        """Say what is going on while it takes long; goes to standard error."""
        if not self.as_json:
            print(line, file=sys.stderr)

    def error(self, message: str, *, reason: ReasonCode | None) -> None:
        """Say what went wrong; JSON goes to standard output, where a program looks."""
        if self.as_json:
            print(json.dumps({"error": message, "reason": reason.value if reason else "usage"}))
        else:
            print(f"authd: {message}", file=sys.stderr)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Lay rows out in columns."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def age(seconds: int) -> str:
    """Write a duration for people: ``59 s``, ``3 min``, ``2 h``, ``89 d``."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"

"""How figures are taken: two things side by side in one run, in turns, compared by their medians.

A figure alone says something about a host; a ratio says something about the code. Nothing here
fails because of a figure: a row says ``met`` or ``missed``.
"""

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_NS: Final = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        what: What is compared with what.
        value: A ratio, or bytes where the target is in bytes.
        target: What is to be reached.
        at_least: Whether more is better.
        note: How many were measured, and in what.
    """

    what: str
    value: float
    target: float
    at_least: bool
    note: str

    @property
    def met(self) -> bool:
        """Whether the target is reached."""
        return self.value >= self.target if self.at_least else self.value <= self.target


def table(rows: Iterable[Row]) -> str:
    """Lay rows out for people."""
    header = ("what", "value", "target", "", "note")
    cells = [
        header,
        *(
            (
                row.what,
                _figure(row.value),
                f"{'>=' if row.at_least else '<='} {_figure(row.target)}",
                "met" if row.met else "MISSED",
                row.note,
            )
            for row in rows
        ),
    ]
    widths = [max(len(line[place]) for line in cells) for place in range(len(header))]
    return "".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        + "\n"
        for line in cells
    )


def _figure(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.2f}"


def in_turns(*measures: Callable[[], float], rounds: int) -> list[float]:
    """Take each figure ``rounds`` times, A B A B …, after one round that does not count.

    Returns:
        The median of each.
    """
    for measure in measures:
        measure()
    taken: list[list[float]] = [[] for _ in measures]
    for _ in range(rounds):
        for measure, figures in zip(measures, taken, strict=True):
            figures.append(measure())
    return [statistics.median(figures) for figures in taken]


def seconds_of(work: Callable[[], object], *, times: int = 1) -> Callable[[], float]:
    """Return a measure: CPU seconds of this process for one call."""

    def measure() -> float:
        started = time.process_time_ns()
        for _ in range(times):
            work()
        return (time.process_time_ns() - started) / _NS / times

    return measure


def cpu_seconds_of(pid: int) -> float:
    """Return how long a process has run on any core so far, all its threads together."""
    tasks = Path(f"/proc/{pid}/task")
    return sum(int((one / "schedstat").read_text().split()[0]) for one in _living(tasks)) / _NS


def _living(tasks: Path) -> Sequence[Path]:
    return [one for one in tasks.iterdir() if (one / "schedstat").exists()]


def resident_bytes(pid: int | str = "self") -> int:
    """Return a process's resident set: what it has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4_096

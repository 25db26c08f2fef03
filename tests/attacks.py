"""A table at the end of a run: which attack by number is covered by which layer, which is open.

A test that stops attack 17 is called ``test_a17_…``; one that stops several names them all,
``test_a4_a6_…``. The names are read from the whole tree, so the table is the same whatever part of
it ran; only the numbers of this run's failures are marked.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import pytest

LAST: Final = 54
TESTS: Final = Path(__file__).parent
_NUMBERED: Final = re.compile(
    r"\bdef (test(?:_a\d+)+_)|^(?:static )?void (test(?:_a\d+)+_)",
    re.MULTILINE,
)
_NUMBER: Final = re.compile(r"_a(\d+)(?=_)")


def numbers_of(name: str) -> tuple[int, ...]:
    """Return the numbers that the name of a test begins with."""
    found = re.match(r"test((?:_a\d+)+)_", name)
    return tuple(int(one) for one in _NUMBER.findall(f"{found[1]}_")) if found else ()


def layer_of(path: Path) -> str:
    """Name the layer a file of tests belongs to: ``unit/core``, ``plugin``, …."""
    parts = path.relative_to(TESTS).parts[:-1]
    return "/".join(parts[:2]) if parts[:1] == ("unit",) else (parts or ("tests",))[0]


def covered() -> dict[int, dict[str, int]]:
    """Count numbered tests by attack and layer over the whole tree."""
    found: dict[int, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for path in sorted([*TESTS.rglob("test_*.py"), *TESTS.rglob("*.c")]):
        for match in _NUMBERED.finditer(path.read_text(encoding="utf-8")):
            for number in numbers_of(match[1] or match[2]):
                found[number][layer_of(path)] += 1
    return found


def table(found: Mapping[int, Mapping[str, int]], failed: Iterable[int] = ()) -> list[str]:
    """Write the table: one line an attack that is covered, then the open ones in one line."""
    broken = set(failed)
    lines = [
        f"A{number:<3}{'FAILED ' if number in broken else ''}"
        + ", ".join(f"{layer} ({count})" for layer, count in sorted(found[number].items()))
        for number in range(1, LAST + 1)
        if found.get(number)
    ]
    is_open = [f"A{number}" for number in range(1, LAST + 1) if not found.get(number)]
    return [*lines, f"open: {', '.join(is_open) or 'none'}"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table."""
    reports = [
        report
        for outcome in ("failed", "error")
        for report in terminalreporter.stats.get(outcome, [])
        if isinstance(report, pytest.TestReport)
    ]
    failed = {one for report in reports for one in numbers_of(report.nodeid.split("::")[-1])}
    terminalreporter.section("attacks and the layers that stop them")
    for line in table(covered(), failed):
        terminalreporter.write_line(line)

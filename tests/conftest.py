"""What holds for every test: a missing component is a failure in CI, and figures are printed."""

import os
from collections.abc import Callable, Generator
from typing import Final

import pytest

_FIGURE: Final = "figure"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure when ``CI`` is set."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI"):
        report.outcome = "failed"
        report.longrepr = f"skipped in continuous integration: {report.longrepr}"
    return report


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Collect lines with measured figures; they are printed at the end of the run."""
    return lambda line: request.node.user_properties.append((_FIGURE, line))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the figures that tests measured, in whatever process they ran."""
    reports = [
        one
        for outcome in ("passed", "failed")
        for one in terminalreporter.stats.get(outcome, [])
        if isinstance(one, pytest.TestReport) and one.when == "call"
    ]
    lines = [value for one in reports for key, value in one.user_properties if key == _FIGURE]
    if lines:
        terminalreporter.section("figures")
    for line in lines:
        terminalreporter.write_line(str(line))

"""Draws how revocations spread in each scenario.

Usage: python -m tests.simulation.plot RUNS.json PICTURE.png

The runs come from ``python -m tests.simulation --json``; of several runs of one scenario the first
is drawn.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

_AT_MOST_PERCENT: Final = 102
_FROM_S: Final = 0.03


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="draw how revocations spread")
    parser.add_argument("runs", type=Path)
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    runs: list[dict[str, Any]] = json.loads(options.runs.read_text("utf-8"))
    figure = draw(runs)
    figure.savefig(options.picture, dpi=120)
    print(f"drawn: `{options.picture}`")
    return 0


def draw(runs: list[dict[str, Any]]) -> Figure:
    """Draw one line for each scenario in which something was revoked."""
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    drawn: set[str] = set()
    for one in runs:
        if one["name"] not in drawn and one["spread"]:
            drawn.add(one["name"])
            _line(axes, one)
    axes.set_xscale("log")
    axes.set_xlim(left=_FROM_S)
    axes.set_ylim(0, _AT_MOST_PERCENT)
    axes.set_xlabel("seconds after the revocation")
    axes.set_ylabel("% of live nodes that hold it")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.legend(loc="lower right", fontsize="small")
    return figure


def _line(axes: Axes, one: dict[str, Any]) -> None:
    seconds = [max(_FROM_S, at_s) for at_s, _ in one["spread"]]
    percent = [100 * share for _, share in one["spread"]]
    axes.plot(seconds, percent, label=one["name"][3:].replace("-", " "))


if __name__ == "__main__":
    sys.exit(main())

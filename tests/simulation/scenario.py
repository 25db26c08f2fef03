"""Scenarios as text: what happens when, and what is to be reached.

``at S: what`` happens S seconds after the network has formed; ``until: S`` ends it, or five seconds
after every live node holds every revocation, if that is earlier; ``expect:`` names a measure and
its threshold; ``nodes: at most N`` leaves larger swarms out. See the files in ``scenarios/``.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "scenarios"
_STEP: Final = re.compile(r"at ([0-9.]+): ([a-z]+) ?(.*)")
_NUMBER: Final = re.compile(r"([0-9.]+)")


@dataclass(frozen=True)
class Step:
    """Something that happens."""

    at_s: float
    what: str
    words: str

    @property
    def numbers(self) -> list[float]:
        """The numbers in it; a percentage as its share of one."""
        return [
            float(one) / (100 if self.words[found.end() : found.end() + 1] == "%" else 1)
            for found in _NUMBER.finditer(self.words)
            for one in [found.group(1)]
        ]


@dataclass(frozen=True)
class Expectation:
    """A measure by its words, with the numbers taken out, and those numbers."""

    text: str
    measure: str
    numbers: tuple[float, ...]

    @property
    def threshold(self) -> float:
        """What may not be exceeded: the last number."""
        return self.numbers[-1]


@dataclass(frozen=True)
class Scenario:
    """One file."""

    name: str
    about: str
    steps: tuple[Step, ...]
    until_s: float
    expectations: tuple[Expectation, ...]
    most_nodes: float = float("inf")


def parse_scenario(name: str, text: str) -> Scenario:
    """Read a scenario.

    Raises:
        ValueError: A line that is no step, end or expectation, by its number.
    """
    about, _, body = text.partition("\n\n")
    steps: list[Step] = []
    expectations: list[Expectation] = []
    until_s, most_nodes = 0.0, float("inf")
    for number, line in enumerate(body.strip().splitlines(), start=3):
        if found := _STEP.fullmatch(line):
            steps.append(Step(float(found.group(1)), found.group(2), found.group(3)))
        elif line.startswith("until: "):
            until_s = float(line.removeprefix("until: "))
        elif line.startswith("nodes: at most "):
            most_nodes = float(line.removeprefix("nodes: at most "))
        elif line.startswith("expect: "):
            words = line.removeprefix("expect: ")
            measure = _NUMBER.sub("#", words)
            numbers = tuple(float(one) for one in _NUMBER.findall(words))
            expectations.append(Expectation(words, measure, numbers))
        else:
            raise ValueError(f"{name}, line {number}: `{line}`")
    return Scenario(name, about.strip(), tuple(steps), until_s, tuple(expectations), most_nodes)


def scenarios() -> Iterator[Scenario]:
    """Yield every scenario, in the order of the files' names."""
    for path in sorted(FOLDER.glob("*.txt")):
        yield parse_scenario(path.stem, path.read_text(encoding="utf-8"))

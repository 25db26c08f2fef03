"""Feeds every decoder what it should refuse: ``python -m tests.bench.fuzz --inputs 10000000``.

A decoder gives a value or one of the errors its docstring lists; of an accepted input, encoding the
value gives the same bytes. Anything else is a finding. A run is repeated by its seed.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Final

from tests.bench.fuzz_inputs import damaged, random_bytes
from tests.bench.fuzz_target import Target
from tests.bench.fuzz_targets import all_targets

_RANDOM: Final = 0.2
_DAMAGED: Final = 0.6
_REPORT_EVERY: Final = 500_000


@dataclass(slots=True)
class Report:
    """What came out: outcomes by decoder, and what should not have come out.

    Attributes:
        outcomes: How often a decoder gave a value (``value``) or which error.
        findings: By decoder and what went wrong, the first input.
    """

    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    findings: dict[tuple[str, str], bytes] = field(default_factory=dict)

    @property
    def inputs(self) -> int:
        """How many inputs were tried."""
        return sum(sum(one.values()) for one in self.outcomes.values())

    def lines(self) -> Iterator[str]:
        """Write the outcomes for people, then the findings."""
        for name, counter in sorted(self.outcomes.items()):
            parts = ", ".join(f"{count} {what}" for what, count in counter.most_common())
            yield f"{name:22} {sum(counter.values()):9}  {parts}"
        for (name, what), data in self.findings.items():
            yield f"FINDING {name}: {what}: {data.hex()}"


def fuzz(inputs: int, *, seed: int, targets: Sequence[Target] | None = None) -> Report:
    """Try a number of inputs, round robin over the decoders.

    Args:
        inputs: How many.
        seed: The same seed gives the same inputs.
        targets: By default every decoder of the package.
    """
    rng = Random(seed)
    chosen = list(all_targets() if targets is None else targets)
    report = Report({target.name: Counter() for target in chosen})
    for number in range(inputs):
        target = chosen[number % len(chosen)]
        _try(target, make_input(rng, target), report)
        if number and number % _REPORT_EVERY == 0:
            sys.stderr.write(f"{number} inputs, {len(report.findings)} findings\n")
    return report


def make_input(rng: Random, target: Target) -> bytes:
    """Make one input for a decoder."""
    choice = rng.random()
    if choice < _RANDOM:
        return random_bytes(rng)
    seed = rng.choice(target.seeds)
    if choice < _DAMAGED or target.resealed is None:
        return damaged(rng, seed, target.seeds)
    return target.resealed(rng, seed)


def _try(target: Target, data: bytes, report: Report) -> None:
    outcomes = report.outcomes[target.name]
    try:
        value = target.decode(data)
        if target.again is not None and target.again(value) != data:
            report.findings.setdefault((target.name, "is written otherwise than read"), data)
        outcomes["value"] += 1
    except target.refusals as error:
        outcomes[type(error).__name__] += 1
    except Exception as error:  # noqa: BLE001 - what is looked for
        outcomes[type(error).__name__] += 1
        report.findings.setdefault((target.name, f"raises {type(error).__name__}"), data)


def main() -> None:
    """Run from the command line; exit status 1 if there are findings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.perf_counter()
    report = fuzz(options.inputs, seed=options.seed)
    took_s = time.perf_counter() - started
    total = f"{report.inputs} inputs in {took_s:.0f} s, seed {options.seed}"
    sys.stdout.write("\n".join([*report.lines(), total, ""]))
    sys.exit(bool(report.findings))


if __name__ == "__main__":
    main()

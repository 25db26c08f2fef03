"""A bounded run over every decoder; ``make fuzz`` runs the same without end."""

from collections import Counter

import pytest

from authd.errors import FormatError
from tests.bench.fuzz import Report, fuzz
from tests.bench.fuzz_target import PARSED, Target
from tests.bench.fuzz_targets import all_targets

INPUTS = 20_000


@pytest.fixture(scope="module")
def report() -> Report:
    return fuzz(INPUTS, seed=20_000)


def test_every_decoder_gives_a_value_or_an_error_it_documents(report: Report) -> None:
    assert report.inputs == INPUTS
    assert list(report.lines())[len(report.outcomes) :] == []


@pytest.mark.parametrize("target", all_targets(), ids=lambda target: target.name)
def test_the_inputs_reach_behind_the_first_refusal(report: Report, target: Target) -> None:
    """Of each decoder something is refused, and what one of its own errors says comes up."""
    outcomes = report.outcomes[target.name]
    assert outcomes["FormatError"] or outcomes["ConfigError"]
    assert outcomes.keys() - {"FormatError", "ConfigError"}


def test_the_same_seed_gives_the_same_run() -> None:
    assert fuzz(500, seed=7).outcomes == fuzz(500, seed=7).outcomes
    assert fuzz(500, seed=7).outcomes != fuzz(500, seed=8).outcomes


def leaky(data: bytes) -> bytes:
    if not data:
        raise FormatError("empty")
    if data[0] > 127:
        raise ValueError(data)
    return data


def test_another_error_is_a_finding() -> None:
    target = Target(name="leaky", decode=leaky, refusals=PARSED, seeds=[b"a", b"\xff"])
    found = fuzz(200, seed=1, targets=[target])
    assert list(found.findings) == [("leaky", "raises ValueError")]
    assert found.findings["leaky", "raises ValueError"][0] > 127


def test_a_second_spelling_is_a_finding() -> None:
    target = Target(
        name="lax", decode=bytes.strip, refusals=PARSED, seeds=[b"a", b" a"], again=bytes
    )
    found = fuzz(200, seed=1, targets=[target])
    assert list(found.findings) == [("lax", "is written otherwise than read")]
    assert found.outcomes == {"lax": Counter(value=200)}

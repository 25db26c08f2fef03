"""The vectors of topic filters through Python; the C plugin's unit test reads the same file."""

import pytest

from authd.core.topics import covers, matches, meet, overlaps
from tests.vectors import make_topics


def _vectors() -> list[list[str]]:
    lines = make_topics.PATH.read_text(encoding="utf-8").split("\n")
    return [line.split("\t") for line in lines if line and not line.startswith("# ")]


def _answer(function: str, first: str, second: str) -> str:
    if function == "meet":
        return meet(first, second) or "-"
    judge = {"matches": matches, "covers": covers, "overlaps": overlaps}[function]
    return str(judge(first, second)).lower()


def test_every_line_is_answered_as_the_oracle_answers_it() -> None:
    wrong = [line for line in _vectors() if _answer(*line[:3]) != line[3]]
    assert wrong == []


@pytest.mark.parametrize("function", ["matches", "covers", "overlaps", "meet"])
def test_each_function_has_yes_and_no_in_the_file(function: str) -> None:
    results = [line[3] for line in _vectors() if line[0] == function]
    refusals = sum(result in ("false", "-") for result in results)
    assert 20 < refusals < len(results) - 20


def test_the_file_is_what_its_generator_writes() -> None:
    assert make_topics.PATH.read_text(encoding="utf-8") == make_topics.render()

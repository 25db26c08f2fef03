"""Ids and keys that begin with a hyphen, as one of sixty-four does."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from authd.cli import commands
from authd.cli.app import app
from tests.unit.cli.conftest import Run

ID, KEY = "-BWMkCWPY8jrDiO98hjY-Q", "--" + "A" * 41


@pytest.mark.parametrize("subject", [ID, KEY])
@pytest.mark.parametrize(
    "line", ["revoke {}", "explain {} publish site/a", "grant {} --pub=site/a", "trust why {}"]
)
def test_an_id_that_looks_like_an_option_is_none(
    run: Run, domain: Path, line: str, subject: str
) -> None:
    done = run(*line.format(subject).split())
    assert done.code == 2
    assert done.json["reason"] != "usage", done.json


@pytest.mark.parametrize("odd", ["-B", "--pubb", "-" * 22 + "x", "--" + "a" * 20 + "=b"])
def test_what_is_no_id_is_an_option_that_there_is_not(run: Run, domain: Path, odd: str) -> None:
    done = run("revoke", odd)
    assert (done.code, done.json["reason"]) == (2, "usage")


def options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        yield from (one for one in parameter.opts if one.startswith("-"))
    for below in getattr(command, "commands", {}).values():
        yield from options(below)


def test_no_option_is_as_long_as_an_id_or_a_key() -> None:
    assert commands.__all__, "all of them are registered"
    names = set(options(typer.main.get_command(app)))
    assert "--pub" in names
    assert not {len(name) for name in names} & {len(ID), len(KEY)}

"""What the command line loads: the help page is answered before anything heavy is imported."""

import os
import subprocess
import sys
from importlib import import_module
from typing import Any

import pytest
import typer.main

from authd.cli.app import app
from authd.cli.catalogue import COMMANDS, overview
from tests.unit.cli.conftest import Run

HEAVY = ("aiohttp", "amqtt", "click", "cryptography", "google", "grpc", "kademlia", "nacl")
HEAVIER = ("paho", "prometheus_client", "pydantic", "rich", "sqlite3", "structlog", "typer")


def loaded_by(*arguments: str) -> set[str]:
    """Return the top-level packages a run of the command line has imported at its end."""
    program = (
        "import atexit, sys\n"
        f"sys.argv = ['authd', *{arguments!r}]\n"
        "atexit.register(lambda: print(*{m.partition('.')[0] for m in sys.modules},"
        " file=sys.stderr))\n"
        "from authd.cli import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("Usage: authd")
    return set(done.stderr.split())


def full_tree() -> Any:
    """Return the parser with every command in it."""
    import_module("authd.cli.commands")
    return typer.main.get_command(app)


def test_the_overview_loads_no_library() -> None:
    assert loaded_by("--help").isdisjoint({*HEAVY, *HEAVIER})


def test_the_help_of_a_command_loads_no_server() -> None:
    assert loaded_by("status", "--help").isdisjoint({"aiohttp", "amqtt", "grpc", "kademlia"})


def test_the_overview_is_the_page_the_parser_would_write() -> None:
    # Said twice it is left to the parser, which then lists all commands in their own order.
    program = "import sys; sys.argv = ['authd', '--help', '--help']\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}from authd.cli import main; main()"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "80"},
    )
    assert done.stdout == overview()


def test_the_catalogue_names_every_command_with_what_its_help_says() -> None:
    listed = {name: one.purpose for name, one in COMMANDS.items()}
    tree = full_tree().commands
    assert listed == {name: one.get_short_help_str(1_000) for name, one in tree.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_in_the_module_the_catalogue_names(name: str) -> None:
    found = full_tree().commands[name]
    while hasattr(found, "commands"):
        found = next(iter(found.commands.values()))
    assert found.callback.__module__ == f"authd.cli.{COMMANDS[name].module}"


def test_a_misspelt_command_is_corrected_from_all_commands(run: Run) -> None:
    done = run("revocatons", as_json=False)
    assert done.code == 2
    assert "Did you mean 'revocations'?" in done.err


def test_without_a_command_the_page_is_shown_as_an_error(run: Run) -> None:
    done = run(as_json=False)
    assert done.code == 2
    assert all(f"  {name} " in done.err for name in COMMANDS)


def test_what_a_command_is_for_fits_into_its_line() -> None:
    cut = [line.split()[0] for line in overview().splitlines() if line.endswith("...")]
    # The usage line, and two whose first sentence is as long as it has to be.
    assert set(cut) <= {"Usage:", "invite", "up"}

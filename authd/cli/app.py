"""The command tree and the one table from errors to exit codes: 0 yes, 1 no, 2 error."""

import sys
from importlib import import_module
from typing import Final

import click
import typer

from authd.cli.output import Output
from authd.errors import AuthdError

YES: Final = 0
NO: Final = 1
ERROR: Final = 2

app = typer.Typer(
    name="authd",
    help="Decentralized identity and authorization for MQTT brokers.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Run the command line; ends the process with 0, 1 or 2."""
    # Registers every command; they import this module, so it cannot import them at its top.
    import_module("authd.cli.commands")
    output = Output(as_json="--json" in sys.argv)
    try:
        code = app(standalone_mode=False)
    except AuthdError as error:
        output.error(str(error), reason=error.reason)
        code = ERROR
    except click.exceptions.Abort:
        output.error("stopped", reason=None)
        code = ERROR
    except click.ClickException as error:
        output.error(error.format_message().rstrip(".").lower(), reason=None)
        code = ERROR
    except click.exceptions.Exit as exit_:
        code = exit_.exit_code
    sys.exit(code if isinstance(code, int) else YES)

"""The command tree and the one table from errors to exit codes: 0 yes, 1 no, 2 error."""

import sys
import traceback
from importlib import import_module
from typing import Final, cast

import typer

from authd.cli.output import Output
from authd.errors import AuthdError, ReasonCode

YES: Final = 0
NO: Final = 1
ERROR: Final = 2
# The root of what the parser raises. Some versions of typer use click, others a copy of their own:
# only by a name that typer exports is it the right one.
_USAGE_ERROR: Final = cast("type[Exception]", typer.BadParameter.__mro__[2])

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
    except typer.Abort:
        output.error("stopped", reason=None)
        code = ERROR
    except typer.Exit as exit_:
        code = exit_.exit_code
    except _USAGE_ERROR as error:
        sentence = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        output.error(sentence[:1].lower() + sentence[1:], reason=None)
        code = ERROR
    except Exception as error:  # noqa: BLE001 - the one net of this edge: 1 would say "no"
        traceback.print_exc()
        output.error(f"internal error: {type(error).__name__}", reason=ReasonCode.INTERNAL)
        code = ERROR
    sys.exit(code if isinstance(code, int) else YES)

"""The command tree and the one table from errors to exit codes: 0 yes, 1 no, 2 error."""

import sys
import traceback
from importlib import import_module
from typing import Final, cast

import typer

from authd.cli.catalogue import ABOUT, COMMANDS
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
    help=ABOUT,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def _authd() -> None:
    # Without a callback, an application of one command is that command.
    pass


def run() -> None:
    """Run a command; ends the process with 0, 1 or 2."""
    _register(sys.argv[1] if len(sys.argv) > 1 else "")
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


def _register(name: str) -> None:
    """Load one command; all of them for a list, a completion, or a name to be corrected."""
    # They import this module, so it cannot import them at its top.
    module = COMMANDS[name].module if name in COMMANDS else "commands"
    import_module(f"authd.cli.{module}")

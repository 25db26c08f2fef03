"""The command tree and the one table from errors to exit codes: 0 yes, 1 no, 2 error."""

import re
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from typing import Annotated, Final, Protocol, cast

import typer

from authd import __version__
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


def _print_version(asked: bool) -> None:  # noqa: FBT001 - the parser calls it so
    if asked:
        print(f"authd {__version__}")
        raise typer.Exit


@app.callback()
def _authd(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    # Without a callback, an application of one command is that command.
    pass


def run() -> None:
    """Run a command; ends the process with 0, 1 or 2."""
    _register(sys.argv[1] if len(sys.argv) > 1 else "")
    output = Output(as_json="--json" in sys.argv)
    try:
        command = typer.main.get_command(app)
        _let_ids_through(cast("_Command", command))
        code = command(standalone_mode=False)
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


# An id or a key in base64url; one of sixty-four begins with a hyphen, as options do.
_ID: Final = re.compile(r"-(?:[A-Za-z0-9_-]{21}|[A-Za-z0-9_-]{42})")


class _State(Protocol):
    largs: list[str]


class _Parser(Protocol):
    _process_opts: Callable[[str, _State], None]


class _Command(Protocol):
    make_parser: Callable[[object], _Parser]


def _let_ids_through(command: _Command) -> None:
    """Let ids and keys that begin with a hyphen be arguments; no option is as long as they are."""
    make_parser = command.make_parser

    def make(context: object) -> _Parser:
        parser = make_parser(context)
        process = parser._process_opts  # noqa: SLF001 - the one place that tells options apart

        def tell_apart(argument: str, state: _State) -> None:
            if _ID.fullmatch(argument):
                state.largs.append(argument)
            else:
                process(argument, state)

        parser._process_opts = tell_apart  # noqa: SLF001 - as above
        return parser

    command.make_parser = make
    for below in getattr(command, "commands", {}).values():
        _let_ids_through(below)


def _register(name: str) -> None:
    """Load one command; all of them for a list, a completion, or a name to be corrected."""
    # They import this module, so it cannot import them at its top.
    module = COMMANDS[name].module if name in COMMANDS else "commands"
    import_module(f"authd.cli.{module}")

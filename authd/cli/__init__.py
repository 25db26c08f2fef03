"""The command line: one file a command; heavy imports happen inside the commands."""

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line; ends the process with 0, 1 or 2."""
    if sys.argv[1:] == ["--help"]:
        from authd.cli.catalogue import overview

        print(overview(), end="")
        sys.exit(0)
    if sys.argv[1:] == ["--version"]:
        from authd import __version__

        print(f"authd {__version__}")
        sys.exit(0)
    from authd.cli.app import run

    run()

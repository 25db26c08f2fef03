"""The command line: one file a command; heavy imports happen inside the commands."""

from authd.cli.app import main

__all__ = ["main"]

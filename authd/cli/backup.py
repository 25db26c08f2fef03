"""``authd backup``: keys, subjects, configuration and store in one private file."""

import io
import os
import sqlite3
import tarfile
import tempfile
from pathlib import Path
from typing import Annotated, Final

import typer

from authd.cli.app import app
from authd.cli.context import JsonOption, StateOption, make_context
from authd.errors import ConflictError, StoreError

_FILES: Final = ("node.json", "authd.toml", "keys", "subjects", "tls", "outbox")


@app.command("backup")
def backup(
    target: Annotated[Path, typer.Argument(help="File to write; must not exist.")],
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write everything this daemon cannot get back from the network; the daemon may run."""
    context = make_context(state, as_json=as_json)
    context.node()
    try:
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ConflictError(f"`{target}` exists already and is never overwritten") from error
    except OSError as error:
        raise StoreError(f"cannot write `{target}`: {error.strerror}") from error
    try:
        _write(context.state_dir, handle)
    except BaseException:
        # Half a backup must not be taken for a whole one.
        target.unlink()
        raise
    size = target.stat().st_size
    context.output.result(
        {"file": str(target), "bytes": size},
        [f"{target}: {size} bytes; it holds private keys, keep it as you keep those"],
    )


def _write(state_dir: Path, handle: int) -> None:
    try:
        with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            database = _copy_database(state_dir / "authd.db")
            for name in _FILES:
                if (state_dir / name).exists():
                    archive.add(state_dir / name, arcname=name)
            info = tarfile.TarInfo("authd.db")
            info.size, info.mode = len(database), 0o600
            archive.addfile(info, io.BytesIO(database))
    except OSError as error:
        raise StoreError(f"cannot write the backup: {error.strerror}") from error


def _copy_database(path: Path) -> bytes:
    """Copy the database as it is at one moment, also while the daemon writes.

    Raises:
        StoreError: It cannot be read.
    """
    try:
        with tempfile.TemporaryDirectory() as directory:
            copy = Path(directory) / "authd.db"
            source, target = sqlite3.connect(path), sqlite3.connect(copy)
            try:
                source.backup(target)
            finally:
                source.close()
                target.close()
            return copy.read_bytes()
    except sqlite3.Error as error:
        raise StoreError(f"cannot read `{path}`: {error}") from error

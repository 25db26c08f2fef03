"""``authd backup`` and ``authd restore``: keys, subjects, configuration and store in one file.

A restored daemon knows less than the one that was lost: it never goes on with that one's list of
heartbeats, of which others may know more, but begins a new one under its last head.
"""

import io
import json
import os
import re
import shutil
import sqlite3
import tarfile
import tempfile
import zlib
from pathlib import Path
from typing import Annotated, Final

import typer

from authd.cli.app import app
from authd.cli.context import JsonOption, StateOption, make_context
from authd.errors import ConflictError, StoreError
from authd.service.heartbeats import RESTORE_WAIT_S
from authd.store.keystore import write_private
from authd.store.sqlite import ALONE, RESTORED, SqliteStore

_DATABASE: Final = "authd.db"
_STATE_DIR: Final = re.compile(r"^state_dir *=.*$", re.MULTILINE)
_NODE: Final = "node.json"
_FILES: Final = (_NODE, "authd.toml", "keys", "subjects", "tls", "outbox")


@app.command("backup")
def backup(
    target: Annotated[Path, typer.Argument(help="File to write; must not exist.")],
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write down what the network could not give back. The daemon may run."""
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


@app.command("restore")
def restore(
    source: Annotated[Path, typer.Argument(help="File that `authd backup` wrote.")],
    alone: Annotated[
        bool,
        typer.Option("--alone", help="No other daemon of the domain is left: wait for none."),
    ] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Bring a backup back into an empty state directory."""
    context = make_context(state, as_json=as_json)
    target = context.state_dir
    if target.exists() and any(target.iterdir()):
        raise ConflictError(f"`{target}` is not empty and is never overwritten: choose another")
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.chmod(0o700)
        _read(source, target, alone=alone)
        _move(target / "authd.toml", target)
    except BaseException:
        # Half a restore must not be taken for a daemon's state.
        for path in target.iterdir() if target.exists() else ():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise
    node = context.node()
    waiting = node.networked and not alone
    context.output.result(
        {"state": str(target), "domain": node.domain, "waits_for_peers": waiting},
        [
            f"restored    {target}, domain {node.domain}",
            "It begins a new list of heartbeats"
            + (
                f" {RESTORE_WAIT_S:.0f} s after a peer has told how the old one ended."
                if waiting
                else " at once; revocations made after the backup are lost: make them again."
            ),
            "Counters of boards (`--counter`) are those of the backup: give such boards new keys.",
            "",
            "Next: make sure that the old daemon never runs again, then",
            f"      authd up --state {target}",
        ],
    )


def _read(source: Path, target: Path, *, alone: bool) -> None:
    try:
        with tarfile.open(source, mode="r:gz") as archive:
            members = archive.getmembers()
            for one in members:
                top = one.name.partition("/")[0]
                if top not in {*_FILES, _DATABASE} or not (one.isfile() or one.isdir()):
                    raise StoreError(f"`{source}` is no backup of authd: it holds `{one.name}`")
            if not {_DATABASE, _NODE} <= {one.name for one in members if one.isfile()}:
                raise StoreError(f"`{source}` is no backup of authd: it holds no state")
            # The filter keeps every member below the target, and its mode within reason.
            archive.extractall(
                target, members=[one for one in members if one.name != _NODE], filter="data"
            )
            _mark(target / _DATABASE, alone=alone)
            # Nothing runs without it: a power cut before leaves no copy that does not say so.
            archive.extract(_NODE, target, filter="data")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise StoreError(f"`{source}` is no backup of authd, or damaged: {error}") from error
    except OSError as error:
        raise StoreError(f"cannot read `{source}`: {error.strerror or error}") from error


def _move(config: Path, target: Path) -> None:
    """Let the configuration name the directory that it is in now."""
    if not config.exists():
        return
    text = config.read_text("utf-8")
    line = f"state_dir = {json.dumps(str(target.absolute()))}"
    moved = _STATE_DIR.sub(lambda _: line, text, count=1)
    if moved != text:
        write_private(config, moved, overwrite=True)


def _mark(database: Path, *, alone: bool) -> None:
    """Note that this is a copy, and that proofs from before it starts do not count."""
    with SqliteStore(database) as store:
        store.set_meta("stopped", "no")
        store.set_meta(RESTORED, ALONE if alone else "waits")


def _write(state_dir: Path, handle: int) -> None:
    try:
        with os.fdopen(handle, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
            database = _copy_database(state_dir / _DATABASE)
            for name in _FILES:
                if (state_dir / name).exists():
                    archive.add(state_dir / name, arcname=name)
            info = tarfile.TarInfo(_DATABASE)
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

"""Where keys, store and sockets may lie: nobody but this user and root may change what is there.

Whoever can write to a directory above a socket can put a socket of his own in its place and answer
for authd; whoever can write to the state directory can take revocations out of the store.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from authd.errors import ConfigError


def check_place(directory: Path) -> None:
    """Check a directory and all above it, as they are named: links count themselves.

    Raises:
        ConfigError: One belongs to another user, or others may write to it; names it.
    """
    path = Path(os.path.abspath(directory))  # noqa: PTH100 - `resolve` would follow the links
    trusted = {0, os.geteuid()} | _unmapped_owner()
    for one in (path, *path.parents):
        try:
            status = one.lstat()
        except OSError as error:
            raise ConfigError(f"`{one}`: {error.strerror}") from error
        if status.st_uid not in trusted:
            raise ConfigError(f"`{one}` belongs to another user, who could replace what is in it")
        if not stat.S_ISLNK(status.st_mode) and _others_may_write(status):
            raise ConfigError(f"`{one}`: others may write to it and replace what is in it")


@contextmanager
def hold_place(directory: Path) -> Iterator[None]:
    """Keep a state directory to one daemon: two would sign two lists with one heartbeat key.

    Raises:
        ConfigError: Another daemon holds it, or it cannot be written.
    """
    try:
        handle = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(f"`{directory}`: {error.strerror}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise ConfigError(f"another authd is running on `{directory}`") from error
    try:
        yield
    finally:
        # The kernel lets go of the lock with the descriptor, also when the process is killed.
        os.close(handle)


def _unmapped_owner() -> set[int]:
    """Return what owners outside this user namespace look like; none in the first namespace."""
    try:
        mapped = Path("/proc/self/uid_map").read_text("ascii").split()
        overflow = Path("/proc/sys/kernel/overflowuid").read_text("ascii")
    except OSError:
        return set()
    return set() if mapped == ["0", "0", "4294967295"] else {int(overflow)}


def _others_may_write(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_ISVTX:
        # Nobody can rename or remove what belongs to others there (`/tmp`).
        return False
    # A user's private group is the user: many hosts make directories writable for it.
    by_group = status.st_mode & stat.S_IWGRP and status.st_gid not in (0, os.getegid())
    return bool(by_group or status.st_mode & stat.S_IWOTH)

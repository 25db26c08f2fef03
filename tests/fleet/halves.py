"""Two network namespaces with one cable between them, which can be pulled.

Needs the rights of root over its namespaces; `unshare --user --map-root-user --net` gives them to
anybody. Nothing of the host's own network is touched, and all is gone when the process ends.
"""

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Self

ADDRESSES: Final = ("10.98.0.1", "10.98.0.2")
_CLONE_NEWNET: Final = 0x40000000  # namespaces(7)
_LIBC: Final = ctypes.CDLL(None, use_errno=True)


class Halves:
    """The namespaces, by number: 0 and 1; an object to be used with ``with``."""

    def __init__(self) -> None:
        self._files: list[int] = []

    def __enter__(self) -> Self:
        home = _open_own()
        try:
            for _ in ADDRESSES:
                _check(_LIBC.unshare(_CLONE_NEWNET))
                self._files.append(_open_own())
        finally:
            _enter(home)
            os.close(home)
        with self.inside(0):
            _ip(f"link add half0 type veth peer name half1 netns {self._path(1)}")
        for number, address in enumerate(ADDRESSES):
            with self.inside(number):
                _ip("link set lo up")
                _ip(f"address add {address}/24 dev half{number}")
                _ip(f"link set half{number} up")
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            os.close(file)

    @contextmanager
    def inside(self, number: int) -> Iterator[None]:
        """Let this thread, and what it starts, live in one of the namespaces for a while."""
        home = _open_own()
        try:
            _enter(self._files[number])
            yield
        finally:
            _enter(home)
            os.close(home)

    def pull(self) -> None:
        """Pull the cable: what is sent from one half to the other is lost without a word."""
        self._cable("down")

    def plug(self) -> None:
        """Plug the cable in again."""
        self._cable("up")

    def _cable(self, state: str) -> None:
        with self.inside(1):
            _ip(f"link set half1 {state}")

    def _path(self, number: int) -> str:
        return f"/proc/{os.getpid()}/fd/{self._files[number]}"


def _open_own() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(file: int) -> None:
    _check(_LIBC.setns(file, _CLONE_NEWNET))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"network namespaces: {os.strerror(number)}")


def _ip(arguments: str) -> None:
    subprocess.run(["/sbin/ip", *arguments.split()], check=True, capture_output=True, timeout=10)

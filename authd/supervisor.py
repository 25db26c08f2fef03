"""Keeps the parts of a program going: one that fails is reported once, and started again."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from authd.errors import AuthdError

_FIRST_PAUSE_S: Final = 1.0
_MAX_PAUSE_S: Final = 30.0
# A part that ran for so long is up: whatever it cannot open, it knows sooner.
_STEADY_S: Final = 5.0
_log = structlog.get_logger("authd")


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a part of the daemon is down.

    Attributes:
        kind: The error's class: a word for programs, which names no place of this host.
        sentence: For the operator and the log.
    """

    kind: str
    sentence: str


class Supervisor:
    """Keeps the parts of a daemon going: one that fails is reported, and started again."""

    def __init__(self, *, pause_s: float = _FIRST_PAUSE_S, steady_s: float = _STEADY_S) -> None:
        """Watch over nothing yet.

        Args:
            pause_s: How long to wait before the first new start; doubles up to 30 s.
            steady_s: A part that has run for so long since its start is up.
        """
        self.troubles: dict[str, Trouble] = {}
        self._pause_s = pause_s
        self._steady_s = steady_s

    async def run(self, name: str, task: Callable[[], Awaitable[None]]) -> None:
        """Run a part until it ends by itself or is cancelled."""
        loop = asyncio.get_running_loop()
        pause_s = self._pause_s
        while True:
            steady = loop.call_later(self._steady_s, self._recover, name)
            try:
                await task()
            except Exception as error:  # noqa: BLE001 - the supervisor: one task must not end the daemon
                if name not in self.troubles:
                    pause_s = self._pause_s
                self._report(name, error)
            else:
                self._recover(name)
                return
            finally:
                steady.cancel()
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _MAX_PAUSE_S)

    def _report(self, name: str, error: Exception) -> None:
        """Say it once, not at every new start that ends in the same way."""
        known = _known(error)
        kind = type(known or error).__name__
        trouble = Trouble(kind, str(known) if known else f"internal error: {kind}")
        if self.troubles.get(name) == trouble:
            return
        self.troubles[name] = trouble
        if known:
            _log.error("a part is down and is tried again", part=name, error=str(known))
        else:
            _log.error("a part failed and is started again", part=name, exc_info=error)

    def _recover(self, name: str) -> None:
        if self.troubles.pop(name, None) is not None:
            _log.info("a part is up again", part=name)


def _known(error: Exception) -> AuthdError | None:
    """Return the error that explains itself, if there is none beside it that does not."""
    if isinstance(error, ExceptionGroup) and error.split(AuthdError)[1] is None:
        error = error.exceptions[0]
        return _known(error)
    return error if isinstance(error, AuthdError) else None

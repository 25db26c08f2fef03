"""An event loop whose time jumps to the next timer: hours pass in seconds."""

import asyncio
import selectors
from collections.abc import Coroutine, Mapping
from typing import Any, Final, TypeVar

START: Final = 1_800_000_000
_T = TypeVar("_T")


class StalledError(RuntimeError):
    """Nothing is left that could ever happen."""


class _JumpingSelector(selectors.BaseSelector):
    """Never looks at a socket: whatever the loop would wait for, the clock jumps over."""

    def __init__(self) -> None:
        self.time = 0.0
        self._registered: dict[int, selectors.SelectorKey] = {}

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = selectors.SelectorKey(fileobj, number, events, data)
        self._registered[number] = key
        return key

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        number = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        return self._registered.pop(number)

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise StalledError("no timer is set and no task can run")
        self.time += max(0.0, timeout)
        return []

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        return self._registered


class VirtualLoop(asyncio.SelectorEventLoop):
    """The production code runs on it unchanged."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return virtual seconds since the start."""
        return self._jumping.time


class VirtualClock:
    """`Clock` of one node on the running loop; its wall clock may be off."""

    def __init__(self, *, off_s: float = 0.0) -> None:
        self._loop = asyncio.get_running_loop()
        self.off_s = off_s

    def now(self) -> int:
        return int(START + self.off_s + self._loop.time())

    def now_us(self) -> int:
        return int((START + self.off_s + self._loop.time()) * 1_000_000)

    def monotonic(self) -> float:
        return self._loop.time()

    def behind_s(self) -> int:
        return 0


def run(main: Coroutine[Any, Any, _T]) -> _T:
    """Run a simulation to its end."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)

"""What a CONNECT costs, with few filters and many, with one client connected and a thousand.

Clients whom the plugin knows are judged in it, whoever is new by the daemon. The plugin asks it one
question after another, and spends at most 100 ms of any second on that: what is compared of
several at once are bursts that fit, with pauses between them.
"""

import contextlib
import itertools
import selectors
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from authd.core import limits
from tests.bench.measure import Row, cpu_seconds_of
from tests.bench.mosquitto_brokers import ACCEPTED, Broker, crowd, wait_until_idle
from tests.bench.mosquitto_sites import KNOWN, NAMES, broker

AT_ONCE: Final = 16
FILTERS: Final = (5, 50, 500)
CROWDS: Final = (1, 1000)
PACED: Final = 30
# Of the 100 ms in any second that the plugin has for questions, and how they come back.
BURST_S: Final = 0.06
BURST_MOST: Final = 24
BURST_LEAST: Final = 4
REST_S: Final = 1.1
TRIES: Final = 5
SUSTAINED_S: Final = 5.0
_TARGETS: Final = {"plugin": 0.9, "daemon": 0.4}
_BY: Final = {"plugin": "judged in the plugin", "daemon": "through the daemon"}
_NUMBERS: Final = itertools.count()


# --- measures -----------------------------------------------------------------------------------


class RefusedError(Exception):
    """Most connects were refused: the daemon did not answer in time, because the host is busy."""


def one_by_one(one: Broker, packets: list[bytes], *, pause_s: float) -> float:
    """Return the median seconds from CONNECT to CONNACK.

    The pauses keep questions to the daemon within the plugin's budget of 100 ms in any second.

    Raises:
        RefusedError: Most were refused.
    """
    taken = []
    for packet in packets:
        with socket.create_connection(("127.0.0.1", one.port), 10) as opened:
            started = time.perf_counter()
            opened.sendall(packet)
            answer = opened.recv(4)
        if answer == ACCEPTED:  # else the host was too busy for an answer within 50 ms
            taken.append(time.perf_counter() - started)
        time.sleep(pause_s)
    if len(taken) < len(packets) / 2:
        raise RefusedError
    return statistics.median(taken)


def at_once(one: Broker, packets: list[bytes]) -> float:
    """Return the broker's CPU seconds for each accepted connect, ``AT_ONCE`` at once."""
    started = cpu_seconds_of(one.process.pid)
    accepted = _flood(one, packets)
    return (cpu_seconds_of(one.process.pid) - started) / max(accepted, 1)


def in_a_burst(one: Broker, packets: list[bytes]) -> float:
    """Return the seconds for each accepted connect, ``AT_ONCE`` at once.

    Raises:
        RefusedError: Most were refused.
    """
    started = time.perf_counter()
    accepted = _flood(one, packets)
    took_s = time.perf_counter() - started
    if accepted < len(packets) / 2:
        raise RefusedError
    return took_s / accepted


def sustained(one: Broker) -> str:
    """Let new clients try all the time; tell how many got in, and what each cost."""
    assert one.daemon is not None
    pids, started, accepted = (one.process.pid, one.daemon), time.monotonic(), 0
    before = [cpu_seconds_of(pid) for pid in pids]
    while time.monotonic() - started < SUSTAINED_S:
        accepted += _flood(one, _strangers(one, BURST_LEAST))
        time.sleep(0.01)
    spent = [cpu_seconds_of(pid) - was for pid, was in zip(pids, before, strict=True)]
    each = [1e6 * seconds / max(accepted, 1) for seconds in spent]
    rate = accepted / (time.monotonic() - started)
    return f"all the time: {rate:.0f}/s, CPU: broker {each[0]:.0f} us, daemon {each[1]:.0f} us"


def _flood(one: Broker, packets: list[bytes]) -> int:
    """Keep so many connects under way until all were tried; how many were accepted."""
    waiting, accepted = iter(packets), 0
    with selectors.DefaultSelector() as ready:
        for _ in range(AT_ONCE):
            _open_next(one, waiting, ready)
        while ready.get_map():
            for key, _events in ready.select(10):
                accepted += _finish(key, ready)
                _open_next(one, waiting, ready)
    return accepted


def _open_next(one: Broker, waiting: Iterator[bytes], ready: selectors.BaseSelector) -> None:
    packet = next(waiting, None)
    if packet is not None:
        opened = socket.create_connection(("127.0.0.1", one.port), 10)
        opened.sendall(packet)
        ready.register(opened, selectors.EVENT_READ)


def _finish(key: selectors.SelectorKey, ready: selectors.BaseSelector) -> bool:
    opened = key.fileobj
    assert isinstance(opened, socket.socket)
    ready.unregister(opened)
    with opened:
        return opened.recv(4) == ACCEPTED


Kind: TypeAlias = Callable[[Broker, list[bytes]], float]


Measure: TypeAlias = Callable[[], float]


def _fresh(one: Broker, count: int, kind: Kind) -> Measure:
    """Measure with client ids that nobody knows yet."""
    return lambda: kind(one, _strangers(one, count))


def _strangers(one: Broker, count: int) -> list[bytes]:
    return [one.packet(f"fresh-{next(_NUMBERS)}") for _ in range(count)]


def _known(one: Broker, count: int, kind: Kind) -> Measure:
    """Measure with client ids that have a live lease; each comes back in its turn."""
    return lambda: kind(one, [one.packet(KNOWN[n % len(KNOWN)]) for n in range(count)])


def _paced(one: Broker, packets: list[bytes]) -> float:
    return one_by_one(one, packets, pause_s=0.02)


def _slowly(one: Broker, packets: list[bytes]) -> float:
    return one_by_one(one, packets, pause_s=0.05)


def _rested(one: Broker, packets: list[bytes]) -> float:
    time.sleep(REST_S)
    return in_a_burst(one, packets)


# --- rows ---------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Contest:
    """Brokers to compare.

    Attributes:
        others: Without the plugin, by kind.
        own: With it, beside a daemon.
        said: How many filters, and clients connected.
        asks: Whether the daemon judges new clients of so many filters.
        rounds: How often each is measured.
        connects: How many are tried in a flood.
    """

    others: dict[str, Broker]
    own: Broker
    said: str
    asks: bool
    rounds: int
    connects: int

    def rows(self) -> list[Row]:
        """Measure all of it: the plugin alone, and what it asks the daemon about."""
        rows = [
            *self._compare(f"{AT_ONCE} at once, CPU of the broker", self._floods(), "dynamic"),
            *self._compare(f"{AT_ONCE} at once, wall time", self._bursts()),
            *self._compare("one alone, wall time", self._alone()),
        ]
        if self.asks:
            rows[-1] = replace(rows[-1], note=sustained(self.own))
        return rows

    def _floods(self) -> dict[str, Measure]:
        every = {name: _fresh(one, self.connects, at_once) for name, one in self.others.items()}
        return {**every, "plugin": _known(self.own, self.connects, at_once)}

    def _bursts(self) -> dict[str, Measure]:
        many = self.connects
        every = {name: _fresh(one, many, in_a_burst) for name, one in self.others.items()}
        every["plugin"] = _known(self.own, many, in_a_burst)
        if self.asks:
            every["daemon"] = _fresh(self.own, self._burst_size(), _rested)
        return every

    def _burst_size(self) -> int:
        """Return how many the plugin may ask about at once without being told to wait."""
        alone_s = _tried(_fresh(self.own, BURST_LEAST, _slowly))
        return max(BURST_LEAST, min(BURST_MOST, int(BURST_S / alone_s)))

    def _alone(self) -> dict[str, Measure]:
        every = {name: _fresh(one, PACED, _paced) for name, one in self.others.items()}
        every["plugin"] = _known(self.own, PACED, _paced)
        return {**every, "daemon": _fresh(self.own, PACED, _slowly)} if self.asks else every

    def _compare(self, how: str, measures: dict[str, Measure], *more: str) -> list[Row]:
        taken = _turns(measures, self.rounds)
        note = ", ".join(
            f"{name} {1e6 * statistics.median(one):.0f} us {1 / statistics.median(one):.0f}/s"
            for name, one in taken.items()
        )
        pairs = [("plugin", to) for to in ("file", *more)]
        pairs += [("daemon", "file")] * ("daemon" in taken)
        return [
            Row(
                what=f"connect, {self.said}, {_BY[own]}, {how} / {to}",
                value=_ratio(taken, own, to),
                target=_TARGETS[own],
                at_least=True,
                note=note if place == 0 else "",
            )
            for place, (own, to) in enumerate(pairs)
        ]


def _turns(measures: dict[str, Measure], rounds: int) -> dict[str, list[float]]:
    """Measure each in its turn, after a turn that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(rounds + 1):
        for name, measure in measures.items():
            figure = _tried(measure)
            taken[name] += [figure] * (turn > 0)
    return taken


def _tried(measure: Measure) -> float:
    for _ in range(TRIES):
        with contextlib.suppress(RefusedError):
            return measure()
        time.sleep(REST_S)
    raise SystemExit("the broker refused most connects again and again: is the host too busy?")


def _ratio(taken: dict[str, list[float]], own: str, to: str) -> float:
    """Return the median of the ratios within a turn."""
    pairs = zip(taken[to], taken[own], strict=True)
    return statistics.median(other / mine for other, mine in pairs)


def connect_groups(*, full: bool) -> Iterator[list[Row]]:
    """Measure with few filters and many, with few and with many clients connected."""
    for count in FILTERS:
        with contextlib.ExitStack() as stack:
            most = max(CROWDS) - 1
            brokers = {n: stack.enter_context(broker(n, count, crowd=most)) for n in NAMES}
            own = brokers.pop("authd")
            for clients in CROWDS:
                with contextlib.ExitStack() as crowds:
                    for one in (*brokers.values(), own):
                        crowds.enter_context(crowd(one, clients - 1))
                    wait_until_idle(own)
                    yield Contest(
                        others=brokers,
                        own=own,
                        said=f"{count} filters, {clients} connected",
                        asks=count <= limits.MAX_COMPILED_FILTERS,
                        rounds=9 if full else 5,
                        connects=1000 if full else 400,
                    ).rows()

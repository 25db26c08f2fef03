"""What a CONNECT costs with the plugin beside a real daemon, with one client connected and many.

A site of the demonstration's stage decides. Clients that come back are judged in the plugin; a key
has few sessions that wait for their client, so these use several keys with eight client ids each.
"""

import contextlib
import selectors
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

from authd.demo.stage import Site, Stage
from authd.device import DeviceKey
from tests.bench.measure import Row, in_turns
from tests.bench.mosquitto_brokers import (
    ACCEPTED,
    AHEAD_S,
    PLUGIN,
    Broker,
    broker,
    plugin_lines,
    start,
)
from tests.stages import lone_site

AT_ONCE: Final = 16
CROWDS: Final = (1, 1000)
CROWD_IN_S: Final = 180.0
KNOWN_KEYS: Final = 7
KNOWN_OF_A_KEY: Final = 8
KNOWN: Final = [
    f"known{n % KNOWN_KEYS}-{n // KNOWN_KEYS}" for n in range(KNOWN_KEYS * KNOWN_OF_A_KEY)
]
PACED: Final = 50
SETTLED_S: Final = 3.0


# --- a broker beside a real daemon --------------------------------------------------------------


def _key(stage: Stage, site: Site, name: str) -> DeviceKey:
    path = stage.directory / f"{name}.key"
    options = ("--pub=site/#", "--sub=site/#", f"--client-id={name}-*", f"--out={path}")
    stage.authd("device", "new", name, *options, site=site)
    return DeviceKey.load(path)


@contextlib.contextmanager
def broker_of_a_daemon() -> Iterator[Broker]:
    """Run a daemon, a Mosquitto with the plugin, and keys for client ids that begin with a name."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authd-")))
        stage = stack.enter_context(Stage(folder, mosquitto="mosquitto", plugin=PLUGIN))
        site = lone_site(stage, mosquitto=True)
        names = ("crowd", "fresh", *(f"known{number}" for number in range(KNOWN_KEYS)))
        keys = {name: _key(stage, site, name) for name in names}
        lines = plugin_lines(site.run_dir / "broker.sock", "mosquitto")
        process = start(folder, lines, site.mqtt_port)
        stack.callback(process.wait)
        stack.callback(process.terminate)

        def show(client_id: str) -> tuple[bytes, bytes]:
            key, now = keys[client_id.partition("-")[0]], int(time.time()) + AHEAD_S
            proof = key.password(site.endpoint, client_id=client_id, now=now)
            return key.username.encode(), proof.encode()

        yield Broker(process=process, port=site.mqtt_port, show=show)


@contextlib.contextmanager
def crowd(one: Broker, count: int) -> Iterator[None]:
    """Keep so many clients connected; each tries until it is in."""
    with contextlib.ExitStack() as stack:
        _all_join(one, [f"crowd-{number}" for number in range(count)], stack)
        yield


def _all_join(one: Broker, names: list[str], stack: contextlib.ExitStack) -> None:
    until = time.monotonic() + CROWD_IN_S
    for name in names:
        while not _joins(one, name, stack):
            if time.monotonic() > until:
                raise SystemExit(f"`{name}` never got in")
            time.sleep(0.01)


def _joins(one: Broker, client_id: str, stack: contextlib.ExitStack) -> bool:
    opened = socket.create_connection(("127.0.0.1", one.port), 10)
    opened.sendall(one.packet(client_id))
    if opened.recv(4) == ACCEPTED:
        stack.enter_context(opened)
        return True
    opened.close()
    return False


# --- measures -----------------------------------------------------------------------------------


def one_by_one(one: Broker, packets: list[bytes], *, pause_s: float) -> float:
    """Return the median seconds from CONNECT to CONNACK.

    The pauses keep questions to the daemon within the plugin's budget of 100 ms in any second.
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
        raise SystemExit("the broker refused most connects")
    return statistics.median(taken)


def at_once(one: Broker, packets: list[bytes]) -> float:
    """Return the seconds per accepted connect, ``AT_ONCE`` at once; those refused are lost."""
    waiting, accepted = iter(packets), 0
    with selectors.DefaultSelector() as ready:
        started = time.perf_counter()
        for _ in range(AT_ONCE):
            _open_next(one, waiting, ready)
        while ready.get_map():
            for key, _events in ready.select(10):
                accepted += _finish(key, ready)
                _open_next(one, waiting, ready)
        return (time.perf_counter() - started) / max(accepted, 1)


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


def _fresh(one: Broker, label: str, count: int, kind: Kind) -> Callable[[], float]:
    """Measure with client ids that nobody knows yet."""
    turn = 0

    def measure() -> float:
        nonlocal turn
        turn += 1
        return kind(one, [one.packet(f"fresh-{label}-{turn}-{n}") for n in range(count)])

    return measure


def _known(one: Broker, count: int, kind: Kind) -> Callable[[], float]:
    """Measure with client ids that have a live lease; each came back in its turn."""
    return lambda: kind(one, [one.packet(KNOWN[n % len(KNOWN)]) for n in range(count)])


def _paced(one: Broker, packets: list[bytes]) -> float:
    return one_by_one(one, packets, pause_s=0.02)


def _slowly(one: Broker, packets: list[bytes]) -> float:
    return one_by_one(one, packets, pause_s=0.08)


def connect_rows(
    file: Broker, own: Broker, *, clients: int, rounds: int, connects: int
) -> list[Row]:
    """Compare the time of one connect, and how many of a flood a broker accepts in a second."""
    paced = in_turns(
        _fresh(file, f"paced{clients}", PACED, _paced),
        _fresh(own, f"paced{clients}", PACED, _slowly),
        _known(own, PACED, _paced),
        rounds=rounds,
    )
    flood = in_turns(
        _fresh(file, f"flood{clients}", connects, at_once),
        _known(own, connects, at_once),
        rounds=rounds,
    )
    through = _fresh(own, f"flood{clients}", connects, at_once)()
    us = [f"{1e6 * taken:.0f} us" for taken in paced]
    rates = [f"{1 / taken:.0f}/s" for taken in (*flood, through)]
    notes = (
        f"file {us[0]}, daemon {us[1]}",
        f"plugin {us[2]}",
        f"file {rates[0]}, plugin {rates[1]}; through the daemon {rates[2]}, by the budget",
    )
    values = (paced[0] / paced[1], paced[0] / paced[2], flood[0] / flood[1])
    whats = (
        "through the daemon, one by one",
        "judged in the plugin, one by one",
        f"judged in the plugin, {AT_ONCE} at once",
    )
    return [
        Row(
            what=f"connect, {clients} connected, {what} / password file",
            value=value,
            target=target,
            at_least=True,
            note=note,
        )
        for what, value, target, note in zip(whats, values, (0.2, 0.9, 0.9), notes, strict=True)
    ]


def connect_groups(*, full: bool) -> Iterator[list[Row]]:
    """Measure with few and with many clients connected."""
    rounds, connects = (5, 1000) if full else (5, 400)
    with broker("file", 5) as file, broker_of_a_daemon() as own:
        time.sleep(SETTLED_S)
        with contextlib.ExitStack() as stack:
            _all_join(own, KNOWN, stack)
        for clients in CROWDS:
            with crowd(file, clients - 1), crowd(own, clients - 1):
                yield connect_rows(file, own, clients=clients, rounds=rounds, connects=connects)

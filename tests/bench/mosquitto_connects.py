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
from tests.bench.measure import Row, cpu_seconds_of
from tests.bench.mosquitto_brokers import (
    ACCEPTED,
    AHEAD_S,
    NAMES,
    PLUGIN,
    SETTLED_S,
    Broker,
    all_join,
    broker,
    crowd,
    plugin_lines,
    start,
)
from tests.stages import lone_site

AT_ONCE: Final = 16
CROWDS: Final = (1, 1000)
KNOWN_KEYS: Final = 7
KNOWN_OF_A_KEY: Final = 8
KNOWN: Final = [
    f"known{n % KNOWN_KEYS}-{n // KNOWN_KEYS}" for n in range(KNOWN_KEYS * KNOWN_OF_A_KEY)
]
PACED: Final = 50


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

        assert site.daemon is not None
        assert site.daemon.child is not None
        daemon = site.daemon.child.pid
        yield Broker(process=process, port=site.mqtt_port, show=show, daemon=daemon)


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
    """Return the broker's CPU seconds for each accepted connect, ``AT_ONCE`` at once."""
    started = cpu_seconds_of(one.process.pid)
    accepted = _flood(one, packets)
    return (cpu_seconds_of(one.process.pid) - started) / max(accepted, 1)


def through_the_daemon(one: Broker, packets: list[bytes]) -> str:
    """Flood a broker that must ask; tell what got in, and what each cost broker and daemon."""
    assert one.daemon is not None
    pids, started = (one.process.pid, one.daemon), time.monotonic()
    before = [cpu_seconds_of(pid) for pid in pids]
    accepted = _flood(one, packets)
    spent = [cpu_seconds_of(pid) - was for pid, was in zip(pids, before, strict=True)]
    each = [1e6 * seconds / max(accepted, 1) for seconds in spent]
    rate = accepted / (time.monotonic() - started)
    return f"{rate:.0f}/s by the budget, CPU: broker {each[0]:.0f} us, daemon {each[1]:.0f} us"


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


def _paced_rows(
    others: dict[str, Broker], own: Broker, clients: int, *, rounds: int, connects: int
) -> list[Row]:
    """Compare the time from CONNECT to CONNACK."""
    label = f"paced{clients}"
    measures = {name: _fresh(one, label, PACED, _paced) for name, one in others.items()}
    measures["daemon"] = _fresh(own, label, PACED, _slowly)
    measures["plugin"] = _known(own, PACED, _paced)
    taken = _turns(measures, rounds)
    told = through_the_daemon(own, [own.packet(f"fresh-{label}-{n}") for n in range(connects)])
    what = f"{clients} connected, wall time of one"
    return [
        _row(f"{what} through the daemon", taken, "daemon", 0.4, told),
        _row(f"{what} judged in the plugin", taken, "plugin", 0.9, _note(taken)),
    ]


def _flood_rows(
    others: dict[str, Broker], own: Broker, clients: int, *, rounds: int, connects: int
) -> list[Row]:
    """Compare the broker's CPU time for each connect of a flood."""
    label = f"flood{clients}"
    measures = {name: _fresh(one, label, connects, at_once) for name, one in others.items()}
    measures["plugin"] = _known(own, connects, at_once)
    taken = _turns(measures, rounds)
    what = f"{clients} connected, {AT_ONCE} at once, judged in the plugin"
    return [
        _row(what, taken, "plugin", 0.9, _note(taken)),
        _row(what, taken, "plugin", 0.9, "", to="dynamic"),
    ]


def _turns(measures: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Measure each in its turn, after a turn that does not count."""
    taken: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(rounds + 1):
        for name, measure in measures.items():
            figure = measure()
            taken[name] += [figure] * (turn > 0)
    return taken


def _note(taken: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {1e6 * statistics.median(one):.0f} us" for name, one in taken.items())


def _row(
    what: str,
    taken: dict[str, list[float]],
    own: str,
    target: float,
    note: str,
    *,
    to: str = "file",
) -> Row:
    """Make a row of the median of the ratios within a turn."""
    pairs = zip(taken[to], taken[own], strict=True)
    value = statistics.median(other / mine for other, mine in pairs)
    return Row(what=f"connect, {what} / {to}", value=value, target=target, at_least=True, note=note)


def connect_groups(*, full: bool) -> Iterator[list[Row]]:
    """Measure with few and with many clients connected."""
    rounds, connects = (9, 1000) if full else (5, 400)
    with contextlib.ExitStack() as stack:
        others = {name: stack.enter_context(broker(name, 5)) for name in NAMES if name != "authd"}
        own = stack.enter_context(broker_of_a_daemon())
        time.sleep(SETTLED_S)
        all_join(own, KNOWN, stack)
        for clients in CROWDS:
            with contextlib.ExitStack() as crowds:
                for one in (*others.values(), own):
                    crowds.enter_context(crowd(one, clients - 1))
                yield _paced_rows(others, own, clients, rounds=rounds, connects=connects)
                yield _flood_rows(others, own, clients, rounds=rounds, connects=connects)

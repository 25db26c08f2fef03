"""Everybody comes back at once while the daemon dies and starts again."""

import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest

from authd.demo.stage import Site, Stage
from authd.device import DeviceKey
from tests.integration.test_reconnect import attached
from tests.plugin.mqtt import RawClient, connect_packet
from tests.plugin.prover import Prover

# Newer than all that an earlier run of the broker may have let in, yet not too far ahead.
AHEAD_S = 4
STARTED_S = 3.0
KEYS = 25
CLIENTS_OF_A_KEY = 8  # as many sessions of one key as a daemon keeps while they are away
ALL = KEYS * CLIENTS_OF_A_KEY
REVOKED_KEYS = 5
REVOKED = REVOKED_KEYS * CLIENTS_OF_A_KEY
ACCEPTED = b"\x20\x02\x00\x00"
REFUSED = b"\x20\x02\x00\x05"
ALL_IN_S = 60.0
CUT_WITHIN_S = 5.0


@dataclass
class Member:
    """One client of several that share a key; each has an address of its own.

    Attributes:
        number: Which one of all, for its address: the plugin counts attempts by address.
        key: The key they share.
        client_id: As the grant's prefix allows it.
        shown: The passwords of every CONNECT that was let in.
    """

    number: int
    key: DeviceKey
    client_id: str
    shown: list[str] = field(default_factory=list)
    link: RawClient | None = None

    def send(self, site: Site, password: str) -> None:
        """Open a connection and send a CONNECT; the answer is not waited for."""
        self.close()
        address = f"127.0.{1 + self.number // 200}.{1 + self.number % 200}"
        self.link = RawClient(site.mqtt_port, source=address)
        self.link.send(
            connect_packet(
                client_id=self.client_id.encode(),
                username=self.key.username.encode(),
                password=password.encode(),
            )
        )

    def answer(self) -> bytes:
        assert self.link is not None
        return self.link.packet()

    def proof(self, site: Site) -> str:
        """Make a proof that is newer than all that an earlier run of the broker may know."""
        now = int(time.time()) + AHEAD_S
        return self.key.password(site.endpoint, client_id=self.client_id, now=now)

    def lives(self) -> bool:
        """Ping, and wait for the answer."""
        assert self.link is not None
        try:
            self.link.send(b"\xc0\x00")
        except ConnectionError:
            return False
        return self.link.packet() == b"\xd0\x00"

    def close(self) -> None:
        if self.link is not None:
            self.link.close()
            self.link = None


def new_key(stage: Stage, site: Site, name: str) -> DeviceKey:
    """Make a key for every client id that begins with its name."""
    path = stage.directory / f"{name}.key"
    options = (f"--pub=site/{name}/#", f"--client-id={name}-*", f"--out={path}")
    stage.authd("device", "new", name, *options, site=site)
    return DeviceKey.load(path)


def names() -> list[str]:
    return [f"pump{number}" for number in range(KEYS)]


@pytest.fixture
def members(stage: Stage, site: Site) -> Iterator[list[Member]]:
    """Two hundred clients."""
    with ThreadPoolExecutor(3) as pool:
        keys = list(pool.map(lambda name: new_key(stage, site, name), names()))
    with ExitStack() as stack:
        made = []
        for number in range(ALL):
            place, client = divmod(number, CLIENTS_OF_A_KEY)
            made.append(Member(number, keys[place], f"{names()[place]}-{client}"))
            stack.callback(made[-1].close)
        yield made


def all_get_in(site: Site, members: Iterable[Member]) -> None:
    """Connect all at once, again and again.

    The plugin asks the daemon for a tenth of any second, so most are told "later" at first.
    """
    until, waiting = time.monotonic() + ALL_IN_S, list(members)
    while waiting:
        assert time.monotonic() < until, f"{len(waiting)} never got in"
        waiting = shut_out(site, waiting)


def shut_out(site: Site, members: list[Member]) -> list[Member]:
    """Connect these at once; who was told to come later."""
    proofs = [one.proof(site) for one in members]
    for one, proof in zip(members, proofs, strict=True):
        one.send(site, proof)
    left = []
    for one, proof in zip(members, proofs, strict=True):
        answer = one.answer()
        assert answer in (ACCEPTED, b""), f"{one.client_id} was refused for good"
        (one.shown if answer == ACCEPTED else []).append(proof)
        left += [] if answer == ACCEPTED else [one]
    return left


def verdict_on(site: Site, one: Member, proof: str) -> bytes:
    """Show a proof on a connection of its own until there is a verdict for good."""
    until = time.monotonic() + ALL_IN_S
    thief = Member(one.number, one.key, one.client_id)
    while time.monotonic() < until:
        thief.send(site, proof)
        answer = thief.answer()
        thief.close()
        if answer:
            return answer
        time.sleep(0.05)
    raise AssertionError("no verdict for good")


def verdicts(site: Site, members: Iterable[Member]) -> Counter[bytes]:
    """Show the last proof of each once more, by ten thieves at once."""
    with ThreadPoolExecutor(10) as pool:
        return Counter(pool.map(lambda one: verdict_on(site, one, one.shown[-1]), members))


def allowed(site: Site) -> int:
    return sum(one["effect"] == "allow" for one in site.decisions())


def kill(site: Site) -> None:
    assert site.daemon is not None
    site.daemon.stop(signal.SIGKILL)


def stranger(site: Site) -> bytes:
    """Connect with a key that nobody has granted anything; what the broker answers."""
    unknown = Prover()
    link = RawClient(site.mqtt_port)
    link.send(
        connect_packet(
            client_id=b"pump0-0",
            username=unknown.id.encode(),
            password=unknown.pop("pump0-0", ahead_s=AHEAD_S).encode(),
        )
    )
    answer = link.packet()
    link.close()
    return answer


@pytest.mark.timeout(240)
def test_a4_a36_a44_two_hundred_come_back_while_the_daemon_dies_and_starts_again(
    stage: Stage, site: Site, members: list[Member]
) -> None:
    attached(stage, site)
    time.sleep(STARTED_S)
    all_get_in(site, members)
    asked = allowed(site)
    kill(site)

    # Nobody answers: half of them come at once, and then the daemon starts while the others come.
    assert shut_out(site, members[: ALL // 2]) == []
    assert stranger(site) != ACCEPTED
    with ThreadPoolExecutor(1) as pool:
        started: Future[None] = pool.submit(stage.start_daemon, site)
        assert shut_out(site, members[ALL // 2 :]) == []
        started.result()
    assert allowed(site) == asked, "the plugin asked about a client with a live lease"

    # Right away revocations, which find the sessions that the plugin let in meanwhile.
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda name: stage.authd("revoke", name, site=site), names()[:REVOKED_KEYS]))
    revoked_at = time.monotonic()
    revoked, others = members[:REVOKED], members[REVOKED:]
    for one in revoked:
        while one.lives():
            assert time.monotonic() - revoked_at < CUT_WITHIN_S, f"{one.client_id} was not cut"
            time.sleep(0.02)
    assert all(one.lives() for one in others)
    assert stranger(site) != ACCEPTED

    # What was shown once is used up, here and, with a broker that knows nothing, at the daemon.
    assert verdicts(site, members) == {REFUSED: ALL}
    assert all(one.lives() for one in others)
    assert site.broker is not None
    site.broker.stop()
    stage.start_broker(site)
    attached(stage, site)
    before = len(site.decisions())
    assert verdicts(site, others) == {REFUSED: len(others)}
    reasons = Counter(one["reason"] for one in site.decisions()[before:])
    assert reasons == {"replayed": len(others)}
    all_get_in(site, others)

"""A real daemon whose peer port is under attack goes on deciding, and hears honest peers.

Each row says what the attack did to the daemon: how much memory it grew by, and how much slower
decisions were than in peace, in the same run. Times are not asserted.
"""

import asyncio
import base64
import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import pytest

from authd.clock import SystemClock, SystemEntropy
from authd.core.claims import Kind
from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.grants import KeySubject, sign_grant
from authd.core.identity import SigningKey, key_id_text
from authd.core.proofs import NONCE_BYTES, Audience, make_pop
from authd.core.statements import sign_revoke
from authd.core.topics import Action, make_scope
from authd.demo.stage import Site, Stage, wait_until
from authd.errors import NoResponseError
from authd.gossip.handshake import Introducer
from authd.gossip.messages import Hello, Proof
from authd.gossip.transport import GrpcTransport
from authd.gossip.wire import parse_frame
from authd.service.issuing import Bundle, decode_ticket, encode_bundle
from authd.service.ports import Item
from authd.store.keystore import AUTHORITY, NODE, Keystore
from tests.fleet.__main__ import ask, percentile
from tests.integration.hostile import Anybody, Hostile
from tests.stages import GO_AUTH, add_config, go_auth_base

ATTACKS: Final = (
    "connections_without_a_word",
    "a_byte_a_second",
    "rapid_resets",
    "http2_floods",
    "oversize",
    "malformed_frames",
    "streams_without_end",
    "strangers",
    "hints",
    "udp_junk",
    "udp_strangers",
    "admitted_bad_signatures",
    "admitted_malformed",
    "admitted_never_reads",
    "admitted_made_up_nodes",
    "admitted_stores",
)
SECONDS: Final = 1.6
HELD_S: Final = 16.0
# What one attack of these may cost, and all of them together: buffers, tables of addresses and
# keys, and what the allocator does not give back. None of it grows with the length of an attack.
ROW_MIB: Final = 24.0
ALL_MIB: Final = 64.0
# Lines about peers that one attack may write; each decision has a line of its own besides.
LINES: Final = 150
ARRIVES_S: Final = 15.0
CAVEAT: Final = "two cores shared by the daemons, the attacker and the clients"


@dataclass
class Device:
    """A device that a test granted something, with what its CONNECT looks like."""

    key: SigningKey
    audience: Audience

    def body(self) -> bytes:
        """Make the body of a fresh CONNECT for go-auth."""
        password = make_pop(
            self.key,
            audience=self.audience,
            client_id=key_id_text(self.key.public),
            time=SystemClock().now(),
            nonce=SystemEntropy().token(NONCE_BYTES),
        )
        name = key_id_text(self.key.public)
        return json.dumps({"username": name, "password": password, "clientid": name}).encode()


class Probe:
    """Asks for a decision again and again, over one connection, and times each answer."""

    def __init__(self, site: Site, device: Device) -> None:
        self._site, self._device = site, device
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.took_s: list[float] = []
        self.wrong: list[int] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._site.http_port, timeout=20)
        while not self._stop.is_set():
            body = self._device.body()
            began = time.perf_counter()
            status = decide(connection, self._site, body)
            self.took_s.append(time.perf_counter() - began)
            if status != http.HTTPStatus.OK:
                self.wrong.append(status)
        connection.close()


def decide(connection: http.client.HTTPConnection, site: Site, body: bytes) -> int:
    """Ask for one decision over a connection that is kept."""
    path = go_auth_base(site).partition(str(site.http_port))[2]
    connection.request("POST", f"{path}/go-auth/user", body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


@dataclass
class Row:
    """What one attack did."""

    attack: str
    done: int
    grown_mib: float
    cpu: float
    p50_ratio: float
    p99_ratio: float
    decided: int
    heard_s: float
    lines: int

    def __str__(self) -> str:
        return (
            f"{self.attack:28} {self.done:8} {self.grown_mib:9.1f} {self.cpu:6.0%}"
            f" {self.p50_ratio:10.1f} {self.p99_ratio:10.1f} {self.decided:8} {self.heard_s:8.2f}"
            f" {self.lines:6}"
        )


HEAD: Final = (
    f"{'attack':28} {'done':>8} {'MiB grown':>9} {'CPU':>6} {'p50 / idle':>10} {'p99 / idle':>10}"
    f" {'decided':>8} {'heard, s':>8} {'lines':>6}"
)


class Theatre:
    """A daemon under attack, an honest peer, and a hostile node that was admitted once."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self.victim = stage.add_site("victim", with_mosquitto=False)
        passphrase = f"--passphrase-file={stage.passphrase}"
        stage.authd("init", *stage.setup_arguments(self.victim), passphrase, site=self.victim)
        add_config(self.victim, GO_AUTH.format(port=self.victim.spare_port))
        tickets = [
            stage.authd("invite", f"--name={name}", site=self.victim)["ticket"]
            for name in ("honest", "hostile")
        ]
        stage.start_daemon(self.victim)
        self.honest = self._join(tickets[0])
        self.ticket = decode_ticket(decode_base64url(tickets[1]))
        self.authority = Keystore(self.victim.state).load(AUTHORITY)
        audience = Audience(self.ticket.domain, self.victim.other_endpoint)
        self.devices = [
            Device(SigningKey.from_seed(bytes([number + 1]) * 32), audience)
            for number in range(len(ATTACKS) + 1)
        ]
        self.hostile = self._start_hostile()
        self.rows: list[Row] = []
        self.idle_s: list[float] = []
        self._prepare()

    def _join(self, ticket: str) -> Site:
        site = self._stage.add_site("honest", with_mosquitto=False)
        self._stage.authd(
            "join", "-", *self._stage.setup_arguments(site), site=site, stdin=f"{ticket}\n"
        )
        self._stage.start_daemon(site)
        self._stage.await_status(site, lambda one: len(one["peers"]) == 1, what="it joined")
        return site

    def _start_hostile(self) -> "subprocess.Popen[str]":
        hostile = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.hostile"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[2],
        )
        self._tell(
            hostile,
            {
                "port": self.victim.peer_port,
                "seed": self.ticket.seed.hex(),
                "grants": [one.hex() for one in self.ticket.grants],
                "victim": Keystore(self.victim.state).load(NODE).public.hex(),
            },
        )
        return hostile

    @staticmethod
    def _tell(hostile: "subprocess.Popen[str]", order: dict[str, Any]) -> None:
        assert hostile.stdin is not None
        hostile.stdin.write(json.dumps(order) + "\n")
        hostile.stdin.flush()

    def close(self) -> None:
        self.hostile.terminate()
        self.hostile.communicate(timeout=10)

    # --- peace ----------------------------------------------------------------------------

    def _prepare(self) -> None:
        """Grant every device something, and see how fast decisions are in peace."""
        now = SystemClock().now()
        grants = [
            sign_grant(
                self.authority,
                subject=KeySubject(device.key.public),
                scope=make_scope({"site/x": Action.PUB}),
                issued_at=now,
                expires_at=now + 3_600,
            )
            for device in self.devices
        ]
        self._submit(self.victim, tuple(Item(Kind.GRANT, one.encoded) for one in grants))
        self.rest(0.5)
        self.idle_s = self.rest(2.0)

    def rest(self, seconds: float) -> list[float]:
        """Ask for decisions in peace; return how long each took."""
        with Probe(self.victim, self.devices[0]) as probe:
            time.sleep(seconds)
        assert not probe.wrong
        return probe.took_s

    def _submit(self, site: Site, statements: tuple[Item, ...]) -> None:
        bundle = encode_bundle(Bundle(statements=statements))
        answer = ask(site, "submit", {"bundle": base64.b64encode(bundle).decode()})
        assert "error" not in answer, answer

    # --- an attack ------------------------------------------------------------------------

    def play(self, number: int) -> Row:
        attack, before, lines = ATTACKS[number], self.rss_mib(), self.lines_about_peers()
        began, cpu_s = time.perf_counter(), self.cpu_s()
        victim_of_time = self.devices[number + 1]
        assert self.status_of(victim_of_time) == http.HTTPStatus.OK
        with Probe(self.victim, self.devices[0]) as probe:
            self.begin(attack)
            time.sleep(SECONDS / 2)
            peak = self.rss_mib()
            heard_s = self._revoke_elsewhere(victim_of_time)
            done = self.end()
            while not done:  # a busy host may not even have let the attacker in
                self.begin(attack)
                done = self.end()
            peak = max(peak, self.rss_mib())
            cpu = (self.cpu_s() - cpu_s) / (time.perf_counter() - began)
        assert not probe.wrong, probe.wrong
        assert self.status_of(victim_of_time) == http.HTTPStatus.FORBIDDEN
        row = Row(
            attack=attack,
            done=done,
            grown_mib=peak - before,
            cpu=cpu,
            p50_ratio=percentile(probe.took_s, 0.5) / percentile(self.idle_s, 0.5),
            p99_ratio=percentile(probe.took_s, 0.99) / percentile(self.idle_s, 0.99),
            decided=len(probe.took_s),
            heard_s=heard_s,
            lines=self.lines_about_peers() - lines,
        )
        self.rows.append(row)
        return row

    def begin(self, attack: str, seconds: float = SECONDS) -> None:
        self._tell(self.hostile, {"attack": attack, "seconds": seconds})

    def end(self) -> int:
        """Wait until the attack is over; return how often something was done."""
        assert self.hostile.stdout is not None
        return int(json.loads(self.hostile.stdout.readline())["done"])

    def _revoke_elsewhere(self, device: Device) -> float:
        """Revoke at the honest peer while the attack goes on; return when the victim knows."""
        revoke = sign_revoke(
            self.authority, target=device.key.public, issued_at=SystemClock().now()
        )
        self._submit(self.honest, (Item(Kind.REVOKE, revoke.encoded),))
        wanted = {"id": encode_base64url(revoke.statement_id)}
        return wait_until(
            lambda: "state" in ask(self.victim, "revocation", wanted),
            timeout_s=ARRIVES_S,
            what="the honest peer's revocation arrives",
        )

    def status_of(self, device: Device) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.victim.http_port, timeout=20)
        try:
            return decide(connection, self.victim, device.body())
        finally:
            connection.close()

    # --- what it did ----------------------------------------------------------------------

    def _of_process(self, name: str) -> str:
        assert self.victim.daemon is not None
        assert self.victim.daemon.child is not None
        return Path(f"/proc/{self.victim.daemon.child.pid}/{name}").read_text("ascii")

    def cpu_s(self) -> float:
        """Return the time that the daemon has computed so far (proc(5): fields 14 and 15)."""
        fields = self._of_process("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def rss_mib(self) -> float:
        text = self._of_process("status")
        found = re.search(r"VmRSS:\s+(\d+) kB", text)
        assert found is not None, "the daemon lives"
        return int(found[1]) / 1_024

    def lines_about_peers(self) -> int:
        text = self.victim.log().read_text("utf-8")
        return sum('"event": "connect"' not in line for line in text.splitlines())


@pytest.fixture(scope="module")
def theatre(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Theatre]:
    with Stage(tmp_path_factory.mktemp("hostile"), mosquitto=None, plugin=None) as stage:
        theatre = Theatre(stage)
        try:
            yield theatre
        finally:
            theatre.close()


@pytest.mark.parametrize("number", range(len(ATTACKS)), ids=ATTACKS)
def test_a13_a32_a53_under_attack_decisions_go_on_and_honest_peers_are_heard(
    theatre: Theatre, number: int
) -> None:
    row = theatre.play(number)
    assert row.done > 0, "there was an attack"
    assert row.decided > 0
    assert row.grown_mib < ROW_MIB
    assert row.lines < LINES


async def test_a_newcomer_gets_in_while_calls_that_never_end_are_held(theatre: Theatre) -> None:
    theatre.begin("a_byte_a_second", HELD_S)
    await asyncio.sleep(SECONDS / 2)
    async with asyncio.timeout(HELD_S - 2 * SECONDS):
        while not await gets_in(theatre):
            await asyncio.sleep(0.2)
    theatre.end()


async def gets_in(theatre: Theatre) -> bool:
    """Introduce oneself as an admitted node; say whether that gets a place."""
    introducer = Introducer(
        key=SigningKey.from_seed(theatre.ticket.seed),
        run=SystemEntropy().token(16),
        entropy=SystemEntropy(),
        admission=Anybody(theatre.ticket.grants),
    )
    try:
        async with GrpcTransport().dialled(f"127.0.0.1:{theatre.victim.peer_port}") as link:
            introduction = await introducer.introduce(link, we_dialled=True)
            first = parse_frame(await link.read())
            # Whoever gets no place is told of others too, and then the stream ends.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    while True:
                        await link.read()
    except NoResponseError:
        return False
    assert introduction.key == Keystore(theatre.victim.state).load(NODE).public
    return not isinstance(first, Hello | Proof)


def test_after_all_attacks_the_daemon_is_whole(theatre: Theatre) -> None:
    sys.stdout.write(f"\n{HEAD}\n" + "\n".join(map(str, theatre.rows)))
    idle_ms = [1_000 * percentile(theatre.idle_s, share) for share in (0.5, 0.99)]
    sys.stdout.write(f"\nidle p50 {idle_ms[0]:.1f} ms, p99 {idle_ms[1]:.1f} ms; {CAVEAT}\n")
    text = theatre.victim.log().read_text("utf-8")
    for word in ("Traceback", '"level": "error"', "exception", "never retrieved"):
        assert word not in text
    assert theatre.victim.daemon is not None
    assert theatre.victim.daemon.running()
    status = ask(theatre.victim, "status", {})
    assert not status["alarms"]
    assert status["discovery"]["turned_away"] > 0
    assert sum(max(0.0, row.grown_mib) for row in theatre.rows) < ALL_MIB
    assert theatre.status_of(theatre.devices[0]) == http.HTTPStatus.OK


def test_every_attack_of_the_program_is_played() -> None:
    made = {name for name in vars(Hostile) if not name.startswith("_")}
    assert made - {"run", "source"} == set(ATTACKS)

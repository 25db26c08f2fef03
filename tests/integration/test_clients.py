"""Every kind of client at one real Mosquitto: let in, back after each restart, out when revoked.

One history is played for all of them, and each claim is asserted for each.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from authd.demo.stage import (
    Process,
    Site,
    Stage,
    can_connect,
    find_mosquitto,
    free_port,
    wait_until,
)
from authd.device import DeviceKey
from authd.grpc_api.certificates import ensure_certificates
from tests.integration.fleet import (
    PATIENCE_S,
    Member,
    add_audience,
    find_program,
    install_node_clients,
    mosquitto_sub,
    programs,
    python_client,
)
from tests.stages import lone_site

PUBLISHERS = ("mqtt.js", "paho", "paho single step", "certificate")
SUBSCRIBERS = ("mosquitto_sub by shim", "mosquitto_sub by shim over TLS", "password")
ROUNDS = ("stopped together", "one after the other", "killed")


@dataclass
class History:
    """What happened to each client.

    Attributes:
        live: For each round, the start first: who had a live session.
        heard: For each round: whose messages came, or who received them.
        once: For each round, and after the revocation: how mosquitto_pub ended.
        cut: Whose session was gone after the revocation, after how many seconds.
        refused: Who came again and was refused.
    """

    live: list[set[str]] = field(default_factory=list)
    heard: list[set[str]] = field(default_factory=list)
    once: list[int] = field(default_factory=list)
    cut: dict[str, float] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)


@dataclass
class Play:
    """The stage, and who is on it."""

    stage: Stage
    site: Site
    tls_port: int
    one_way_port: int
    members: list[Member] = field(default_factory=list)
    feed: str = "feed"

    # --- the site -------------------------------------------------------------------------

    def start_broker(self) -> None:
        assert self.site.broker is not None
        self.site.broker.start()
        ports = (self.site.mqtt_port, self.tls_port, self.one_way_port)
        wait_until(
            lambda: all(map(can_connect, ports)), timeout_s=PATIENCE_S, what="Mosquitto listens"
        )

    def restart(self, how: str) -> None:
        """Restart broker and daemon; whoever is away for a moment comes back by itself."""
        site, number = self.site, signal.SIGKILL if how == "killed" else signal.SIGTERM
        assert site.broker is not None
        assert site.daemon is not None
        site.broker.stop(number)
        if how == "one after the other":
            self.start_broker()
        site.daemon.stop(number)
        self.stage.start_daemon(site)
        if how != "one after the other":
            self.start_broker()

    def sessions(self) -> set[str]:
        """Return the client ids with a live session."""
        listed = self.stage.authd("sessions", "list", site=self.site)["sessions"]
        return {one["client_id"] for one in listed if one["live"]}

    def live(self) -> set[str]:
        sessions = self.sessions()
        return {one.name for one in self.members if one.client_id in sessions}

    # --- one round ------------------------------------------------------------------------

    def round(self, history: History, number: int) -> None:
        """Wait for everybody, then see that messages pass to and from each."""
        everybody = {one.name for one in self.members}
        self.wait(lambda: self.live() == everybody)
        history.live.append(self.live())
        offsets = {one.name: len(one.said) for one in self.members}
        history.once.append(self.publish_once(f"round-{number}"))
        self.wait(lambda: self.heard(offsets, number) == everybody)
        history.heard.append(self.heard(offsets, number))

    def wait(self, claim: Callable[[], bool]) -> None:
        """Wait for a claim; whoever it fails for is named by the assertions on the history."""
        until = time.monotonic() + PATIENCE_S
        while not claim() and time.monotonic() < until:
            time.sleep(0.1)

    def heard(self, offsets: dict[str, int], number: int) -> set[str]:
        new = {one.name: one.said[offsets[one.name] :] for one in self.members}
        everything = "\n".join(new.values())
        published = {one.name for one in self.members if f"{one.topic} " in everything}
        received = {name for name in SUBSCRIBERS if f"site/feed round-{number}\n" in new[name]}
        return {one for one in published if one in PUBLISHERS} | received

    def publish_once(self, payload: str) -> int:
        """Run mosquitto_pub with one proof, as docs/clients.md shows; its exit code."""
        key = self.stage.directory / f"{self.feed}.key"
        login = self.stage.authd("password", str(key), self.site.endpoint, site=self.site)
        command = [find_program("mosquitto_pub"), "-h", "127.0.0.1", "-p", str(self.site.mqtt_port)]
        command += ["-i", login["client_id"], "-u", login["username"], "-P", login["password"]]
        done = subprocess.run(
            [*command, "-t", "site/feed", "-m", payload, "-q", "1"],
            capture_output=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return done.returncode

    # --- the end --------------------------------------------------------------------------

    def revoke_everybody(self, history: History) -> None:
        for member in self.members:
            self.revoke(member, history)
        self.stage.authd("revoke", self.feed, site=self.site)
        history.once.append(self.publish_once("too late"))

    def revoke(self, member: Member, history: History) -> None:
        since, started = len(self.site.decisions()), time.monotonic()
        self.stage.authd("revoke", member.name.replace(" ", "-"), site=self.site)
        self.wait(lambda: member.client_id not in self.sessions())
        if member.client_id not in self.sessions():
            history.cut[member.name] = time.monotonic() - started
        self.wait(lambda: self.was_refused(member, since))
        if self.was_refused(member, since):
            history.refused.add(member.name)

    def was_refused(self, member: Member, since: int) -> bool:
        effects = [
            one["effect"]
            for one in self.site.decisions()[since:]
            if one.get("client_id") == member.client_id
        ]
        return bool(effects) and set(effects) == {"deny"}

    # --- who is there ---------------------------------------------------------------------

    def process(self, name: str, arguments: list[str]) -> Process:
        slug = name.replace(" ", "-")
        return Process(name=name, arguments=arguments, log=self.stage.directory / f"{slug}.log")

    def device(self, name: str, *rights: str) -> tuple[DeviceKey, Path]:
        slug = name.replace(" ", "-")
        self.stage.authd("device", "new", slug, *rights, site=self.site)
        path = self.stage.directory / f"{slug}.key"
        return DeviceKey.load(path), path

    def add_publishers(self) -> None:
        pop, single, _ = programs("python")
        node = self.stage.directory / "node"
        commands = {
            "mqtt.js": [find_program("node"), str(node / "pump.mjs")],
            "paho": python_client("pop", pop, self.stage.directory),
            "paho single step": python_client("single", single, self.stage.directory),
        }
        for place, (name, command) in enumerate(commands.items()):
            topic = f"site/pump{place}"
            key, path = self.device(name, f"--pub={topic}")
            at = f"mqtt://{self.site.endpoint}" if name == "mqtt.js" else self.site.endpoint
            process = self.process(name, [*command, str(path), at, topic])
            member = Member(name=name, client_id=key.client_id, process=process, topic=topic)
            self.members.append(member)

    def add_shimmed(self, name: str, endpoint: str, *options: str) -> None:
        key, path = self.device(name, "--sub=site/#")
        port = free_port()
        shim = [sys.executable, "-m", "authd", "shim", "--key", str(path), "--to", endpoint]
        listen = ["--listen", f"127.0.0.1:{port}"]
        self.members.append(
            Member(
                name=name,
                client_id=key.client_id,
                # It sends no client id, and the login that it shows is dropped by the shim.
                process=self.process(
                    name, mosquitto_sub(port, "", "site/#", "-u", "me", "-P", "secret")
                ),
                helper=self.process(f"{name} shim", [*shim, *listen, *options]),
            )
        )

    def add_password(self) -> None:
        rights = ("--password", "--sub=site/feed")
        made = self.stage.authd("device", "new", "password", *rights, site=self.site)
        login = ["-u", made["key_id"], "-P", made["password"]]
        command = mosquitto_sub(self.site.mqtt_port, made["client_id"], "site/feed", *login)
        process = self.process("password", command)
        member = Member(name="password", client_id=made["client_id"], process=process)
        self.members.append(member)

    def add_certificate(self, client_id: str) -> None:
        directory = self.stage.directory
        program = python_client("certified", programs("python")[2], directory)
        files = [str(directory / "certificate"), str(directory / "tls" / "ca.crt")]
        process = self.process(
            "certificate", [*program, *files, client_id, f"localhost:{self.tls_port}", "site/lamp"]
        )
        self.members.append(
            Member(name="certificate", client_id=client_id, process=process, topic="site/lamp")
        )


@pytest.fixture(scope="module")
def play(tmp_path_factory: pytest.TempPathFactory, plugin: Path) -> Iterator[Play]:
    directory = tmp_path_factory.mktemp("clients")
    install_node_clients(directory / "node")
    with Stage(directory, mosquitto=find_mosquitto(), plugin=plugin) as stage:
        tls_port, one_way_port = free_port(), free_port()
        site = lone_site(stage, mosquitto=True, start=False)
        add_audience(site, f"localhost:{one_way_port}")
        stage.start_daemon(site)
        stage.start_broker(site)
        made = stage.authd("device", "cert", "certificate", "--pub=site/lamp", site=site)
        play = Play(stage, site, tls_port, one_way_port)
        add_listeners(play, directory / "certificate.crt")
        play.add_publishers()
        play.device("feed", "--pub=site/feed")
        ca = str(directory / "tls" / "ca.crt")
        play.add_shimmed("mosquitto_sub by shim", site.endpoint)
        play.add_shimmed(
            "mosquitto_sub by shim over TLS",
            f"localhost:{one_way_port}",
            *("--tls", "--cafile", ca),
        )
        play.add_password()
        play.add_certificate(made["client_id"])
        try:
            for member in play.members:
                member.start()
            yield play
        finally:
            for member in play.members:
                member.stop()


def add_listeners(play: Play, client_certificate: Path) -> None:
    """Add two TLS listeners, one that asks for client certificates."""
    directory, site = play.stage.directory, play.site
    made = ensure_certificates(
        directory / "tls", host_names=("localhost",), brokers=(), now=int(time.time())
    )
    for one in (made.server.certificate, made.server.key, client_certificate):
        one.chmod(0o644)
    server = f"certfile {made.server.certificate}\nkeyfile {made.server.key}\n"
    config = site.directory / "mosquitto.conf"
    config.write_text(
        f"{config.read_text('utf-8')}\nlistener {play.one_way_port} 127.0.0.1\n{server}"
        f"\nlistener {play.tls_port} 127.0.0.1\n{server}cafile {client_certificate}\n"
        "require_certificate true\n",
        "utf-8",
    )
    assert site.broker is not None
    site.broker.stop()
    play.start_broker()


@pytest.fixture(scope="module")
def history(play: Play) -> History:
    """Play it: a start, three restarts, and a revocation of each."""
    history = History()
    play.round(history, 0)
    for number, how in enumerate(ROUNDS, 1):
        play.restart(how)
        play.round(history, number)
    play.revoke_everybody(history)
    return history


LEASE_S = 60
EVERYBODY = (*PUBLISHERS, *SUBSCRIBERS)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", EVERYBODY)
def test_a_client_gets_in_and_its_messages_pass(history: History, name: str) -> None:
    assert name in history.live[0]
    assert name in history.heard[0]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", EVERYBODY)
@pytest.mark.parametrize("number", range(1, 1 + len(ROUNDS)), ids=ROUNDS)
def test_a_client_comes_back_by_itself_after_a_restart(
    history: History, name: str, number: int
) -> None:
    assert name in history.live[number]
    assert name in history.heard[number]


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", EVERYBODY)
def test_a36_a_revoked_client_of_any_kind_is_cut_and_refused(history: History, name: str) -> None:
    assert history.cut[name] < LEASE_S, "it was cut, it did not just run out"
    assert name in history.refused


@pytest.mark.timeout(300)
def test_mosquitto_pub_gets_in_with_one_proof_each_time_until_it_is_revoked(
    history: History,
) -> None:
    *before, after = history.once
    assert before == [0] * (1 + len(ROUNDS))
    assert after != 0

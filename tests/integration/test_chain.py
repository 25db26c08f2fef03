"""Bridges in a row, leaf → site → hub: each hop has its own key, grant and revocation.

The leaf is a Mosquitto without authd; site and hub are domains of their own, with their own
daemons. The leaf shows a device password, or fresh proofs by way of ``authd shim``; the site's
bridge shows a certificate to the hub.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from authd.demo.clients import Client
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
from tests.integration.fleet import PATIENCE_S, find_program
from tests.stages import lone_site

LEAF_MAY = ("--pub=site/leaf/#", "--sub=site/leaf/cmd")
SITE_MAY = ("--pub=site/+/temp", "--sub=site/+/cmd", "--sub=fleet/#")


@dataclass
class Chain:
    """Three brokers, and who watches at site and hub."""

    stage: Stage
    site: Site
    hub: Site
    leaf_port: int
    processes: list[Process] = field(default_factory=list)

    def run(self, process: Process) -> None:
        self.processes.append(process)
        process.start()

    def send(self, topic: str, payload: str) -> None:
        """Publish at the leaf, which asks nobody."""
        at = ["-h", "127.0.0.1", "-p", str(self.leaf_port)]
        message = ["-t", topic, "-m", payload, "-q", "1"]
        subprocess.run([find_program("mosquitto_pub"), *at, *message], check=True, timeout=10)

    def watcher(self, site: Site) -> Client:
        """Make a client that may see everything at a broker."""
        return client(self.stage, site, f"watch-{site.name}", "--sub=#")

    def arrives(self, watcher: Client, topic: str, payload: str, *, within_s: float = 8.0) -> bool:
        """Publish at the leaf until it is seen; a bridge may need a moment to be there."""
        until = time.monotonic() + within_s
        while time.monotonic() < until:
            self.send(topic, payload)
            if watcher.received(topic, payload, within_s=0.5):
                return True
        return False

    def live(self, site: Site, client_id: str) -> bool:
        sessions = self.stage.authd("sessions", "list", site=site)["sessions"]
        return any(one["client_id"] == client_id and one["live"] for one in sessions)


def client(stage: Stage, site: Site, name: str, *rights: str) -> Client:
    path = stage.directory / f"{name}.key"
    if not path.exists():
        stage.authd("device", "new", name, *rights, site=site)
    key = DeviceKey.load(path)
    return Client(site.mqtt_port, client_id=key.client_id, device=key)


def bridge(name: str, address: str, client_id: str, *lines: str) -> str:
    """Write a bridge that is back a second after it was lost."""
    common = ["notifications false", "cleansession true", "restart_timeout 1", "try_private true"]
    head = [f"connection {name}", f"address {address}", f"remote_clientid {client_id}"]
    return "\n".join([*head, *common, *lines]) + "\n"


def start_leaf(chain: Chain, lines: str) -> None:
    path = chain.stage.directory / "leaf.conf"
    user = "user root\n" if os.geteuid() == 0 else ""
    listener = f"listener {chain.leaf_port} 127.0.0.1\nallow_anonymous true\n"
    path.write_text(user + listener + lines, "utf-8")
    arguments = [str(find_mosquitto()), "-c", str(path)]
    chain.run(Process(name="leaf", arguments=arguments, log=path.with_suffix(".log")))
    wait_until(lambda: can_connect(chain.leaf_port), timeout_s=PATIENCE_S, what="the leaf listens")


def restart_with(stage: Stage, site: Site, more: str) -> None:
    """Start a site's Mosquitto anew with more lines."""
    config = site.directory / "mosquitto.conf"
    config.write_text(config.read_text("utf-8") + more, "utf-8")
    assert site.broker is not None
    site.broker.stop()
    site.broker.start()
    wait_until(lambda: can_connect(site.mqtt_port), timeout_s=PATIENCE_S, what="it listens again")
    stage.await_status(
        site,
        lambda status: any(one["attached"] for one in status["brokers"]),
        what="the plugin attaches again",
    )


def open_hub(chain: Chain) -> str:
    """Bridge the site to the hub by certificate; the client id of that hop."""
    stage, directory = chain.stage, chain.stage.directory
    made = ensure_certificates(
        directory / "tls", host_names=("localhost",), brokers=(), now=int(time.time())
    )
    hop = stage.authd("device", "cert", "site-bridge", *SITE_MAY, site=chain.hub)
    port = free_port()
    certificate, key = Path(hop["certificate_file"]), Path(hop["key_file"])
    for one in (made.server.certificate, made.server.key):
        one.chmod(0o644)
    restart_with(
        stage,
        chain.hub,
        f"\nlistener {port} 127.0.0.1\ncertfile {made.server.certificate}\n"
        f"keyfile {made.server.key}\ncafile {directory / certificate}\nrequire_certificate true\n",
    )
    lines = [
        f"bridge_cafile {directory / 'tls' / 'ca.crt'}",
        f"bridge_certfile {directory / certificate}",
        f"bridge_keyfile {directory / key}",
        "topic site/# out 1",
        "topic site/+/cmd in 1",
        "topic fleet/# in 1",
    ]
    more = bridge("to-hub", f"localhost:{port}", hop["client_id"], *lines)
    restart_with(stage, chain.site, f"\n{more}")
    return str(hop["client_id"])


def open_site(chain: Chain, kind: str) -> str:
    """Bridge the leaf to the site; the client id of that hop."""
    stage, site = chain.stage, chain.site
    topics = ["topic # out 1", "topic site/leaf/cmd in 1"]
    if kind == "password":
        hop = stage.authd("device", "new", "leaf-bridge", "--password", *LEAF_MAY, site=site)
        login = [f"remote_username {hop['key_id']}", f"remote_password {hop['password']}"]
        start_leaf(chain, bridge("to-site", site.endpoint, hop["client_id"], *login, *topics))
        return str(hop["client_id"])
    hop = stage.authd("device", "new", "leaf-bridge", *LEAF_MAY, site=site)
    port = free_port()
    key = f"--key={stage.directory / hop['key_file']}"
    ends = [f"--listen=127.0.0.1:{port}", f"--to={site.endpoint}"]
    command = [sys.executable, "-m", "authd", "shim", key, *ends]
    chain.run(Process(name="shim", arguments=command, log=stage.directory / "shim.log"))
    wait_until(lambda: can_connect(port), timeout_s=PATIENCE_S, what="the shim listens")
    start_leaf(chain, bridge("to-site", f"127.0.0.1:{port}", hop["client_id"], *topics))
    return str(hop["client_id"])


@pytest.fixture
def chain(stage: Stage) -> Iterator[Chain]:
    site, hub = lone_site(stage, "S", mosquitto=True), lone_site(stage, "H", mosquitto=True)
    for one in (site, hub):
        stage.start_broker(one)
    chain = Chain(stage, site, hub, free_port())
    yield chain
    for process in chain.processes:
        process.stop()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["password", "shim"])
def test_each_hop_passes_what_its_own_grant_says_until_it_is_revoked(
    chain: Chain, kind: str
) -> None:
    at_hub, at_site = open_hub(chain), open_site(chain, kind)
    site, hub = chain.watcher(chain.site), chain.watcher(chain.hub)
    with site, hub, client(chain.stage, chain.hub, "boss", "--pub=site/leaf/cmd") as boss:
        assert site.subscribe("#")
        assert hub.subscribe("#")
        assert chain.arrives(hub, "site/leaf/temp", "21")
        assert site.received("site/leaf/temp", "21")

        # The site takes more from the leaf than the hub takes from the site, and neither all.
        assert chain.arrives(site, "site/leaf/log", "only here")
        chain.send("site/other/temp", "not the leaf's")
        assert hub.never_received("only here")
        assert site.never_received("not the leaf's")
        assert hub.never_received("not the leaf's")

        # Down the chain, each hop by its right to subscribe.
        leaf = Client(chain.leaf_port, client_id="listener")
        with leaf:
            assert leaf.subscribe("#")
            boss.publish("site/leaf/cmd", "on")
            assert leaf.received("site/leaf/cmd", "on", within_s=8)

        chain.stage.authd("revoke", "site-bridge", site=chain.hub)
        wait_until(
            lambda: not chain.live(chain.hub, at_hub), timeout_s=5, what="the upper hop is cut"
        )
        assert chain.arrives(site, "site/leaf/temp", "after the hub's no")
        assert hub.never_received("after the hub's no")

        chain.stage.authd("revoke", "leaf-bridge", site=chain.site)
        wait_until(
            lambda: not chain.live(chain.site, at_site), timeout_s=5, what="the lower hop is cut"
        )
        chain.send("site/leaf/temp", "after the site's no")
        assert site.never_received("after the site's no")
        time.sleep(2)
        assert not chain.live(chain.site, at_site)
        assert not chain.live(chain.hub, at_hub)


@pytest.mark.timeout(120)
def test_the_broker_that_opens_a_bridge_does_not_check_it(chain: Chain) -> None:
    """As docs/clients.md warns: what comes in over it is bounded by its `topic` lines alone."""
    at_hub = open_hub(chain)
    site = chain.watcher(chain.site)
    with site, client(chain.stage, chain.hub, "fleet", "--pub=fleet/#", "--pub=x/#") as fleet:
        assert site.subscribe("#")
        wait_until(lambda: chain.live(chain.hub, at_hub), timeout_s=10, what="the bridge is up")
        # Nobody was granted `fleet/#` at the site; the line `topic fleet/# in` suffices.
        until = time.monotonic() + 8
        while not site.received("fleet/all", "unchecked", within_s=0.5):
            fleet.publish("fleet/all", "unchecked")
            assert time.monotonic() < until
        fleet.publish("x/all", "no topic line")
        assert site.never_received("no topic line")

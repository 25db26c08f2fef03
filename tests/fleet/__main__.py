"""Revokes on a fleet of real daemons, and times how long it takes until every session is gone.

Usage: python -m tests.fleet [--daemons N] [--rounds R] [--late S] [--reset S] [--kill S]

Each daemon has an embedded broker; in each round one device has a session at every site, and is
revoked at a random one. ``--late`` and ``--reset`` put a proxy before every gossip port;
``--kill`` kills that share of the daemons with signal 9 as the revocation goes out, and starts them
again. Prints percentiles, and what was lost; exits 1 if a session or a revocation was.
"""

import argparse
import base64
import json
import random
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from authd.clock import SystemClock
from authd.core.claims import Kind
from authd.core.encoding import encode_base64url
from authd.core.statements import sign_revoke
from authd.demo.clients import Client
from authd.demo.stage import Site, Stage
from authd.device import DeviceKey
from authd.service.issuing import Bundle, encode_bundle
from authd.service.ports import Item
from authd.store.keystore import AUTHORITY, Keystore
from tests.fleet.proxy import Proxy, Weather

GONE_S: Final = 30.0
_BACK_S: Final = 120.0
_POLL_S: Final = 0.05


def ask(site: Site, verb: str, body: dict[str, Any]) -> dict[str, Any]:
    """Ask a daemon over its operator's socket.

    Raises:
        OSError: It is not there.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(20)
        connection.connect(str(site.run_dir / "admin.sock"))
        data = json.dumps(body).encode()
        head = f"POST /v1/admin/{verb} HTTP/1.1\r\nHost: authd\r\nConnection: close\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        connection.sendall(head.encode() + data)
        answer = b""
        while part := connection.recv(65_536):
            answer += part
    found: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2] or b"{}")
    return found


@dataclass
class Timings:
    """Seconds from handing a revocation to a daemon."""

    known: list[float] = field(default_factory=list)
    gone: list[float] = field(default_factory=list)
    in_force: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


class Fleet:
    """The daemons, and what is done to them."""

    def __init__(self, stage: Stage, options: argparse.Namespace, proxy: Proxy | None) -> None:
        self._stage = stage
        self._options = options
        self._proxy = proxy
        self._rng = random.Random(options.seed)
        self.sites: list[Site] = []
        self.timings = Timings()

    # --- setting up -----------------------------------------------------------------------

    def gather(self) -> None:
        """Make the domain and let everybody join; three hold heartbeat keys."""
        stage = self._stage
        first = stage.add_site("site-0", with_mosquitto=False)
        passphrase = f"--passphrase-file={stage.passphrase}"
        stage.authd("init", *stage.setup_arguments(first), passphrase, site=first)
        tickets = [
            stage.authd("invite", f"--name=n{number}", site=first)["ticket"]
            for number in range(1, self._options.daemons)
        ]
        self._behind_proxy(first)
        stage.start_daemon(first)
        self.sites.append(first)
        keys = [self._join(number, ticket) for number, ticket in enumerate(tickets, 1)]
        stage.authd("domain", "heartbeat", "add", *keys[:2], passphrase, site=first)
        for site in self.sites:
            stage.await_status(site, _is_fresh, what=f"{site.name} is fresh", timeout_s=_BACK_S)

    def _join(self, number: int, ticket: str) -> str:
        site = self._stage.add_site(f"site-{number}", with_mosquitto=False)
        answer = self._stage.authd(
            "join", "-", *self._stage.setup_arguments(site), site=site, stdin=f"{ticket}\n"
        )
        self._behind_proxy(site)
        self._stage.start_daemon(site)
        self.sites.append(site)
        print(f"\r{len(self.sites)} daemons", end="", flush=True)
        return str(answer["heartbeat_key"])

    def _behind_proxy(self, site: Site) -> None:
        if self._proxy is not None:
            port = self._proxy.put_before(site.peer_port)
            path = site.state / "authd.toml"
            listen = f'[listen]\nadvertise = "127.0.0.1:{port}"'
            path.write_text(path.read_text("utf-8").replace("[listen]", listen, 1), "utf-8")

    # --- a round --------------------------------------------------------------------------

    def play(self, number: int) -> None:
        """Connect a device everywhere, revoke it somewhere, and wait until it is gone."""
        name = f"device-{number}"
        issued = self._stage.authd("device", "new", name, f"--pub=site/{name}", site=self.sites[0])
        key = DeviceKey.load(self._stage.directory / str(issued["key_file"]))
        with ExitStack() as stack, ThreadPoolExecutor(16) as pool:
            clients = list(pool.map(lambda site: self._connect(site, key), self.sites))
            for client in clients:
                stack.callback(client.__exit__)
            self._revoke(key, clients)

    def _connect(self, site: Site, key: DeviceKey) -> Client:
        client = Client(site.mqtt_port, client_id=key.client_id, device=key)
        client.__enter__()
        deadline = time.perf_counter() + _BACK_S
        while not client.connected.is_set() and time.perf_counter() < deadline:
            time.sleep(_POLL_S)
        if not client.connected.is_set():
            self.timings.lost.append(f"{site.name} never let the device in")
        return client

    def _revoke(self, key: DeviceKey, clients: list[Client]) -> None:
        authority = Keystore(self.sites[0].state).load(AUTHORITY)
        signed = sign_revoke(authority, target=key.key.public, issued_at=SystemClock().now())
        bundle = encode_bundle(Bundle(statements=(Item(Kind.REVOKE, signed.encoded),)))
        chosen = self._rng.choice(self.sites)
        down = self._choose_down(chosen)
        began = time.perf_counter()
        ask(chosen, "submit", {"bundle": base64.b64encode(bundle).decode()})
        watchers = [
            threading.Thread(target=self._watch, args=(site, signed.statement_id, began))
            for site in self.sites
        ]
        for watcher in watchers:
            watcher.start()
        self._kill_and_restart(down)
        for watcher in watchers:
            watcher.join()
        for site, client in zip(self.sites, clients, strict=True):
            # A session at a daemon that was killed ended with it.
            if site not in down:
                self._await_gone(site, client, began)

    def _choose_down(self, spared: Site) -> list[Site]:
        others = [site for site in self.sites if site is not spared]
        return self._rng.sample(others, int(self._options.kill * len(self.sites)))

    def _kill_and_restart(self, down: list[Site]) -> None:
        for site in down:
            if site.daemon is not None:
                site.daemon.stop(signal.SIGKILL)
        for site in down:
            self._stage.start_daemon(site)

    def _watch(self, site: Site, statement_id: bytes, began: float) -> None:
        wanted = {"id": encode_base64url(statement_id)}
        known_s = None
        while time.perf_counter() - began < GONE_S + _BACK_S * bool(self._options.kill):
            try:
                state = ask(site, "revocation", wanted).get("state")
            except (OSError, ValueError):
                state = None
            if state and known_s is None:
                known_s = time.perf_counter() - began
                self.timings.known.append(known_s)
            if state == "in force":
                self.timings.in_force.append(time.perf_counter() - began)
                return
            time.sleep(_POLL_S)
        self.timings.lost.append(f"{site.name} does not say that the revocation is in force")

    def _await_gone(self, site: Site, client: Client, began: float) -> None:
        while client.connected.is_set() and time.perf_counter() - began < GONE_S:
            time.sleep(_POLL_S)
        if client.connected.is_set():
            self.timings.lost.append(f"{site.name} kept the session")
        elif client.lost_at > began:
            self.timings.gone.append(client.lost_at - began)


def _is_fresh(status: dict[str, Any]) -> bool:
    own = next((one for one in status["domains"] if one["own"]), None)
    return own is not None and own["fresh"] and len(own["heartbeat_keys"]) == 3


def percentile(values: list[float], share: float) -> float:
    """Return the value that a share of the values does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="revoke on a fleet of real daemons")
    parser.add_argument("--daemons", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--late", type=float, default=0.0)
    parser.add_argument("--reset", type=float, default=0.0)
    parser.add_argument("--kill", type=float, default=0.0)
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authd-fleet-")))
        weather = Weather(late=options.late, reset=options.reset)
        stormy = options.late or options.reset
        proxy = stack.enter_context(Proxy(weather, seed=options.seed)) if stormy else None
        stage = stack.enter_context(Stage(directory, mosquitto=None, plugin=None))
        fleet = Fleet(stage, options, proxy)
        began = time.perf_counter()
        fleet.gather()
        print(f"\r{len(fleet.sites)} daemons in {time.perf_counter() - began:.0f} s", flush=True)
        for number in range(options.rounds):
            fleet.play(number)
        return report(fleet.timings, options)


def report(timings: Timings, options: argparse.Namespace) -> int:
    """Print the figures; return the exit status."""
    for name, values in (
        ("known at a daemon", timings.known),
        ("session gone", timings.gone),
        ("in force", timings.in_force),
    ):
        print(
            f"{name:18} n {len(values):4}  p50 {statistics.median(values):7.3f} s"
            f"  p99 {percentile(values, 0.99):7.3f} s  worst {max(values):7.3f} s"
        )
    for one in timings.lost:
        print(f"LOST  {one}")
    print(
        f"{options.daemons} daemons, {options.rounds} revocations, late {options.late:.0%}, reset"
        f" {options.reset:.0%}, killed {options.kill:.0%}: {len(timings.lost)} lost"
    )
    return 1 if timings.lost else 0


if __name__ == "__main__":
    sys.exit(main())

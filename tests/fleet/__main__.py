"""Revokes on a fleet of real daemons, and times how long it takes until every session is gone.

Usage: python -m tests.fleet [--daemons N] [--rounds R] [--late S] [--reset S] [--kill S] [--part T]

Each daemon has an embedded broker; in each round one device has a session at every site, and is
revoked at a random one. ``--late`` and ``--reset`` put a proxy before every gossip port;
``--kill`` kills that share of the daemons with signal 9 as the revocation goes out, and starts them
again. ``--part`` puts the daemons into two network namespaces, and in a last round pulls the cable
between them for so many seconds while each half revokes a device; for who is not root this needs
`unshare`. Prints percentiles, and what was lost; exits 1 if a session or a revocation was.
"""

import argparse
import base64
import json
import os
import random
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
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
from tests.fleet.halves import ADDRESSES, Halves
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
    """Seconds from handing a revocation to a daemon, or from the end of a partition."""

    known: list[float] = field(default_factory=list)
    gone: list[float] = field(default_factory=list)
    in_force: list[float] = field(default_factory=list)
    healed: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


class Fleet:
    """The daemons, and what is done to them."""

    def __init__(
        self,
        stage: Stage,
        options: argparse.Namespace,
        proxy: Proxy | None,
        halves: Halves | None,
    ) -> None:
        self._stage = stage
        self._options = options
        self._proxy = proxy
        self._halves = halves
        self._rng = random.Random(options.seed)
        self.sites: list[Site] = []
        self.timings = Timings()

    # --- where a daemon lives -------------------------------------------------------------

    def _half(self, site: Site) -> int:
        return int(site.name.removeprefix("site-")) % len(ADDRESSES)

    def _inside(self, site: Site) -> AbstractContextManager[None]:
        return self._halves.inside(self._half(site)) if self._halves else nullcontext()

    def _setup_arguments(self, site: Site) -> list[str]:
        arguments = self._stage.setup_arguments(site)
        if self._halves is None:
            return arguments
        peer = f"--peer={ADDRESSES[self._half(site)]}:{site.peer_port}"
        return [peer if one.startswith("--peer=") else one for one in arguments]

    def _start(self, site: Site) -> None:
        with self._inside(site):
            self._stage.start_daemon(site)

    # --- setting up -----------------------------------------------------------------------

    def gather(self) -> None:
        """Make the domain and let everybody join; three hold heartbeat keys."""
        stage = self._stage
        first = stage.add_site("site-0", with_mosquitto=False)
        passphrase = f"--passphrase-file={stage.passphrase}"
        stage.authd("init", *self._setup_arguments(first), passphrase, site=first)
        tickets = [
            stage.authd("invite", f"--name=n{number}", site=first)["ticket"]
            for number in range(1, self._options.daemons)
        ]
        self._behind_proxy(first)
        self._start(first)
        self.sites.append(first)
        keys = [self._join(number, ticket) for number, ticket in enumerate(tickets, 1)]
        stage.authd("domain", "heartbeat", "add", *keys[:2], passphrase, site=first)
        for site in self.sites:
            stage.await_status(site, _is_fresh, what=f"{site.name} is fresh", timeout_s=_BACK_S)

    def _join(self, number: int, ticket: str) -> str:
        site = self._stage.add_site(f"site-{number}", with_mosquitto=False)
        with self._inside(site):
            answer = self._stage.authd(
                "join", "-", *self._setup_arguments(site), site=site, stdin=f"{ticket}\n"
            )
        self._behind_proxy(site)
        self._start(site)
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
        key = self._issue(f"device-{number}")
        with ExitStack() as stack:
            clients = self._connect_all(key, stack)
            chosen = self._rng.choice(self.sites)
            down = self._choose_down(chosen)
            began = time.perf_counter()
            watchers = self._revoke(key, chosen, self.sites, began)
            self._kill_and_restart(down)
            for watcher in watchers:
                watcher.join()
            for site, client in zip(self.sites, clients, strict=True):
                # A session at a daemon that was killed ended with it.
                if site not in down:
                    self._await_gone(site, client, began, self.timings.gone)

    def play_parted(self, halves: Halves) -> None:
        """Pull the cable, revoke a device in each half, plug the cable in; all is known then."""
        with ExitStack() as stack:
            keys = [self._issue(f"parted-{half}") for half in range(len(ADDRESSES))]
            clients = [self._connect_all(key, stack) for key in keys]
            halves.pull()
            began = time.perf_counter()
            watchers: list[threading.Thread] = []
            for half, key in enumerate(keys):
                here = [site for site in self.sites if self._half(site) == half]
                watchers += self._revoke(key, here[0], self.sites, began, parted=True)
            time.sleep(self._options.part)
            self._check_parted(clients)
            halves.plug()
            began = time.perf_counter()
            for watcher in watchers:
                watcher.join()
            for half, theirs in enumerate(clients):
                for site, client in zip(self.sites, theirs, strict=True):
                    times = self.timings.gone if self._half(site) == half else self.timings.healed
                    self._await_gone(site, client, began, times)

    def _check_parted(self, clients: list[list[Client]]) -> None:
        """Within a half the session is gone before the cable is back, in the other it is not."""
        for half, theirs in enumerate(clients):
            for site, client in zip(self.sites, theirs, strict=True):
                if client.connected.is_set() == (self._half(site) == half):
                    state = "kept" if client.connected.is_set() else "lost"
                    self.timings.lost.append(f"{site.name} {state} a session of half {half}")

    def _issue(self, name: str) -> DeviceKey:
        issued = self._stage.authd("device", "new", name, f"--pub=site/{name}", site=self.sites[0])
        return DeviceKey.load(self._stage.directory / str(issued["key_file"]))

    def _connect_all(self, key: DeviceKey, stack: ExitStack) -> list[Client]:
        with ThreadPoolExecutor(16) as pool:
            clients = list(pool.map(lambda site: self._connect(site, key), self.sites))
        for client in clients:
            stack.callback(client.__exit__)
        return clients

    def _connect(self, site: Site, key: DeviceKey) -> Client:
        client = Client(site.mqtt_port, client_id=key.client_id, device=key)
        with self._inside(site):
            client.__enter__()
        deadline = time.perf_counter() + _BACK_S
        while not client.connected.is_set() and time.perf_counter() < deadline:
            time.sleep(_POLL_S)
        if not client.connected.is_set():
            self.timings.lost.append(f"{site.name} never let the device in")
        return client

    def _revoke(
        self, key: DeviceKey, chosen: Site, sites: list[Site], began: float, *, parted: bool = False
    ) -> list[threading.Thread]:
        authority = Keystore(self.sites[0].state).load(AUTHORITY)
        signed = sign_revoke(authority, target=key.key.public, issued_at=SystemClock().now())
        bundle = encode_bundle(Bundle(statements=(Item(Kind.REVOKE, signed.encoded),)))
        ask(chosen, "submit", {"bundle": base64.b64encode(bundle).decode()})
        times = Timings() if parted else self.timings
        watchers = [
            threading.Thread(target=self._watch, args=(site, signed.statement_id, began, times))
            for site in sites
        ]
        for watcher in watchers:
            watcher.start()
        return watchers

    def _choose_down(self, spared: Site) -> list[Site]:
        others = [site for site in self.sites if site is not spared]
        return self._rng.sample(others, int(self._options.kill * len(self.sites)))

    def _kill_and_restart(self, down: list[Site]) -> None:
        for site in down:
            if site.daemon is not None:
                site.daemon.stop(signal.SIGKILL)
        for site in down:
            self._start(site)

    def _watch(self, site: Site, statement_id: bytes, began: float, times: Timings) -> None:
        wanted = {"id": encode_base64url(statement_id)}
        known_s = None
        patience_s = GONE_S + _BACK_S * bool(self._options.kill) + 2 * self._options.part
        while time.perf_counter() - began < patience_s:
            try:
                state = ask(site, "revocation", wanted).get("state")
            except (OSError, ValueError):
                state = None
            if state and known_s is None:
                known_s = time.perf_counter() - began
                times.known.append(known_s)
            if state == "in force":
                times.in_force.append(time.perf_counter() - began)
                return
            time.sleep(_POLL_S)
        self.timings.lost.append(f"{site.name} does not say that the revocation is in force")

    def _await_gone(self, site: Site, client: Client, began: float, times: list[float]) -> None:
        while client.connected.is_set() and time.perf_counter() - began < GONE_S:
            time.sleep(_POLL_S)
        if client.connected.is_set():
            self.timings.lost.append(f"{site.name} kept the session")
        elif client.lost_at > began:
            times.append(client.lost_at - began)


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
    parser.add_argument("--part", type=float, default=0.0)
    options = parser.parse_args()
    if options.part and os.geteuid() != 0:
        again = [sys.executable, "-m", "tests.fleet", *sys.argv[1:]]
        unshare = ["/usr/bin/unshare", "--user", "--map-root-user", "--net"]
        os.execv(unshare[0], [*unshare, *again])  # noqa: S606 - this program again, with rights
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authd-fleet-")))
        weather = Weather(late=options.late, reset=options.reset)
        stormy = options.late or options.reset
        proxy = stack.enter_context(Proxy(weather, seed=options.seed)) if stormy else None
        halves = stack.enter_context(Halves()) if options.part else None
        stage = stack.enter_context(Stage(directory, mosquitto=None, plugin=None))
        fleet = Fleet(stage, options, proxy, halves)
        began = time.perf_counter()
        fleet.gather()
        print(f"\r{len(fleet.sites)} daemons in {time.perf_counter() - began:.0f} s", flush=True)
        for number in range(options.rounds):
            fleet.play(number)
        if halves is not None:
            fleet.play_parted(halves)
        return report(fleet.timings, options)


def report(timings: Timings, options: argparse.Namespace) -> int:
    """Print the figures; return the exit status."""
    for name, values in (
        ("known at a daemon", timings.known),
        ("session gone", timings.gone),
        ("in force", timings.in_force),
        ("gone after heal", timings.healed),
    ):
        if not values:
            continue
        print(
            f"{name:18} n {len(values):4}  p50 {statistics.median(values):7.3f} s"
            f"  p99 {percentile(values, 0.99):7.3f} s  worst {max(values):7.3f} s"
        )
    for one in timings.lost:
        print(f"LOST  {one}")
    print(
        f"{options.daemons} daemons, {options.rounds} revocations, late {options.late:.0%}, reset"
        f" {options.reset:.0%}, killed {options.kill:.0%}, parted for {options.part:g} s:"
        f" {len(timings.lost)} lost"
    )
    return 1 if timings.lost else 0


if __name__ == "__main__":
    sys.exit(main())

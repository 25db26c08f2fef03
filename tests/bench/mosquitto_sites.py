"""A Mosquitto with the plugin beside a real daemon that holds real grants.

A site of the demonstration's stage decides. Its grants, and the sessions that wait for their
clients, are written into its store before it starts: thousands of them in seconds. Clients with
such a session come back, so that the plugin judges them; ``fresh-…`` is whom nobody knows yet.
"""

import contextlib
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

from authd.core import limits
from authd.core.claims import Kind
from authd.core.grants import ClientIdMatch, ClientIdRule, Form, Grant, KeySubject, sign_grant
from authd.core.identity import DomainId, SigningKey, parse_id
from authd.core.proofs import Audience
from authd.core.topics import Action, make_scope
from authd.demo.stage import Process, Site, Stage, can_connect, wait_until
from authd.service.ports import StoredSession, StoredStatement
from authd.store.keystore import AUTHORITY, Keystore
from authd.store.sqlite import SqliteStore
from tests.bench.mosquitto_brokers import (
    Broker,
    all_join,
    filters,
    other_broker,
    start,
    wait_until_idle,
)
from tests.plugin.prover import Prover

PLUGIN: Final = Path(__file__).parents[2] / "plugins/mosquitto/authd_mosquitto.so"
NAMES: Final = ("bare", "file", "dynamic", "authd")
ENTRY: Final = "mosquitto"
# A proof this far ahead is newer than all that an earlier run of the broker may have let in.
AHEAD_S: Final = 4
SETTLED_S: Final = 3.0
START_S: Final = 240.0
LIFE_S: Final = 86_400
ALL: Final = Action.PUB | Action.SUB
KNOWN_KEYS: Final = 7
# A daemon keeps so many sessions of one key that are not durable while they are away.
CLIENTS_OF_A_KEY: Final = 8
KNOWN: Final = [
    f"known{n % KNOWN_KEYS}-{n // KNOWN_KEYS}" for n in range(KNOWN_KEYS * CLIENTS_OF_A_KEY)
]
# Its clients come back, too: one publishes, one reads, one looks whether anybody gets in by now.
OWN: Final = "own"
WRITER: Final = f"{OWN}-writer"
READER: Final = f"{OWN}-reader"
PROBE: Final = f"{OWN}-probe"
# More of them in each of a thousand sessions takes a daemon minutes to compile.
CROWD_FILTERS: Final = 50
FILTERS_OF_AN_ISSUER: Final = limits.MAX_GRANTS_PER_PAIR * limits.MAX_FILTERS_PER_GRANT


@contextlib.contextmanager
def broker(name: str, count: int, *, crowd: int = 0) -> Iterator[Broker]:
    """Run a Mosquitto with one kind of access control and ``count`` filters for each client.

    The plugin is told of sessions that are away: ``crowd-0``, ``crowd-1``, … besides the others.
    """
    running = _beside_a_daemon(count, crowd) if name == "authd" else other_broker(name, count)
    with running as one:
        yield one


@contextlib.contextmanager
def _beside_a_daemon(count: int, crowd: int) -> Iterator[Broker]:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="authd-")))
        stage = stack.enter_context(Stage(folder, mosquitto="mosquitto", plugin=PLUGIN))
        site = stage.add_site("A", with_mosquitto=True)
        members = _Members.of(stage, site, crowd)
        members.fill(site, count)
        daemon = _start_daemon(site, wide=count > limits.MAX_COMPILED_FILTERS)
        process = start(folder, _plugin_lines(site.run_dir / "broker.sock"), site.mqtt_port)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        one = Broker(process=process, port=site.mqtt_port, show=members.show, daemon=daemon)
        time.sleep(SETTLED_S)
        with contextlib.ExitStack() as probe:  # nobody gets an answer while a snapshot is written
            all_join(one, [PROBE], probe)
        wait_until_idle(one)
        yield one


def _plugin_lines(path: Path) -> str:
    return (
        f"plugin {PLUGIN}\nplugin_opt_authd_broker {ENTRY}\nplugin_opt_authd_rate 10000\n"
        f"plugin_opt_authd_socket {path}"
    )


def _start_daemon(site: Site, *, wide: bool) -> int:
    """Start the daemon and wait until it answers, however much it has to read.

    Returns:
        Its process id.
    """
    module = "tests.bench.wide_daemon" if wide else "authd"
    site.daemon = Process(
        name=f"daemon {site.name}",
        arguments=[sys.executable, "-m", module, "up"],
        log=site.log(),
        environment={"AUTHD_STATE": str(site.state), "AUTHD_RUN_DIR": str(site.run_dir)},
    )
    site.daemon.start()
    process = site.daemon

    def answers() -> bool:
        if not process.running():
            raise SystemExit(f"the daemon ended: {site.log().read_text('utf-8')[-400:]}")
        return can_connect(site.http_port) and (site.run_dir / "broker.sock").exists()

    wait_until(answers, timeout_s=START_S, what="the daemon answers")
    assert process.child is not None
    return process.child.pid


# --- who gets in --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Members:
    """The keys of a site's clients.

    Attributes:
        named: By what their client ids begin with.
        crowd: Of the first eight clients of the crowd, the next eight, …
        size: How many clients the crowd has.
    """

    audience: Audience
    named: dict[str, Prover]
    crowd: list[Prover]
    size: int

    @classmethod
    def of(cls, stage: Stage, site: Site, size: int) -> "_Members":
        """Make the domain and draw the keys."""
        passphrase = f"--passphrase-file={stage.passphrase}"
        made = stage.authd("init", *stage.setup_arguments(site), passphrase, site=site)
        audience = Audience(DomainId(parse_id(made["domain"])), site.endpoint)
        names = ("fresh", OWN, *(f"known{number}" for number in range(KNOWN_KEYS)))
        keys = -(-size // CLIENTS_OF_A_KEY)
        return cls(
            audience=audience,
            named={name: Prover(audience=audience) for name in names},
            crowd=[Prover(audience=audience) for _ in range(keys)],
            size=size,
        )

    def show(self, client_id: str) -> tuple[bytes, bytes]:
        """Return user name and password of a client id, now."""
        device = self._of(client_id)
        return device.id.encode(), device.pop(client_id, ahead_s=AHEAD_S).encode()

    def _of(self, client_id: str) -> Prover:
        name, _, number = client_id.partition("-")
        return self.crowd[int(number) // CLIENTS_OF_A_KEY] if name == "crowd" else self.named[name]

    def fill(self, site: Site, count: int) -> None:
        """Put their grants of ``count`` filters, and the sessions that are away, into the store."""
        authority, now = Keystore(site.state).load(AUTHORITY), int(time.time())
        give, little = (_issue(authority, most, now) for most in (count, min(count, CROWD_FILTERS)))
        grants = [
            *give.gateways,
            *(one for pair in self.named.items() for one in give.grants_to(*pair)),
            *(one for device in self.crowd for one in little.grants_to("crowd", device)),
        ]
        away = [WRITER, READER, PROBE, *KNOWN, *(f"crowd-{n}" for n in range(self.size))]
        with SqliteStore(site.state / "authd.db") as store:
            store.save_statements((_stored(one, now) for one in grants), durable=True)
            for client_id in away:
                store.save_session(self._session(client_id, now))

    def _session(self, client_id: str, now: int) -> StoredSession:
        """Describe a durable session of an earlier run of the broker."""
        device = self._of(client_id)
        return StoredSession(
            session_id=secrets.token_urlsafe(8),
            broker=ENTRY,
            boot="0" * 16,
            client_id=client_id,
            username=device.id,
            key=device.key.public,
            form=int(Form.POP),
            audience_domain=self.audience.domain,
            audience_endpoint=self.audience.endpoint,
            durable=True,
            live=False,
            created_at=now,
        )


@dataclass(frozen=True, kw_only=True)
class _Issuing:
    """Who grants, and what.

    Attributes:
        gateways: The grants that let further issuers grant: what one gives to a device is bounded.
        grants_to: Makes all grants to a device whose client ids begin with a name.
    """

    gateways: list[Grant]
    grants_to: Callable[[str, Prover], list[Grant]]


def _issue(authority: SigningKey, count: int, now: int) -> _Issuing:
    """Spread filters over as many grants, and these over as many issuers, as are needed."""
    parts = list(_parts(filters(count), limits.MAX_FILTERS_PER_GRANT))
    issuers, gateways = [authority], list[Grant]()
    if count > FILTERS_OF_AN_ISSUER:
        issuers = [Prover().key for _ in range(-(-count // FILTERS_OF_AN_ISSUER))]
        gateways = [
            sign_grant(
                authority,
                subject=KeySubject(key.public),
                scope=make_scope({"site/#": ALL}),
                issued_at=now - 10,
                expires_at=now + LIFE_S,
                depth=1,
                client_id=ClientIdRule(ClientIdMatch.ANY),
            )
            for key in issuers
        ]

    def grants_to(name: str, device: Prover) -> list[Grant]:
        return [
            sign_grant(
                issuers[place // limits.MAX_GRANTS_PER_PAIR],
                subject=KeySubject(device.key.public),
                scope=make_scope(dict.fromkeys(part, ALL)),
                issued_at=now - 10,
                expires_at=now + LIFE_S,
                client_id=ClientIdRule(ClientIdMatch.PREFIX, f"{name}-"),
            )
            for place, part in enumerate(parts)
        ]

    return _Issuing(gateways=gateways, grants_to=grants_to)


def _parts(names: list[str], most: int) -> Iterator[list[str]]:
    left = iter(names)
    while part := list(islice(left, most)):
        yield part


def _stored(grant: Grant, now: int) -> StoredStatement:
    return StoredStatement(
        kind=Kind.GRANT,
        statement_id=grant.statement_id,
        data=grant.encoded,
        source="local",
        received_at=now,
    )

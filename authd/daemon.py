"""The composition root: wires edges to ports, runs them in one task group, stops cleanly."""

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from authd.clock import SystemClock, SystemEntropy
from authd.config import BrokerSettings, Settings, load_settings
from authd.core.encoding import encode_base64url
from authd.core.identity import PublicKey, SigningKey, key_id_text
from authd.core.proofs import Audience
from authd.errors import AuthdError, ConfigError, StoreError
from authd.grpc_api.certificates import Certificates, ensure_certificates
from authd.grpc_api.server import GrpcParts, GrpcServer
from authd.http_api.admin import Admin
from authd.http_api.go_auth import GoAuth
from authd.http_api.plugin import Plugin
from authd.http_api.server import Health, HttpServers, group_uids, make_app, only_uids
from authd.network import Network
from authd.node_file import NodeFile, ensure_secrets, load_node_file
from authd.observe import Observations
from authd.outbox import Outbox
from authd.service.assembly import Ingredients, Service, assemble
from authd.service.brokers import BrokerEntry
from authd.service.heartbeats import Restored
from authd.service.operator import Answer
from authd.service.ports import Evictor
from authd.store.keystore import AUTHORITY, HEARTBEAT, NODE, Keystore
from authd.store.places import check_place, hold_place
from authd.store.sqlite import ALONE, RESTORED, SqliteStore
from authd.supervisor import Supervisor
from authd.systemd import notify, watchdog_s

if TYPE_CHECKING:
    from authd.embedded.broker import EmbeddedBroker

_TICK_S: Final = 1.0
_OUTBOX_S: Final = 1.0
_FLOOR_EVERY_TICKS: Final = 30
_NETWORK: Final = "network"
_log = structlog.get_logger("authd")


class Daemon:
    """One authd: `run` serves until SIGTERM, SIGINT or cancellation."""

    def __init__(self, settings: Settings, *, embedded: bool) -> None:
        """Read what is needed before anything is opened.

        Args:
            settings: From `authd.config.load_settings`.
            embedded: Whether to run the in-project broker too.

        Raises:
            ConfigError: The state directory is not that of a daemon.
            StoreError: A file cannot be written.
        """
        self._settings = settings
        self._embedded = embedded
        self._keystore = Keystore(settings.state_dir)
        self._node: NodeFile = load_node_file(settings.state_dir)
        self._entropy = SystemEntropy()
        self._observations = Observations()
        self._node_key: SigningKey = self._keystore.load(NODE)
        self._stop = asyncio.Event()
        self._started = False
        self._supervisor = Supervisor()
        self._fingerprints: Mapping[bytes, str] = {}
        self._operator_uids = group_uids("")
        self._read_brokers()

    def _read_brokers(self) -> None:
        names = [one.name for one in self._settings.brokers]
        ensure_secrets(self._settings.state_dir, self._node, names, self._entropy)
        self._broker_uids = group_uids(self._settings.broker_group)

    # --- life -----------------------------------------------------------------------------

    async def run(self, *, on_ready: Callable[[], None]) -> None:
        """Serve until told to stop.

        Args:
            on_ready: Called once when every edge answers.

        Raises:
            AuthdError: Something needed could not be opened.
        """
        check_place(self._settings.state_dir)
        _prepare_run_dir(self._settings.run_dir)
        with (
            hold_place(self._settings.state_dir),
            SqliteStore(self._settings.state_dir / "authd.db") as store,
        ):
            floor, unclean = self._begin(store)
            self._clock = SystemClock(floor=floor)
            not_before = self._clock.now() if unclean else 0
            self._service = self._make_service(store, not_before=not_before)
            self._network = Network(
                service=self._service,
                store=store,
                clock=self._clock,
                entropy=self._entropy,
                key=self._node_key,
            )
            self._install_signals()
            # Before the first port is open: from then on, somebody may be let in.
            store.set_meta("stopped", "no")
            try:
                await self._serve(store, on_ready)
            except BaseException:
                # A start that was refused is no crash, unless there was one before it.
                if not self._started and not unclean:
                    self._end(store)
                raise
            finally:
                await self._service.finder.close()
            self._end(store)
        notify("STOPPING=1")

    def _end(self, store: SqliteStore) -> None:
        """Note that nothing is on its way to the disk any more."""
        store.set_meta("floor", str(self._clock.now()))
        store.set_meta("stopped", "cleanly")

    def _begin(self, store: SqliteStore) -> tuple[int, bool]:
        floor = _parse_floor(store.meta("floor") or "0")
        unclean = store.meta("stopped") == "no"
        if unclean:
            _log.warning("the last stop was not clean: proofs made before now are refused")
        return floor, unclean

    def _install_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)

    def _on_hangup(self) -> None:
        try:
            self._reload_settings()
        except AuthdError as error:
            _log.error("reload failed: the configuration in force stays", error=str(error))

    async def _serve(self, store: SqliteStore, on_ready: Callable[[], None]) -> None:
        async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            certificates = self._certificates()
            await stack.enter_async_context(self._http_servers())
            grpc = await stack.enter_async_context(self._grpc_server(certificates))
            tasks = self._tasks(store, grpc)
            broker = await self._open_embedded(stack, certificates, grpc)
            self._started = True
            if broker is not None:
                tasks["embedded broker"] = broker.run
            running = [
                group.create_task(self._supervisor.run(name, task), name=name)
                for name, task in tasks.items()
            ]
            if self._node.networked:
                self._network.want()
            # What is there now stays: the collector need not walk through it for every few thousand
            # decisions.
            gc.freeze()
            on_ready()
            notify("READY=1")
            await self._stop.wait()
            for one in running:
                one.cancel()

    def _tasks(
        self,
        store: SqliteStore,
        grpc: GrpcServer,
    ) -> dict[str, Callable[[], Awaitable[None]]]:
        service = self._service
        return {
            "enforcement": service.enforcement.run,
            "records": service.publisher.run,
            "heartbeats": service.publisher.run_heartbeats,
            "renewal": service.renewal.run,
            "evictions": lambda: service.evictions.run(self._evictors),
            "outbox": self._drain_outbox,
            "upkeep": lambda: self._upkeep(store),
            _NETWORK: lambda: self._network.run(
                lambda: self._settings,
                lambda: self._node.peers,
            ),
            "grpc": grpc.run,
        }

    # --- parts ----------------------------------------------------------------------------

    def _make_service(self, store: SqliteStore, *, not_before: int) -> Service:
        own = self._node.domain_id
        has_heartbeat = self._keystore.has(HEARTBEAT)
        return assemble(
            Ingredients(
                store=store,
                clock=self._clock,
                entropy=self._entropy,
                own=own,
                policy=self._settings.policy(own),
                brokers=tuple(self._entries()),
                heartbeat_key=self._keystore.load(HEARTBEAT) if has_heartbeat else None,
                replicate=self._settings.replicate == "auto",
                not_before=not_before,
                observer=self._observations.connect,
                identity=self._identity,
                node_key=self._node_key,
                issuing_key=self._issuing_key(),
                restored=self._restored(store),
            ),
        )

    def _issuing_key(self) -> SigningKey | None:
        if not self._keystore.has(AUTHORITY) or self._keystore.is_encrypted(AUTHORITY):
            return None
        return self._keystore.load(AUTHORITY)

    def _restored(self, store: SqliteStore) -> Restored | None:
        how = store.meta(RESTORED) or ""
        if not how:
            return None
        alone = how == ALONE or not self._node.networked
        return Restored(alone=alone, done=lambda: store.set_meta(RESTORED, ""))

    def _identity(self) -> Answer:
        heartbeat = self._keystore.load(HEARTBEAT) if self._keystore.has(HEARTBEAT) else None
        return {
            "domain": self._node.domain,
            "node": key_id_text(self._node_key.public),
            "heartbeat_key": encode_base64url(heartbeat.public) if heartbeat else None,
            "listen": {
                "http": self._settings.http,
                "grpc": self._settings.grpc,
                "peer": self._settings.peer,
            },
            "networked": self._node.networked,
            "discovery": self._network.discovery(),
            "degraded": {one: what.sentence for one, what in self._supervisor.troubles.items()},
            "replicate": self._settings.replicate,
        }

    def _entries(self) -> list[BrokerEntry]:
        return [self._entry(one) for one in self._settings.brokers]

    def _entry(self, one: BrokerSettings) -> BrokerEntry:
        own = self._node.domain_id
        return BrokerEntry(
            name=one.name,
            kind=one.kind,
            audiences=tuple(Audience(own, endpoint) for endpoint in one.endpoints),
            secret=self._node.broker_secrets[one.name],
            on_revoke=one.on_revoke,
            takeover=one.evict_address,
            prefixes=one.prefixes,
        )

    def _evictors(self) -> dict[str, Evictor]:
        evictions = self._service.evictions
        entries = [entry for entry in self._service.brokers.all() if entry.takeover]
        if not entries:
            return {}
        # An MQTT client's libraries are of no use to a daemon that takes over nothing.
        from authd.evictors.takeover import TakeoverEvictor  # noqa: PLC0415 - see above

        def secret_of(broker: str) -> Callable[[str, PublicKey], str]:
            return lambda client_id, key: evictions.issue(broker, client_id, key)

        return {
            entry.name: TakeoverEvictor(address=entry.takeover, secret=secret_of(entry.name))
            for entry in entries
        }

    def _certificates(self) -> Certificates:
        certificates = ensure_certificates(
            self._settings.state_dir / "tls",
            host_names=[socket.gethostname()],
            brokers=[one.name for one in self._settings.brokers],
            now=self._clock.now(),
        )
        self._fingerprints = certificates.fingerprints
        return certificates

    # --- edges ----------------------------------------------------------------------------

    def _http_servers(self) -> HttpServers:
        service, settings = self._service, self._settings
        health = Health(ready=self._ready, metrics=self._observations.exposition)
        go_auth = GoAuth(
            decisions=service.decider,
            brokers=service.brokers,
            observe=self._observations.message,
        )
        plugin = Plugin(
            decisions=service.decider,
            table=service.enforcement,
            is_broker=self._takes_plugin,
        )
        admin = Admin(operator=service.operator, reload=self._reload)
        return HttpServers(
            broker_app=make_app([health, go_auth]),
            broker_address=settings.http,
            plugin_app=make_app(
                [plugin],
                only_uids(lambda: self._broker_uids),
            ),
            plugin_socket=settings.run_dir / "broker.sock",
            broker_group=settings.broker_group,
            admin_app=make_app([admin], only_uids(lambda: self._operator_uids)),
            admin_socket=settings.run_dir / "admin.sock",
        )

    def _takes_plugin(self, name: str) -> bool:
        entry = self._service.brokers.get(name)
        return entry is not None and entry.kind == "mosquitto"

    def _grpc_server(self, certificates: Certificates) -> GrpcServer:
        return GrpcServer(
            GrpcParts(
                address=self._settings.grpc,
                point=self._service.decider,
                certificates=certificates,
                names=lambda: self._fingerprints,
                sessions=self._service.enforcement,
            ),
        )

    async def _open_embedded(
        self,
        stack: AsyncExitStack,
        certificates: Certificates,
        grpc: GrpcServer,
    ) -> "EmbeddedBroker | None":
        if not self._embedded:
            return None
        entry = next((one for one in self._settings.brokers if one.kind == "embedded"), None)
        if entry is None:
            raise ConfigError(
                f"`{self._settings.path}`: `authd up --broker` needs a [[broker]] of kind"
                " `embedded`",
            )
        # A broker's libraries are of no use to a daemon that runs none.
        from authd.embedded.broker import EmbeddedBroker, EmbeddedParts  # noqa: PLC0415 - see above
        from authd.embedded.consult import DeciderAddress  # noqa: PLC0415 - see above

        files = certificates.brokers[entry.name]
        parts = EmbeddedParts(
            host="127.0.0.1",
            port=self._settings.embedded_port,
            decider=DeciderAddress(
                target=f"127.0.0.1:{grpc.port}",
                authority=certificates.authority,
                certificate=files.certificate,
                key=files.key,
            ),
            monotonic=self._clock.monotonic,
        )
        return await stack.enter_async_context(EmbeddedBroker(parts))

    # --- upkeep ---------------------------------------------------------------------------

    def _ready(self) -> dict[str, object]:
        authority, now = self._service.authority, self._clock.now()
        own = authority.policy.own
        fresh = authority.heartbeats.freshness().get(own, 0)
        usable = fresh and now < fresh + authority.policy.domain(own).grace_s
        return {
            "problems": []
            if usable
            else ["no complete news from the own domain: CONNECT is denied"],
            "degraded": {one: what.kind for one, what in self._supervisor.troubles.items()},
            "fresh_for_s": max(0, fresh - now),
        }

    async def _drain_outbox(self) -> None:
        outbox = Outbox(self._settings.state_dir)
        while True:
            for path in outbox.pending():
                try:
                    await self._service.operator.submit(outbox.read(path))
                except AuthdError as error:
                    _log.error("outbox: not taken", file=path.name, error=str(error))
                    # What may succeed later is tried again: it may be a revocation.
                    if not error.reason.temporary:
                        outbox.refuse(path)
                else:
                    outbox.done(path)
            await asyncio.sleep(_OUTBOX_S)

    async def _upkeep(self, store: SqliteStore) -> None:
        ticks = 0
        beat_s = watchdog_s()
        while True:
            if ticks % _FLOOR_EVERY_TICKS == 0:
                store.set_meta("floor", str(self._clock.now()))
                self._network.remember_peers()
            self._measure()
            if beat_s is not None:
                notify("WATCHDOG=1")
            ticks += 1
            await asyncio.sleep(_TICK_S)

    def _measure(self) -> None:
        service, figures = self._service, self._observations.figures
        now = self._clock.now()
        figures.labels("sessions").set(len(service.sessions.all()))
        figures.labels("revocations").set(len(service.authority.state.revocations))
        listed, ended = service.authority.heartbeats.own_figures()
        figures.labels("list_entries").set(listed)
        figures.labels("list_entries_ended").set(ended)
        figures.labels("subjects").set(len(service.authority.state.grants))
        figures.labels("peers").set(len(service.attachment.peers()))
        for name, value in self._network.discovery().items():
            if isinstance(value, int):
                figures.labels(name if name == "turned_away" else f"discovery_{name}").set(value)
        figures.labels("dht_nodes").set(service.attachment.stats().peers)
        figures.labels("unpublished_records").set(service.publisher.unpublished)
        figures.labels("refused_statements").set(service.authority.refused)
        figures.labels("alarms").set(len(service.authority.alarms))
        figures.labels("statements_too_fast").set(service.authority.quotas.limited)
        figures.labels("statements_without_room").set(service.authority.quotas.surplus)
        figures.labels("branches_fallen").set(len(service.authority.state.fallen))
        figures.labels("grants_renewed").set(service.renewal.renewed)
        figures.labels("grants_expiring").set(len(service.renewal.expiring.ends))
        figures.labels("store_unwritable").set(bool(service.authority.store_problem))
        for domain, until in service.authority.heartbeats.freshness().items():
            self._observations.fresh_seconds.labels(encode_base64url(domain)).set(until - now)

    async def _reload(self) -> Answer:
        self._reload_settings()
        return {"reloaded": str(self._settings.path)}

    def _reload_settings(self) -> None:
        """Read configuration and node file again; addresses stay as they are until a restart."""
        before = self._settings, self._node
        self._settings = load_settings(self._settings.path)
        try:
            self._node = load_node_file(self._settings.state_dir)
            self._read_brokers()
            self._certificates()
        except AuthdError:
            self._settings, self._node = before
            raise
        self._service.brokers.replace(self._entries())
        self._service.authority.set_policy(self._settings.policy(self._node.domain_id))
        if self._node.networked:
            self._network.want()
        _log.info("reloaded", file=str(self._settings.path))


def _parse_floor(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise StoreError(f"the store's `floor` is `{text}`, not a time")
    return int(text)


def _prepare_run_dir(path: Path) -> None:
    try:
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make `{path}` (run_dir): {error.strerror}") from error
    check_place(path)


async def serve(settings: Settings, *, embedded: bool, on_ready: Callable[[], None]) -> None:
    """Run a daemon until it is told to stop.

    Raises:
        AuthdError: Something needed could not be opened.
    """
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await Daemon(settings, embedded=embedded).run(on_ready=on_ready)
    except ExceptionGroup as group:
        # The task group wraps what could not be opened; the operator wants the sentence alone.
        known = group.subgroup(AuthdError)
        if known is None:
            raise
        raise _first_leaf(known) from group


def _first_leaf(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group

"""Configuration: ``authd.toml`` and ``AUTHD_…`` variables into frozen settings.

An unknown key is an error that names the file and the key: a misspelt setting must not silently
leave a default in force. Settings are handed down in parts; nothing reads them from here later.
"""

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from authd.core import limits
from authd.core.identity import DomainId, parse_id
from authd.core.policy import DEFAULT_GRACE_S, DomainPolicy, GuardedPrefix, Policy
from authd.core.topics import Action, check_granted_filter, make_scope
from authd.errors import ConfigError, FormatError
from authd.service.brokers import KINDS

T = TypeVar("T")

DEFAULT_HTTP: Final = "127.0.0.1:8181"
DEFAULT_GRPC: Final = "127.0.0.1:8182"
DEFAULT_PEER: Final = "0.0.0.0:8184"
# More introducers than this for one device is a wish, not a policy.
# Streams between daemons: ten suit a network where most can be dialled; a hub needs one for each.
MIN_PLACES: Final = 10
MAX_PLACES: Final = 256
_MAX_DISJOINT_PATHS: Final = 8
_DURATION: Final = re.compile(r"([1-9][0-9]{0,6})(s|m|h|d)")
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_LOOPBACK: Final = re.compile(r"(localhost|127\.[0-9.]+|\[::1\]):[0-9]+")
_ENDPOINT: Final = re.compile(r"(\[[0-9a-f:]+\]|[a-z0-9.-]+):([0-9]{1,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """One ``[[broker]]``: name, kind, the ``host:port`` names it is dialled by.

    Attributes:
        prefixes: Topic filters it is announced for to the domain; none, and it is not announced.
    """

    name: str
    kind: str
    endpoints: tuple[str, ...]
    on_revoke: str = "suppress"
    evict: str = "none"
    evict_address: str = ""
    prefixes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DomainSettings:
    """One ``[domains.<name>]``."""

    name: str
    domain: DomainId
    policy: DomainPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that can be configured.

    Attributes:
        path: The file it came from.
        state_dir: Keys, store, issued subjects; 0700.
        run_dir: The two sockets; never inside ``state_dir``.
        http: ``host:port`` of the brokers' HTTP endpoints, health and metrics.
        grpc: ``host:port`` of the gRPC endpoints.
        peer: ``host:port`` of DHT (UDP) and gossip (TCP).
        advertise: ``host:port`` that peers are told to dial; empty means ``peer``.
        static_peers: Peers that are always tried.
        places: Gossip streams held at most, 10 to 256: how many others may hang on this daemon.
        mdns: Whether other daemons are looked for, and this one is announced, on the local link.
        replicate: ``auto`` also gossips own-domain device grants, ``none`` uses the DHT alone.
        broker_group: Group that may use ``broker.sock``.
        stale_s: Grace of the own domain.
        log_format: ``json`` or ``text``.
    """

    path: Path
    state_dir: Path
    run_dir: Path
    http: str = DEFAULT_HTTP
    grpc: str = DEFAULT_GRPC
    peer: str = DEFAULT_PEER
    advertise: str = ""
    static_peers: tuple[str, ...] = ()
    places: int = MIN_PLACES
    mdns: bool = False
    replicate: str = "auto"
    broker_group: str = "authd-broker"
    stale_s: int = DEFAULT_GRACE_S
    log_format: str = "json"
    brokers: tuple[BrokerSettings, ...] = ()
    domains: tuple[DomainSettings, ...] = ()
    guarded: tuple[GuardedPrefix, ...] = ()
    embedded_port: int = 1883

    def policy(self, own: DomainId) -> Policy:
        """Combine what is configured with the own domain."""
        domains = {one.domain: one.policy for one in self.domains}
        domains.setdefault(own, DomainPolicy(grace_s=self.stale_s))
        return Policy(own=own, domains=domains, guarded=self.guarded)


def default_state_dir() -> Path:
    """Return where state lives unless said otherwise."""
    if os.geteuid() == 0:
        return Path("/var/lib/authd-mqtt")
    base = os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")
    return Path(base) / "authd-mqtt"


def default_run_dir() -> Path:
    """Return where the sockets live unless said otherwise."""
    if os.geteuid() == 0:
        return Path("/run/authd-mqtt")
    base = os.environ.get("XDG_RUNTIME_DIR") or f"/tmp/authd-mqtt-{os.geteuid()}"  # noqa: S108 - made 0700 and checked to be ours
    return Path(base) / "authd-mqtt"


def parse_duration(text: str) -> int:
    """Read ``90s``, ``5m``, ``1h`` or ``2d`` as seconds.

    Raises:
        FormatError: Anything else.
    """
    found = _DURATION.fullmatch(text)
    if found is None:
        raise FormatError(f"`{text}` is not a duration such as `90s`, `5m`, `1h` or `2d`")
    return int(found[1]) * _UNITS_S[found[2]]


def parse_endpoint(text: str) -> str:
    """Accept a lower-case ``host:port``.

    Raises:
        FormatError: Anything else.
    """
    found = _ENDPOINT.fullmatch(text)
    if found is None or not int(found[2]) < 65_536 or len(text) > 80:  # noqa: PLR2004 - ports; an audience must fit MAX_AUDIENCE_BYTES
        raise FormatError(f"`{text}` is not a lower-case `host:port`")
    return text


class _Table:
    """One TOML table, taken apart strictly."""

    def __init__(self, file: Path, name: str, content: object) -> None:
        self._file = file
        self._name = name
        if not isinstance(content, dict):
            raise self.error("", "is not a table")
        self._left: dict[str, object] = dict(content)

    def __contains__(self, key: str) -> bool:
        return key in self._left

    def error(self, key: str, what: str) -> ConfigError:
        where = ".".join(part for part in (self._name, key) if part)
        return ConfigError(f"`{self._file}`: `{where}` {what}")

    def take(self, key: str, kind: type[T], default: T | None = None) -> T:
        value = self._left.pop(key, default)
        if value is None:
            raise self.error(key, "is missing")
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self.error(key, f"is not of type {kind.__name__}")
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        value = self._left.pop(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "is not true or false")
        return value

    def number(self, key: str, default: int, *, least: int, most: int) -> int:
        value = self.take(key, int, default)
        if not least <= value <= most:
            raise self.error(key, f"is {value}, not {least} to {most}")
        return value

    def texts(self, key: str, default: list[str] | None = None) -> list[str]:
        value = self.take(key, list, default)
        if not all(isinstance(item, str) for item in value):
            raise self.error(key, "is not a list of texts")
        return value

    def choice(self, key: str, allowed: tuple[str, ...], default: str | None = None) -> str:
        value = self.take(key, str, default)
        if value not in allowed:
            raise self.error(key, f"is `{value}`, not one of {', '.join(allowed)}")
        return value

    def endpoints(self, key: str) -> list[str]:
        try:
            return [parse_endpoint(text) for text in self.texts(key, [])]
        except FormatError as error:
            raise self.error(key, f"is wrong: {error}") from error

    def endpoint(self, key: str, default: str) -> str:
        try:
            return parse_endpoint(self.take(key, str, default))
        except FormatError as error:
            raise self.error(key, f"is wrong: {error}") from error

    def grace_s(self, key: str, default_s: int) -> int:
        value = self._left.pop(key, None)
        if value is None:
            return default_s
        if value == "strict":
            return 0
        try:
            return parse_duration(str(value))
        except FormatError as error:
            raise self.error(key, f"is wrong: {error}, or `strict`") from error

    def table(self, key: str) -> "_Table":
        return _Table(self._file, key, self._left.pop(key, {}))

    def tables(self, key: str) -> list["_Table"]:
        value = self._left.pop(key, [])
        if not isinstance(value, list):
            raise self.error(key, "is not a list of tables: write `[[...]]`")
        return [_Table(self._file, f"{key}[{index}]", item) for index, item in enumerate(value)]

    def named_tables(self, key: str) -> dict[str, "_Table"]:
        value = self._left.pop(key, {})
        if not isinstance(value, dict):
            raise self.error(key, "is not a table")
        return {name: _Table(self._file, f"{key}.{name}", item) for name, item in value.items()}

    def finish(self) -> None:
        if self._left:
            raise self.error(min(self._left), "is unknown")


def load_settings(path: Path, *, environ: Mapping[str, str] | None = None) -> Settings:
    """Read ``authd.toml``.

    Args:
        path: The file; its directory is the default state directory.
        environ: ``AUTHD_HTTP``, ``AUTHD_GRPC``, ``AUTHD_PEER``, ``AUTHD_RUN_DIR`` override it.

    Raises:
        ConfigError: The file cannot be read or something in it cannot be used; names the key.
    """
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"`{path}`: {error.strerror}; run `authd init` first") from error
    except PermissionError as error:
        raise ConfigError(
            f"`{path}`: {error.strerror}; run this as the user that the daemon runs as"
        ) from error
    except OSError as error:
        raise ConfigError(f"`{path}`: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"`{path}`: {error}") from error
    return _read(path, content, os.environ if environ is None else environ)


def _read(path: Path, content: dict[str, object], environ: Mapping[str, str]) -> Settings:
    top = _Table(path, "", content)
    listen, peers = top.table("listen"), top.table("peers")
    embedded, discovery = top.table("embedded"), top.table("discovery")
    run_dir = top.take("run_dir", str, str(default_run_dir()))
    settings = Settings(
        path=path,
        state_dir=Path(top.take("state_dir", str, str(path.parent))),
        run_dir=Path(environ.get("AUTHD_RUN_DIR") or run_dir),
        http=_override(environ, "AUTHD_HTTP", listen.endpoint("http", DEFAULT_HTTP)),
        grpc=_override(environ, "AUTHD_GRPC", listen.endpoint("grpc", DEFAULT_GRPC)),
        peer=_override(environ, "AUTHD_PEER", listen.endpoint("peer", DEFAULT_PEER)),
        advertise=listen.endpoint("advertise", "") if "advertise" in listen else "",
        static_peers=tuple(peers.endpoints("static")),
        places=peers.number("places", MIN_PLACES, least=MIN_PLACES, most=MAX_PLACES),
        mdns=discovery.flag("mdns", default=False),
        replicate=top.choice("replicate", ("auto", "none"), "auto"),
        broker_group=top.take("broker_group", str, "authd-broker"),
        stale_s=top.grace_s("stale", DEFAULT_GRACE_S),
        log_format=top.choice("log", ("json", "text"), "json"),
        brokers=_read_brokers(top.tables("broker")),
        domains=_read_domains(top.named_tables("domains")),
        guarded=_read_guarded(top.tables("guarded")),
        embedded_port=embedded.number("port", 1883, least=1, most=65_535),
    )
    for table in (listen, peers, embedded, discovery, top):
        table.finish()
    if settings.run_dir.absolute().is_relative_to(settings.state_dir.absolute()):
        raise top.error("run_dir", "lies inside the state directory, which brokers cannot enter")
    return settings


def _override(environ: Mapping[str, str], name: str, configured: str) -> str:
    text = environ.get(name)
    if not text:
        return configured
    try:
        return parse_endpoint(text)
    except FormatError as error:
        raise ConfigError(f"environment: `{name}` is wrong: {error}") from error


def _read_brokers(tables: list[_Table]) -> tuple[BrokerSettings, ...]:
    brokers: dict[str, BrokerSettings] = {}
    for table in tables:
        name = table.take("name", str)
        if not _NAME.fullmatch(name) or name in brokers:
            raise table.error("name", f"is `{name}`: 1 to 32 of `a-z 0-9 _ -`, each name once")
        evict = table.choice("evict", ("none", "takeover"), "none")
        brokers[name] = BrokerSettings(
            name=name,
            kind=table.choice("kind", KINDS),
            endpoints=_read_endpoints(table),
            on_revoke=table.choice("on_revoke", ("suppress", "publish"), "suppress"),
            evict=evict,
            evict_address=_read_evict_address(table) if evict == "takeover" else "",
            prefixes=_read_prefixes(table),
        )
        table.finish()
    return tuple(brokers.values())


def _read_prefixes(table: _Table) -> tuple[str, ...]:
    prefixes = table.texts("prefixes", [])
    if len(prefixes) > limits.MAX_AUDIENCES:
        raise table.error("prefixes", f"holds at most {limits.MAX_AUDIENCES} topic filters")
    try:
        return tuple(map(check_granted_filter, prefixes))
    except FormatError as error:
        raise table.error("prefixes", f"is wrong: {error}") from error


def _read_evict_address(table: _Table) -> str:
    address = table.endpoint("evict_address", "")
    if not _LOOPBACK.fullmatch(address):
        # The secret of a takeover goes over this connection as it is.
        raise table.error("evict_address", f"is `{address}`, which is not this host's loopback")
    return address


def _read_endpoints(table: _Table) -> tuple[str, ...]:
    endpoints = table.texts("audiences")
    if not 1 <= len(endpoints) <= limits.MAX_AUDIENCES:
        raise table.error("audiences", f"holds 1 to {limits.MAX_AUDIENCES} of `host:port`")
    try:
        return tuple(map(parse_endpoint, endpoints))
    except FormatError as error:
        raise table.error("audiences", f"is wrong: {error}") from error


def _read_domains(tables: dict[str, _Table]) -> tuple[DomainSettings, ...]:
    domains = []
    for name, table in tables.items():
        try:
            domain = DomainId(parse_id(table.take("id", str)))
            filters = [_below(one) for one in table.texts("prefix")]
        except FormatError as error:
            raise table.error("", f"is wrong: {error}") from error
        scope = make_scope(dict.fromkeys(filters, Action.PUB | Action.SUB))
        policy = DomainPolicy(
            scope=scope,
            grace_s=table.grace_s("stale", DEFAULT_GRACE_S),
            hops=table.number("hops", 1, least=0, most=limits.MAX_PATH_GRANTS),
        )
        domains.append(DomainSettings(name=name, domain=domain, policy=policy))
        table.finish()
    return tuple(domains)


def _below(prefix: str) -> str:
    if "#" in prefix:
        raise FormatError(f"`{prefix}`: write it without wildcards")
    return check_granted_filter(f"{prefix}/#")


def _read_guarded(tables: list[_Table]) -> tuple[GuardedPrefix, ...]:
    guarded = []
    for table in tables:
        try:
            topic_filter = _below(table.take("prefix", str))
        except FormatError as error:
            raise table.error("prefix", f"is wrong: {error}") from error
        k = table.take("k", int, 1)
        if not 1 <= k <= _MAX_DISJOINT_PATHS:
            raise table.error("k", f"is {k}, not 1 to {_MAX_DISJOINT_PATHS}")
        grace_s = table.grace_s("stale", 0)
        guarded.append(GuardedPrefix(topic_filter=topic_filter, grace_s=grace_s, k=k))
        table.finish()
    return tuple(guarded)

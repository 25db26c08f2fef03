"""Mosquitto's configuration: read as it reads it, and judged.

A line is a word and the rest of the line; `#` begins a comment in the first column only
(mosquitto.conf(5)). ``include_dir`` stands for the ``*.conf`` files of a directory, in the order
of their names. What stands below a ``listener`` belongs to it, plugins excepted while
``per_listener_settings`` is off.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authd.cli.findings import Finding, fault, fine, note
from authd.errors import ConfigError

PLUGIN_NAME: Final = "authd_mosquitto"
_MAX_BYTES: Final = 1_000_000
_MAX_INCLUDES: Final = 4
_PLUGIN_WORDS: Final = ("plugin", "auth_plugin", "global_plugin", "plugin_load")
_LOOPBACK: Final = ("127.", "::1", "localhost", "/")


@dataclass(frozen=True, slots=True)
class Setting:
    """One line: its first word, the rest, and the listener it stands below ("" for none)."""

    word: str
    value: str
    listener: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MosquittoConfig:
    """Every line of a configuration, included files in their place."""

    path: Path
    settings: tuple[Setting, ...]

    def all(self, word: str) -> list[Setting]:
        """Return the lines with this first word."""
        return [one for one in self.settings if one.word == word]

    def last(self, word: str) -> str:
        """Return the value that counts; empty without one."""
        found = self.all(word)
        return found[-1].value if found else ""

    @property
    def plugins(self) -> list[str]:
        """The files of all plugins."""
        return [one.value for one in self.settings if one.word in _PLUGIN_WORDS]

    @property
    def authd_broker(self) -> str:
        """The name by which authd's plugin goes."""
        return self.last("plugin_opt_authd_broker") or self.last("auth_opt_authd_broker")

    @property
    def authd_socket(self) -> str:
        """Where authd's plugin asks; empty where it is left to the default."""
        return self.last("plugin_opt_authd_socket") or self.last("auth_opt_authd_socket")


def read_config(path: Path) -> MosquittoConfig:
    """Read a configuration and what it includes.

    Raises:
        ConfigError: A file cannot be read, or is no configuration.
    """
    listener = ""
    settings: list[Setting] = []
    for word, value in _lines(path, depth=0):
        if word in ("listener", "port"):
            listener = value
        settings.append(Setting(word, value, listener))
    return MosquittoConfig(path=path, settings=tuple(settings))


def _lines(path: Path, *, depth: int) -> Iterator[tuple[str, str]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"`{path}`: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"`{path}`: {len(data)} bytes are no configuration")
    for line in data.decode("utf-8", "replace").splitlines():
        word, _, value = line.strip().partition(" ")
        if not word or line.startswith("#"):
            continue
        if word == "include_dir" and depth < _MAX_INCLUDES:
            for included in sorted(Path(value.strip()).glob("*.conf")):
                yield from _lines(included, depth=depth + 1)
        else:
            yield word, value.strip()


# --- what is to be said of it -----------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What this host's authd expects of the broker.

    Attributes:
        names: Of the ``[[broker]]`` entries of kind ``mosquitto``.
        socket: Where the daemon listens for plugins.
    """

    names: tuple[str, ...]
    socket: str


def judge_config(config: MosquittoConfig, expected: Expected) -> list[Finding]:
    """Say what is right, wrong and worth knowing about a configuration."""
    judges: tuple[Callable[[MosquittoConfig], Iterator[Finding]], ...] = (
        _judge_anonymous,
        _judge_listener_settings,
        _judge_identity,
        _judge_retain_source,
        _judge_plugins,
        _judge_files,
        _judge_notes,
    )
    found = [finding for judge in judges for finding in judge(config)]
    return [*found, *_judge_wiring(config, expected)]


def _is_on(setting: Setting) -> bool:
    return setting.value.lower() in ("true", "1")


def _judge_anonymous(config: MosquittoConfig) -> Iterator[Finding]:
    written = config.all("allow_anonymous")
    if any(map(_is_on, written)):
        yield fault(
            "allow_anonymous",
            "`allow_anonymous true`: whoever shows nothing may come in",
            "write `allow_anonymous false`",
        )
    elif not written and not config.all("listener") and not config.all("port"):
        yield fault(
            "allow_anonymous",
            "without a listener Mosquitto listens on this host alone, and lets everybody in",
            "write `listener 1883` and `allow_anonymous false`",
        )
    else:
        yield fine("allow_anonymous", "nobody comes in without a login")


def _judge_listener_settings(config: MosquittoConfig) -> Iterator[Finding]:
    if any(map(_is_on, config.all("per_listener_settings"))):
        yield fault(
            "per_listener_settings",
            "`per_listener_settings true`: before 2.0.15 the plugin never hears of a revocation,"
            " and so lets nobody in",
            "write `per_listener_settings false`, and one `plugin` line above all listeners",
        )
    else:
        yield fine("per_listener_settings", "off, so the plugin looks after every listener")


def _judge_identity(config: MosquittoConfig) -> Iterator[Finding]:
    words = ("use_identity_as_username", "use_subject_as_username")
    on = [one for word in words for one in config.all(word) if _is_on(one)]
    for one in on:
        yield fault(
            one.word,
            f"`{one.word} true` on listener `{one.listener}`: its clients come in without a"
            " question to authd, have no rights, and can take client ids over",
            "remove the line; `require_certificate true` is enough, authd looks at the key",
        )
    if not on:
        yield fine("use_identity_as_username", "certificates are judged by authd, not by a name")


def _judge_retain_source(config: MosquittoConfig) -> Iterator[Finding]:
    written = config.all("check_retain_source")
    if written and all(map(_is_on, written)):
        yield fine("check_retain_source", "retained messages of a revoked device are held back")
        return
    yield fault(
        "check_retain_source",
        "`check_retain_source true` is not written, and no release up to 2.1 takes it for granted:"
        " what a revoked device left behind is delivered",
        "write `check_retain_source true`",
    )


def _judge_plugins(config: MosquittoConfig) -> Iterator[Finding]:
    ours = [one for one in config.plugins if PLUGIN_NAME in Path(one).name]
    if not ours:
        yield fault(
            "plugin",
            "no `plugin` line names authd's plugin",
            "take the lines of `authd broker snippet mosquitto`",
        )
    elif len(ours) > 1:
        yield fault("plugin", "authd's plugin is loaded more than once", "leave one `plugin` line")
    else:
        yield fine("plugin", f"`{ours[0]}` is to be loaded")
    for other in config.plugins:
        if other not in ours:
            yield fault(
                "other_plugin",
                f"`{other}` is another plugin: what it allows before authd is asked is allowed",
                "load authd alone",
            )


def _judge_files(config: MosquittoConfig) -> Iterator[Finding]:
    for word in ("password_file", "acl_file", "psk_file"):
        for one in config.all(word):
            yield fault(
                word,
                f"`{word} {one.value}` decides before authd is asked",
                "remove the line: what devices may do is granted with `authd grant`",
            )


def _judge_notes(config: MosquittoConfig) -> Iterator[Finding]:
    for one in config.all("connection"):
        yield note(
            "bridge",
            f"bridge `{one.value}` is opened by this broker: Mosquitto checks nothing that comes"
            " in over it, nor what it sends out",
            "bound its `topic` lines, and let the other broker grant its key no more than that",
        )
    for one in config.all("mount_point"):
        yield note("mount_point", f"grants must name topics with `{one.value}` in front")
    if not config.all("persistent_client_expiration"):
        yield note(
            "persistent_client_expiration",
            "durable sessions that nobody returns to are kept for ever",
            "write `persistent_client_expiration 7d`",
        )
    for one in config.all("listener"):
        if _is_plain_and_open(config, one):
            yield note(
                "listener",
                f"listener `{one.value}` speaks plain TCP to other hosts: device passwords can be"
                " read on the way",
                "use TLS wherever the network is not yours",
            )


def _is_plain_and_open(config: MosquittoConfig, listener: Setting) -> bool:
    address = listener.value.partition(" ")[2].strip()
    own = {one.word for one in config.settings if one.listener == listener.value}
    return "certfile" not in own and not address.startswith(_LOOPBACK)


def _judge_wiring(config: MosquittoConfig, expected: Expected) -> Iterator[Finding]:
    name, path = config.authd_broker, config.authd_socket
    if not any(PLUGIN_NAME in Path(one).name for one in config.plugins):
        return
    if name not in expected.names:
        known = ", ".join(f"`{one}`" for one in expected.names) or "none"
        yield fault(
            "plugin_opt_authd_broker",
            f"the plugin goes by `{name}`; entries of kind `mosquitto` in authd.toml: {known}",
            "write the name of an entry",
        )
    if (path or "/run/authd-mqtt/broker.sock") != expected.socket:
        yield fault(
            "plugin_opt_authd_socket",
            f"the plugin asks at `{path or 'its default'}`, the daemon listens at"
            f" `{expected.socket}`",
            f"write `plugin_opt_authd_socket {expected.socket}`",
        )

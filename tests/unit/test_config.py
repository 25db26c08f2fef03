"""The configuration: every key, every way to be wrong named by file and key, the environment."""

import os
from pathlib import Path

import pytest

from authd.config import (
    Settings,
    default_run_dir,
    default_state_dir,
    load_settings,
    parse_duration,
    parse_endpoint,
)
from authd.core.identity import DomainId
from authd.core.policy import DEFAULT_GRACE_S
from authd.errors import ConfigError, FormatError

DOMAIN = "A" * 22
BROKER = '[[broker]]\nname = "m"\nkind = "mosquitto"\naudiences = ["h:1883"]\n'
FULL = f"""
state_dir = "/state"
run_dir = "/run/x"
stale = "5m"
replicate = "none"
broker_group = "mqtt"
log = "text"
[listen]
http = "127.0.0.1:1"
grpc = "[::1]:2"
peer = "0.0.0.0:3"
advertise = "a.example:4"
[peers]
static = ["b.example:5"]
[embedded]
port = 6
[discovery]
mdns = true
[domains.guest]
id = "{DOMAIN}"
prefix = ["guest"]
hops = 2
stale = "strict"
[[guarded]]
prefix = "doors"
stale = "10s"
[[broker]]
name = "g"
kind = "go-auth"
audiences = ["h:1883", "[::1]:1883"]
on_revoke = "publish"
evict = "takeover"
evict_address = "127.0.0.1:1883"
prefixes = ["site/a/#"]
"""


def load(tmp_path: Path, text: str, **environ: str) -> Settings:
    path = tmp_path / "authd.toml"
    path.write_text(text, "utf-8")
    return load_settings(path, environ=environ)


def test_every_key_is_read(tmp_path: Path) -> None:
    settings = load(tmp_path, FULL)
    assert (settings.state_dir, settings.run_dir) == (Path("/state"), Path("/run/x"))
    assert (settings.http, settings.grpc, settings.peer) == ("127.0.0.1:1", "[::1]:2", "0.0.0.0:3")
    assert (settings.advertise, settings.static_peers) == ("a.example:4", ("b.example:5",))
    assert (settings.stale_s, settings.replicate, settings.log_format) == (300, "none", "text")
    assert (settings.broker_group, settings.embedded_port) == ("mqtt", 6)
    assert settings.mdns
    broker = settings.brokers[0]
    assert (broker.name, broker.kind, broker.on_revoke) == ("g", "go-auth", "publish")
    assert (broker.endpoints, broker.evict_address) == (("h:1883", "[::1]:1883"), "127.0.0.1:1883")
    assert broker.prefixes == ("site/a/#",)
    guest = settings.domains[0]
    assert (guest.name, guest.policy.hops, guest.policy.grace_s) == ("guest", 2, 0)
    assert [one.topic_filter for one in guest.policy.scope] == ["guest/#"]
    guard = settings.guarded[0]
    assert (guard.topic_filter, guard.grace_s) == ("doors/#", 10)


def test_an_empty_file_means_the_defaults_and_no_broker(tmp_path: Path) -> None:
    settings = load(tmp_path, "")
    assert settings.state_dir == tmp_path
    assert settings.http == "127.0.0.1:8181", "loopback alone"
    assert settings.brokers == ()
    assert not settings.mdns, "nothing is shown on the link unasked"
    own = DomainId(bytes(16))
    policy = settings.policy(own)
    assert list(policy.domains) == [own]
    assert policy.domain(own).grace_s == DEFAULT_GRACE_S


def test_the_own_domain_keeps_a_policy_that_was_written_down(tmp_path: Path) -> None:
    settings = load(tmp_path, FULL)
    own = DomainId(bytes(16))
    assert settings.policy(own).domain(own).grace_s == 0


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('stael = "1h"', "stael"),
        ("[listen]\nhttps = 1", "listen.https"),
        ("[peers]\nstatics = []", "peers.statics"),
        ("[embedded]\nports = 1", "embedded.ports"),
        ("[discovery]\nmndns = true", "discovery.mndns"),
        (f'[domains.a]\nid = "{DOMAIN}"\nprefix = ["x"]\nhop = 1', "domains.a.hop"),
        ('[[guarded]]\nprefix = "x"\nkay = 2', "guarded[0].kay"),
        (BROKER + "evict_addres = 1", "broker[0].evict_addres"),
        (BROKER + 'evict_address = "127.0.0.1:1"', "broker[0].evict_address"),
    ],
)
def test_an_unknown_key_is_refused_with_file_and_key(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value) == f"`{tmp_path / 'authd.toml'}`: `{key}` is unknown"


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("state_dir = 1", "state_dir"),
        ("run_dir = []", "run_dir"),
        ("stale = 60", "stale"),
        ("stale = true", "stale"),
        ('stale = "1 hour"', "stale"),
        ('stale = "0s"', "stale"),
        ('stale = "-1h"', "stale"),
        ('stale = "1h "', "stale"),
        ('replicate = "some"', "replicate"),
        ("replicate = true", "replicate"),
        ('log = "xml"', "log"),
        ("listen = 1", "listen"),
        ("peers = []", "peers"),
        ("domains = 1", "domains"),
        ("broker = 1", "broker"),
        ("[broker]\nname = 1", "broker"),
        ("broker = [1]", "broker[0]"),
        ('[listen]\nhttp = "HOST:1"', "listen.http"),
        ('[listen]\nhttp = "host"', "listen.http"),
        ('[listen]\npeer = "host:65536"', "listen.peer"),
        ('[listen]\nadvertise = ""', "listen.advertise"),
        ("[listen]\ngrpc = 8182", "listen.grpc"),
        ("[peers]\nstatic = [1]", "peers.static"),
        ('[peers]\nstatic = "h:1"', "peers.static"),
        ('[peers]\nstatic = ["h"]', "peers.static"),
        ("[embedded]\nport = true", "embedded.port"),
        ("[discovery]\nmdns = 1", "discovery.mdns"),
        ('[discovery]\nmdns = "on"', "discovery.mdns"),
        ("[embedded]\nport = 0", "embedded.port"),
        ("[embedded]\nport = 65536", "embedded.port"),
        ("[domains]\na = 1", "domains.a"),
        ('[domains.a]\nprefix = ["x"]', "domains.a.id"),
        ('[domains.a]\nid = "x"\nprefix = ["x"]', "domains.a"),
        (f'[domains.a]\nid = "{DOMAIN}"', "domains.a.prefix"),
        (f'[domains.a]\nid = "{DOMAIN}"\nprefix = ["x/#"]', "domains.a"),
        (f'[domains.a]\nid = "{DOMAIN}"\nprefix = ["$share/x"]', "domains.a"),
        (f'[domains.a]\nid = "{DOMAIN}"\nprefix = ["x"]\nhops = -1', "domains.a.hops"),
        ("[[guarded]]\nstale = 1", "guarded[0].prefix"),
        ('[[guarded]]\nprefix = "+x"', "guarded[0].prefix"),
        ('[[broker]]\nkind = "mosquitto"', "broker[0].name"),
        ('[[broker]]\nname = "A b"', "broker[0].name"),
        ('[[broker]]\nname = "a.b"', "broker[0].name"),
        (BROKER + BROKER, "broker[1].name"),
        ('[[broker]]\nname = "m"\nkind = "emq"', "broker[0].kind"),
        ('[[broker]]\nname = "m"\nkind = "mosquitto"', "broker[0].audiences"),
        ('[[broker]]\nname = "m"\nkind = "mosquitto"\naudiences = []', "broker[0].audiences"),
        (
            '[[broker]]\nname = "m"\nkind = "mosquitto"\naudiences = ["H:1"]',
            "broker[0].audiences",
        ),
        (
            f'[[broker]]\nname = "m"\nkind = "mosquitto"\naudiences = {["h:1"] * 9}',
            "broker[0].audiences",
        ),
        (BROKER + 'on_revoke = "ignore"', "broker[0].on_revoke"),
        (BROKER + 'evict = "kick"', "broker[0].evict"),
        (BROKER + 'evict = "takeover"', "broker[0].evict_address"),
        (BROKER + 'prefixes = ["a/#/b"]', "broker[0].prefixes"),
        (BROKER + "prefixes = [1]", "broker[0].prefixes"),
        (BROKER + "prefixes = [" + '"a",' * 9 + "]", "broker[0].prefixes"),
    ],
)
def test_a_wrong_value_is_refused_with_file_and_key(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"`{tmp_path / 'authd.toml'}`: `{key}` "), caught.value


@pytest.mark.parametrize(
    "text",
    ['[[guarded]]\nprefix = "x/#"', f'[domains.a]\nid = "{DOMAIN}"\nprefix = ["x/#"]'],
)
def test_a_prefix_with_a_wildcard_is_named_as_it_was_written(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match="`x/#`: write it without wildcards"):
        load(tmp_path, text)


@pytest.mark.parametrize("address", ["10.0.0.1:1883", "broker.example:1883", "[::2]:1883"])
def test_a_takeover_goes_over_loopback_alone(tmp_path: Path, address: str) -> None:
    text = BROKER + f'evict = "takeover"\nevict_address = "{address}"'
    with pytest.raises(ConfigError, match="loopback"):
        load(tmp_path, text)


@pytest.mark.parametrize("run_dir", [".", "run", "a/../run"])
def test_the_sockets_never_lie_in_the_state_directory(tmp_path: Path, run_dir: str) -> None:
    with pytest.raises(ConfigError, match="run_dir"):
        load(tmp_path, f'run_dir = "{tmp_path / run_dir}"')


@pytest.mark.parametrize("text", ["a = ", "[", "a = 1\na = 2", "\x00", 'a = "\\ud800"'])
def test_a49_what_is_no_toml_is_refused_with_the_file(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=r"authd\.toml"):
        load(tmp_path, text)


def test_a49_a_file_that_cannot_be_read_is_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="authd init"):
        load_settings(tmp_path / "authd.toml", environ={})
    with pytest.raises(ConfigError, match=str(tmp_path)):
        load_settings(tmp_path, environ={})
    (tmp_path / "latin").write_bytes(b'a = "\xff"')
    with pytest.raises(ConfigError, match="latin"):
        load_settings(tmp_path / "latin", environ={})


def test_the_environment_overrides_addresses_and_run_dir_whatever_the_file_says(
    tmp_path: Path,
) -> None:
    for text in (FULL, ""):
        settings = load(
            tmp_path,
            text,
            AUTHD_HTTP="127.0.0.1:11",
            AUTHD_GRPC="127.0.0.1:12",
            AUTHD_PEER="127.0.0.1:13",
            AUTHD_RUN_DIR="/run/other",
        )
        found = (settings.http, settings.grpc, settings.peer)
        assert found == ("127.0.0.1:11", "127.0.0.1:12", "127.0.0.1:13")
        assert settings.run_dir == Path("/run/other")


def test_a_wrong_variable_is_refused_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="AUTHD_HTTP"):
        load(tmp_path, FULL, AUTHD_HTTP="everywhere")


@pytest.mark.parametrize(
    ("text", "seconds"), [("1s", 1), ("90s", 90), ("2h", 7_200), ("3d", 259_200)]
)
def test_durations_are_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "1", "s", "01s", "1w", "1_0s", "1.5h", "\u0661s", "10000000s", "1s\n"]
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_duration(text)


@pytest.mark.parametrize("text", ["h:1", "a-b.c:65535", "127.0.0.1:0", "[fe80::1]:1"])
def test_endpoints_are_accepted_as_they_are(text: str) -> None:
    assert parse_endpoint(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "h",
        "h:",
        ":1",
        "h:65536",
        "h:1_0",
        "h: 1",
        "H:1",
        "h/x:1",
        "a_b:1",
        "h:\u0661",
        "h" * 90 + ":1",
    ],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_endpoint(text)


@pytest.mark.parametrize("uid", [0, 1_000])
def test_default_places_depend_on_who_runs_it(uid: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: uid)
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    expected = {
        0: ("/var/lib/authd-mqtt", "/run/authd-mqtt"),
        1_000: (
            "/home/someone/.local/share/authd-mqtt",
            "/tmp/authd-mqtt-1000/authd-mqtt",  # noqa: S108 - what is computed, not used
        ),
    }
    assert (str(default_state_dir()), str(default_run_dir())) == expected[uid]


@pytest.mark.parametrize("k", [0, 9, -1])
def test_an_impossible_number_of_disjoint_paths_is_refused(tmp_path: Path, k: int) -> None:
    path = tmp_path / "authd.toml"
    path.write_text(f'[[guarded]]\nprefix = "site/door"\nk = {k}\n', "utf-8")
    with pytest.raises(ConfigError, match="k"):
        load_settings(path, environ={})


def test_a_guarded_prefix_asks_for_disjoint_paths(tmp_path: Path) -> None:
    path = tmp_path / "authd.toml"
    path.write_text('[[guarded]]\nprefix = "site/door"\nk = 2\nstale = "strict"\n', "utf-8")
    (guard,) = load_settings(path, environ={}).guarded
    assert (guard.topic_filter, guard.k, guard.grace_s) == ("site/door/#", 2, 0)


def test_a_missing_file_wants_init_and_an_unreadable_one_another_user(tmp_path: Path) -> None:
    path = tmp_path / "authd.toml"
    with pytest.raises(ConfigError, match="run `authd init` first"):
        load_settings(path, environ={})
    path.write_text("", "utf-8")
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:
            os.seteuid(65_534)
        with pytest.raises(ConfigError, match="as the user that the daemon runs as") as refused:
            load_settings(path, environ={})
    finally:
        os.seteuid(user)
    assert "authd init" not in str(refused.value)
    with pytest.raises(ConfigError) as odd:
        load_settings(tmp_path, environ={})
    assert "authd init" not in str(odd.value)

"""Commands that need no daemon: what they make, refuse, print, and never print."""

import base64
import json
import os
import socket
import sqlite3
import tarfile
import threading
from pathlib import Path

import pytest

from authd.config import load_settings
from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.proofs import UnverifiedPop, parse_credentials, password_key
from authd.device import DeviceKey
from authd.service.issuing import decode_ticket, encode_ticket
from authd.store.keystore import AUTHORITY, NODE, ROOT, Keystore
from authd.store.sqlite import SqliteStore
from tests.unit.cli.conftest import Run
from tests.world import Domain

# --- init -------------------------------------------------------------------------------------


def test_init_makes_a_domain_and_says_what_to_do_next(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("words\n", "utf-8")
    done = run("init", f"--passphrase-file={tmp_path / 'pass'}")
    assert done.code == 0
    assert set(done.json) == {
        "domain",
        "authority",
        "break_glass",
        "state",
        "root_key",
        "root_encrypted",
    }
    assert done.json["root_encrypted"] is True
    state = tmp_path / "state"
    assert state.stat().st_mode & 0o777 == 0o700
    assert load_settings(state / "authd.toml").brokers
    keystore = Keystore(state)
    assert keystore.names() == ["authority", "heartbeat", "node", "publisher", "root"]
    keystore.load(ROOT, passphrase=b"words")
    for name in keystore.names():
        if name != ROOT:
            assert encode_base64url(keystore.load(name).seed) not in done.out
    revocation = run("inspect", done.json["break_glass"]).json
    assert (revocation["kind"], revocation["target_kind"]) == ("revoke", "key")


def test_init_never_touches_an_existing_domain(run: Run, domain: Path) -> None:
    before = (domain / "keys" / "root.key").read_bytes()
    done = run("init", "--unencrypted-root")
    assert (done.code, done.json["reason"]) == (2, "conflict")
    assert (domain / "keys" / "root.key").read_bytes() == before


@pytest.mark.parametrize("option", ["--http=HOST:1", "--peer=x", "--grpc=", "--mosquitto-port=0"])
def test_a_wrong_address_leaves_nothing_behind_that_blocks_the_next_try(
    run: Run, tmp_path: Path, option: str
) -> None:
    assert run("init", "--unencrypted-root", option).code == 2
    assert not (tmp_path / "state" / "keys").exists()
    assert run("init", "--unencrypted-root").code == 0


def test_an_odd_host_name_still_makes_a_configuration_that_loads(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "My_Host")
    assert run("init", "--unencrypted-root").code == 0
    endpoints = load_settings(tmp_path / "state" / "authd.toml").brokers[0].endpoints
    assert endpoints == ("localhost:1883", "127.0.0.1:1883")


def test_an_empty_passphrase_file_is_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "pass").write_text("\n", "utf-8")
    assert run("init", f"--passphrase-file={tmp_path / 'pass'}").code == 2
    assert run("init", f"--passphrase-file={tmp_path / 'missing'}").code == 2


# --- invite and join --------------------------------------------------------------------------


def test_a_ticket_comes_in_by_stdin_file_or_argument_and_makes_a_daemon(
    run: Run, domain: Path, tmp_path: Path
) -> None:
    made = run("invite", "--operator", "--name=second")
    assert made.code == 0
    assert set(made.json) == {"ticket", "node", "operator", "peers", "published"}
    ticket = made.json["ticket"]
    (tmp_path / "ticket").write_text(ticket + "\n", "ascii")
    for number, argument in enumerate(("-", f"@{tmp_path / 'ticket'}", ticket)):
        state = tmp_path / f"joined-{number}"
        stdin = ticket if argument == "-" else ""
        done = run("join", argument, f"--state={state}", stdin=stdin)
        assert done.code == 0, done.out
        assert (done.json["node"], done.json["operator"]) == (made.json["node"], True)
        assert Keystore(state).names() == ["heartbeat", "node"]
        seed = decode_ticket(decode_base64url(ticket)).seed
        assert encode_base64url(seed) not in done.out
        assert run("join", "-", f"--state={state}", stdin=ticket).code == 2
    assert json.loads((domain / "node.json").read_text("utf-8"))["networked"] is True


def test_a_ticket_holds_the_own_domains_roots_alone(run: Run, domain: Path, tmp_path: Path) -> None:
    stranger = Domain(name="stranger")
    with SqliteStore(domain / "authd.db") as store:
        own = store.load_statements()[0]
        foreign = type(own)(
            kind=own.kind,
            statement_id=stranger.roots[0].statement_id,
            data=stranger.roots[0].encoded,
            source="local",
            received_at=0,
        )
        store.save_statements([foreign], durable=True)
    ticket = run("invite").json["ticket"]
    assert len(decode_ticket(decode_base64url(ticket)).roots) == 1
    joined = run("join", "-", f"--state={tmp_path / 'joined'}", stdin=ticket)
    assert joined.code == 0, joined.out


@pytest.mark.parametrize("change", ["seed", "domain", "grants", "roots", "text", "empty"])
def test_a_damaged_ticket_is_refused_and_not_repeated(
    run: Run, domain: Path, tmp_path: Path, change: str
) -> None:
    text = run("invite").json["ticket"]
    ticket = decode_ticket(decode_base64url(text))
    values = {name: getattr(ticket, name) for name in type(ticket).__slots__}
    damage: dict[str, object] = {
        "seed": bytes(32),
        "domain": bytes(16),
        "grants": (),
        "roots": (),
    }
    if change in damage:
        damaged = encode_base64url(encode_ticket(type(ticket)(**values | {change: damage[change]})))
    else:
        damaged = text[:-4] + "!" if change == "text" else ""
    done = run("join", "-", f"--state={tmp_path / 'joined'}", stdin=damaged)
    assert done.code == 2
    assert "error" in done.json
    if damaged:
        assert damaged not in done.out + done.err
    assert not (tmp_path / "joined" / "keys").exists()


def test_an_invitation_needs_an_address_that_others_can_dial(run: Run, tmp_path: Path) -> None:
    assert run("init", "--unencrypted-root").code == 0
    done = run("invite")
    assert done.code == 2
    assert "listen.advertise" in done.json["error"]


# --- devices ----------------------------------------------------------------------------------


def test_a_device_is_issued_into_the_outbox_and_its_key_shown_to_nobody(
    run: Run, domain: Path, tmp_path: Path
) -> None:
    done = run("device", "new", "lamp", "--pub=home/{name}/#", "--for=1h")
    assert done.code == 0
    assert done.json["published"] is False
    assert len(list((domain / "outbox").glob("*.bundle"))) == 1
    key = DeviceKey.load(tmp_path / "lamp.key")
    assert (tmp_path / "lamp.key").stat().st_mode & 0o777 == 0o600
    assert encode_base64url(key.key.seed) not in done.out + done.err
    assert [one.topic_filter for one in key.path[0].scope] == ["home/lamp/#"]
    again = run("device", "new", "lamp", "--pub=home/#")
    assert (again.code, again.json["reason"]) == (2, "conflict")
    taken = run("device", "new", "other", "--pub=home/#", f"--out={tmp_path / 'lamp.key'}")
    assert taken.code == 2
    assert DeviceKey.load(tmp_path / "lamp.key").username == key.username


def test_a_device_password_is_printed_once_and_kept_nowhere(run: Run, domain: Path) -> None:
    done = run("device", "new", "plug", "--pub=home/plug", "--password", "--client-id=plug")
    assert done.code == 0
    secret = done.json["password"]
    assert not (domain.parent / "plug.key").exists()
    seed = password_key(secret).seed
    traces = [secret.encode(), decode_base64url(secret), seed, encode_base64url(seed).encode()]
    for path in domain.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert not any(trace in data for trace in traces), path
    text = run("device", "new", "plug2", "--pub=home/plug", "--password", as_json=False)
    assert "shown once" in text.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("device", "new", "x"),
        ("device", "new", "x", "--pub=a/#/b"),
        ("device", "new", "x", "--pub=$share/g/a"),
        ("device", "new", "x", "--pub={nobody}"),
        ("device", "new", "../x", "--pub=a"),
        ("device", "new", "x", "--pub=a", "--for=2y"),
        ("device", "new", "x", "--pub=a", "--for=401d"),
        ("device", "new", "x", "--pub=a", "--depth=9"),
        ("device", "new", "x", "--pub=a", "--client-id=pump*"),
        ("device", "new", "x", "--pub=a", "--password", "--depth=1"),
        ("device", "new", "x", "--pub=a", "--issuer=missing"),
        ("grant", "nobody", "--pub=a"),
        ("grant", "domain:xyz", "--pub=a"),
        ("revoke", "nobody"),
        ("revoke", "grant:xyz"),
        ("password", "missing.key", "h:1"),
        ("publish", "missing"),
        ("inspect", "!"),
        ("inspect", ""),
        ("trust", "add", "A b", "A" * 22, "--prefix=x"),
        ("trust", "add", "a", "short", "--prefix=x"),
        ("trust", "add", "a", "A" * 22, "--prefix=x/#"),
        ("nonsense",),
        ("device", "new"),
        ("domain", "heartbeat", "add", "AAAA"),
        ("domain", "heartbeat", "add", "A" * 43),
    ],
    ids=" ".join,
)
def test_what_cannot_be_done_ends_with_2_and_one_sentence(
    run: Run, domain: Path, arguments: tuple[str, ...]
) -> None:
    done = run(*arguments)
    assert done.code == 2
    assert set(done.json) == {"error", "reason"}
    assert done.json["error"]
    plain = run(*arguments, as_json=False)
    assert (plain.code, plain.out) == (2, "")
    assert plain.err.startswith("authd: ")
    assert "Traceback" not in plain.err
    assert not (domain / "outbox").exists(), "nothing was issued"


def test_a_gateway_issues_offline_without_state(run: Run, domain: Path, tmp_path: Path) -> None:
    assert run("device", "new", "gw", "--pub=home/#", "--depth=1").code == 0
    bundle = tmp_path / "sensor.bundle"
    done = run(
        *("device", "new", "sensor", "--pub=home/s", "--issuer=gw.key"),
        *(f"--bundle={bundle}", f"--state={tmp_path / 'nowhere'}"),
    )
    assert done.code == 0, done.out
    sensor = DeviceKey.load(tmp_path / "sensor.key")
    assert len(sensor.path) == 2
    assert sensor.staple
    published = run("publish", str(bundle))
    assert published.json == {"statements": 1, "records": 1, "published": False}
    refused = run("device", "new", "p", "--pub=a", "--password", "--issuer=gw.key")
    assert refused.code == 2


def test_a_password_is_made_for_one_endpoint_and_moment(run: Run, domain: Path) -> None:
    assert run("device", "new", "lamp", "--pub=home/lamp").code == 0
    done = run("password", "lamp.key", "broker.example:1883")
    assert set(done.json) == {"username", "password", "client_id"}
    proof = parse_credentials(done.json["username"], done.json["password"])
    assert isinstance(proof, UnverifiedPop)
    shell = run("password", "lamp.key", "broker.example:1883", "--shell", as_json=False)
    assert shell.out.splitlines()[0] == f"AUTHD_USER={done.json['username']}"
    assert run("password", "lamp.key", "no-port").code == 2


def test_a_revocation_without_a_daemon_waits_in_the_outbox_and_ends_with_1(
    run: Run, domain: Path
) -> None:
    assert run("device", "new", "lamp", "--pub=home/lamp").code == 0
    done = run("revoke", "lamp")
    assert (done.code, done.json["state"]) == (1, "outbox")
    assert len(list((domain / "outbox").glob("*.bundle"))) == 2


@pytest.mark.parametrize("command", ["status", "sessions list", "revocations", "explain lamp"])
def test_asking_without_a_daemon_ends_with_2_and_says_what_to_start(
    run: Run, domain: Path, command: str
) -> None:
    assert run("device", "new", "lamp", "--pub=home/lamp").code == 0
    done = run(*command.split())
    assert (done.code, done.json["reason"]) == (2, "no_response")
    assert "authd up" in done.json["error"]


# --- inspect ----------------------------------------------------------------------------------


def secrets_of(state: Path) -> list[str]:
    keystore = Keystore(state)
    return [encode_base64url(keystore.load(name).seed) for name in keystore.names()]


def test_inspect_knows_each_thing_and_shows_no_secret(
    run: Run, domain: Path, tmp_path: Path
) -> None:
    assert run("device", "new", "lamp", "--pub=home/lamp", f"--bundle={tmp_path / 'b'}").code == 0
    device = DeviceKey.load(tmp_path / "lamp.key")
    with SqliteStore(domain / "authd.db") as store:
        root = encode_base64url(store.load_statements()[0].data)
    ticket = run("invite").json["ticket"]
    seed = decode_ticket(decode_base64url(ticket)).seed
    things = {
        "grant": encode_base64url(device.path[0].encoded),
        "root": root,
        "bundle": str(tmp_path / "b"),
        "ticket": ticket,
        "proof": device.password("h:1"),
    }
    secrets = [*secrets_of(domain), encode_base64url(device.key.seed), encode_base64url(seed)]
    for kind, thing in things.items():
        path = tmp_path / f"file-{kind}"
        path.write_text(thing + "\n", "ascii")
        for argument in (thing, thing if kind == "bundle" else str(path)):
            done = run("inspect", argument)
            assert done.code == 0, (kind, done.out)
            assert done.json["kind"] == kind
            assert not any(secret in done.out for secret in secrets)
    stapled = run("inspect", device.password("h:1", staple=True)).json
    assert (stapled["form"], len(stapled["stapled"])) == ("pop_path", 1)


def test_inspect_shows_the_public_half_of_a_key_file(
    run: Run, domain: Path, tmp_path: Path
) -> None:
    assert run("device", "new", "lamp", "--pub=home/lamp").code == 0
    device = DeviceKey.load(tmp_path / "lamp.key")
    done = run("inspect", "lamp.key")
    assert (done.json["kind"], done.json["key_id"]) == ("key file", device.username)
    assert [one["kind"] for one in done.json["path"]] == ["grant"]
    assert encode_base64url(device.key.seed) not in done.out
    node = run("inspect", str(domain / "keys" / "node.key"))
    assert node.json["key"] == encode_base64url(Keystore(domain).load(NODE).public)
    assert not any(secret in node.out for secret in secrets_of(domain))


def test_inspect_of_a_device_password_says_only_that_it_is_one(run: Run) -> None:
    secret = encode_base64url(b"sixteen bytes ok")
    done = run("inspect", secret)
    assert done.code == 2
    assert secret not in done.out + done.err


# --- trust ------------------------------------------------------------------------------------


def test_a_domain_is_added_once_and_listed(run: Run, domain: Path) -> None:
    done = run("trust", "add", "guest", "A" * 22, "--prefix=guest", "--stale=strict")
    assert done.code == 0
    assert set(done.json) == {"name", "domain", "prefix", "reloaded"}
    assert (domain / "authd.toml").stat().st_mode & 0o777 == 0o600
    again = run("trust", "add", "guest", "A" * 22, "--prefix=guest")
    assert (again.code, again.json["reason"]) == (2, "conflict")
    listed = run("trust", "list").json["domains"]
    assert [(one["name"], one["grace"]) for one in listed] == [
        ("(own)", "60 min"),
        ("guest", "strict"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [("--prefix=x", "--stale=soon"), ('--prefix=a"b',), ("--prefix=x", '--stale=1h"\nx = "')],
    ids=repr,
)
def test_a_configuration_that_would_not_load_is_rolled_back(
    run: Run, domain: Path, arguments: tuple[str, ...]
) -> None:
    before = (domain / "authd.toml").read_text("utf-8")
    done = run("trust", "add", "guest", "A" * 22, *arguments)
    assert (done.code, done.json["reason"]) == (2, "bad_config")
    assert (domain / "authd.toml").read_text("utf-8") == before


# --- backup -----------------------------------------------------------------------------------


def test_a_backup_holds_everything_and_restores_to_an_equal_store(
    run: Run, domain: Path, tmp_path: Path
) -> None:
    assert run("device", "new", "lamp", "--pub=home/lamp").code == 0
    target = tmp_path / "backup.tar.gz"
    done = run("backup", str(target))
    assert (done.code, set(done.json)) == (0, {"file", "bytes"})
    assert target.stat().st_mode & 0o777 == 0o600
    restored = tmp_path / "restored"
    with tarfile.open(target) as archive:
        archive.extractall(restored, filter="data")
    with SqliteStore(domain / "authd.db") as old, SqliteStore(restored / "authd.db") as new:
        assert new.load_statements() == old.load_statements()
        assert new.meta("schema_version") == old.meta("schema_version")
    for name in ("node.json", "authd.toml", "subjects/lamp.json", "keys/root.key"):
        assert (restored / name).read_bytes() == (domain / name).read_bytes()
        assert (restored / name).stat().st_mode & 0o777 == 0o600
    assert Keystore(restored).load(AUTHORITY).public == Keystore(domain).load(AUTHORITY).public
    again = run("backup", str(target))
    assert (again.code, again.json["reason"]) == (2, "conflict")


def test_a_backup_that_fails_leaves_no_half_of_one(run: Run, domain: Path, tmp_path: Path) -> None:
    (domain / "authd.db").write_bytes(b"not a database" * 100)
    target = tmp_path / "backup.tar.gz"
    assert run("backup", str(target)).code == 2
    assert not target.exists()
    assert run("backup", str(tmp_path / "missing" / "x")).code == 2


# --- errors -----------------------------------------------------------------------------------


def test_a_bug_in_a_command_is_an_error_and_no_answer(
    run: Run, domain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authd.cli.context.Context.settings", lambda _: 1 // 0)
    done = run("status")
    assert (done.code, done.json["reason"]) == (2, "internal")
    assert "ZeroDivisionError" in done.json["error"]


def test_a49_a_damaged_store_configuration_or_node_file_ends_with_2(run: Run, domain: Path) -> None:
    for name, command in (
        ("authd.toml", "status"),
        ("node.json", "trust list"),
        ("authd.db", "invite"),
    ):
        before = (domain / name).read_bytes()
        (domain / name).write_bytes(b"\xff damaged" * 100)
        done = run(*command.split())
        assert done.code == 2, name
        assert name in done.json["error"]
        (domain / name).write_bytes(before)


# --- who answers on the socket ----------------------------------------------------------------


class Impostor:
    """Somebody who answers on the operator's socket with what he likes."""

    def __init__(self, path: Path, answer: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._answer = answer
        self.heard = b""
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._socket.accept()
        connection.settimeout(1)
        try:
            while not self.heard.endswith(b"}") and (heard := connection.recv(65_536)):
                self.heard += heard
            connection.sendall(self._answer)
        except OSError:
            return
        finally:
            connection.close()

    def close(self) -> None:
        self._thread.join(5)
        self._socket.close()


def http_answer(body: bytes, status: str = "200 OK") -> bytes:
    return b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status.encode(), len(body), body)


@pytest.mark.parametrize(
    "answer",
    [
        http_answer(b"[]"),
        http_answer(b'"in force"'),
        http_answer(b'{"reason":"made up","error":"x"}', "403 Forbidden"),
        http_answer(b'{"error":"x"}', "500 X"),
        http_answer(b"[]", "403 Forbidden"),
    ],
)
def test_odd_answers_of_a_daemon_are_errors(
    run: Run, domain: Path, tmp_path: Path, answer: bytes
) -> None:
    impostor = Impostor(tmp_path / "run" / "admin.sock", answer)
    done = run("revocations")
    impostor.close()
    assert (done.code, done.json["reason"]) == (2, "rejected")


def test_a47_another_user_on_the_socket_is_not_believed(
    run: Run, domain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("device", "new", "lamp", "--pub=home/lamp").code == 0
    forged = http_answer(b'{"state":"in force","cut":[],"kind":"key","target":"x"}')
    impostor = Impostor(tmp_path / "run" / "admin.sock", forged)
    monkeypatch.setattr("authd.cli.context.Context._owners", lambda _: frozenset({4_242}))
    done = run("revoke", "lamp")
    impostor.close()
    assert done.code == 2
    assert f"user {os.geteuid()} answers" in done.json["error"]
    assert impostor.heard == b""


def test_keys_by_name_id_and_value_are_the_same_key(run: Run, domain: Path) -> None:
    device = run("device", "new", "lamp", "--pub=home/lamp").json
    ids = {run("grant", one, "--sub=home/x").json["subject"] for one in ("lamp", device["key"])}
    assert ids == {device["key_id"]}
    assert run("grant", device["key_id"], "--sub=home/x").json["subject"] == device["key_id"]
    weak = base64.urlsafe_b64encode(bytes(32)).decode().rstrip("=")
    assert run("grant", weak, "--sub=a").json["reason"] == "weak_key"


def test_the_store_of_a_new_domain_is_private(domain: Path) -> None:
    assert (domain / "authd.db").stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(domain / "authd.db") as database:
        assert database.execute("SELECT count(*) FROM statements").fetchone()[0] == 2
    database.close()

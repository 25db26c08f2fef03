"""Commands that ask a real daemon; its reload, outbox, start and stop; and what it writes down."""

import base64
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.proofs import password_key
from authd.demo.clients import Client
from authd.demo.stage import Site, Stage, wait_until
from authd.device import DeviceKey
from authd.node_file import load_node_file
from authd.store.keystore import Keystore
from tests.stages import go_auth_base, lone_site
from tests.unit.cli.conftest import Run


def hang_up(site: Site, event: str) -> str:
    """Have a daemon read its configuration again; return what it said."""
    assert site.daemon is not None
    assert site.daemon.child is not None
    before = len(site.log().read_text("utf-8"))
    site.daemon.child.send_signal(signal.SIGHUP)
    wait_until(
        lambda: event in site.log().read_text("utf-8")[before:],
        timeout_s=5,
        what=event,
    )
    return site.log().read_text("utf-8")[before:]


def get(site: Site, path: str) -> tuple[int, dict[str, Any]]:
    with urllib.request.urlopen(f"http://127.0.0.1:{site.http_port}{path}", timeout=5) as answer:
        return answer.status, json.loads(answer.read())


# --- commands ---------------------------------------------------------------------------------


def test_every_question_has_its_shape_and_exit_code(run: Run, site: Site) -> None:
    status = run("status", site=site)
    assert status.code == 0
    assert {"node", "domain", "domains", "grants", "sessions", "brokers", "alarms"} <= set(
        status.json,
    )
    device = run("device", "new", "asker", "--pub=site/asker", site=site)
    assert device.json["published"] is True
    allowed = run("explain", "asker", "publish", "site/asker", site=site)
    assert (allowed.code, allowed.json["effect"], allowed.json["matched"]) == (
        0,
        "allow",
        "site/asker",
    )
    denied = run("explain", "asker", "publish", "site/other", site=site)
    assert (denied.code, denied.json["reason"]) == (1, "not_granted")
    why = run("trust", "why", "asker", site=site)
    assert (why.code, len(why.json["paths"])) == (0, 1)
    nobody = encode_base64url(password_key("A" * 22).public)
    unknown = run("trust", "why", nobody, site=site)
    assert (unknown.code, unknown.json["failures"][0]["reason"]) == (1, "unknown_key")
    assert run("sessions", "list", site=site).json == {"sessions": []}
    assert run("explain", "asker", "--broker=nowhere", site=site).json["reason"] == (
        "unknown_broker"
    )
    for wrong in ("explain asker delete x", "explain asker --form=bearer"):
        assert run(*wrong.split(), site=site).code == 2
    for question in ("status", "sessions list", "revocations", "trust why asker"):
        plain = run(*question.split(), site=site, as_json=False)
        assert plain.code == 0
        assert plain.out
        assert "Traceback" not in plain.err


def test_a_revocation_is_in_force_when_the_command_ends(run: Run, site: Site) -> None:
    device = run("device", "new", "goner", "--pub=site/goner", site=site).json
    done = run("revoke", "goner", "--reason=lost", site=site)
    assert (done.code, done.json["state"], done.json["kind"]) == (0, "in force", "key")
    listed = run("revocations", site=site).json["revocations"]
    assert [(one["target"], one["reason"]) for one in listed if one["reason"]] == [
        (device["key_id"], "lost"),
    ]
    explained = run("explain", "goner", site=site)
    assert (explained.code, explained.json["reason"]) == (1, "revoked")
    assert "lost" in explained.json["detail"]
    again = run("grant", "goner", "--sub=site/x", site=site)
    assert (again.code, again.json["reason"]) == (2, "revoked")
    run("device", "new", "stays", "--pub=site/stays", site=site)
    grant = run("grant", "stays", "--sub=site/x", site=site).json["grant"]
    one = run("revoke", f"grant:{grant}", site=site)
    assert (one.code, one.json["kind"], one.json["target"]) == (0, "grant", grant)


def test_the_daemon_refuses_what_it_cannot_take_with_its_reason(
    run: Run, site: Site, tmp_path: Path
) -> None:
    (tmp_path / "bad.bundle").write_bytes(b"junk")
    assert run("publish", str(tmp_path / "bad.bundle"), site=site).json["reason"] == "malformed"


# --- reload -----------------------------------------------------------------------------------


@pytest.fixture
def config(site: Site) -> Iterator[Path]:
    """The daemon's configuration, put back and read again at the end."""
    path = site.state / "authd.toml"
    before = path.read_text("utf-8")
    yield path
    path.write_text(before, "utf-8")
    hang_up(site, '"reloaded"')


@pytest.mark.parametrize("damage", ['stael = "1h"\n', "[[broker]]\n", "= =", "\x00"])
def test_a49_a_bad_configuration_at_sighup_leaves_the_last_good_in_force(
    run: Run, site: Site, config: Path, damage: str
) -> None:
    good = config.read_text("utf-8")
    before = run("status", site=site).json["brokers"]
    config.write_text(damage + good, "utf-8")
    assert "authd.toml" in hang_up(site, "reload failed")
    config.unlink()
    assert "No such file" in hang_up(site, "reload failed")
    status, ready = get(site, "/readyz")
    assert (status, ready["problems"]) == (200, [])
    config.write_text(good, "utf-8")
    assert run("status", site=site).json["brokers"] == before


def test_a_new_broker_entry_has_a_secret_and_a_certificate_at_once(
    run: Run, site: Site, config: Path
) -> None:
    entry = '\n[[broker]]\nname = "late"\nkind = "go-auth"\naudiences = ["127.0.0.1:9"]\n'
    config.write_text(config.read_text("utf-8") + entry, "utf-8")
    hang_up(site, '"reloaded"')
    names = [one["name"] for one in run("status", site=site).json["brokers"]]
    assert "late" in names
    request = urllib.request.Request(  # noqa: S310 - loopback
        go_auth_base(site, "late") + "/go-auth/superuser",
        data=b'{"username":"x"}',
        headers={"Content-Type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=5)  # noqa: S310 - loopback
    assert refused.value.code == 403
    assert "not_granted" in refused.value.read().decode()


# --- outbox -----------------------------------------------------------------------------------


def test_one_bad_bundle_in_the_outbox_is_put_aside_and_the_next_is_taken(
    run: Run, site: Site, tmp_path: Path
) -> None:
    made = run(
        *("device", "new", "boxed", "--pub=site/boxed", f"--bundle={tmp_path / 'b'}"),
        site=site,
    )
    outbox = site.state / "outbox"
    outbox.mkdir(exist_ok=True)
    (outbox / "0-directory.bundle").mkdir()
    (outbox / "1-junk.bundle").write_bytes(b"junk")
    (outbox / "2-good.bundle").write_bytes((tmp_path / "b").read_bytes())
    wait_until(
        lambda: not list(outbox.glob("*.bundle")),
        timeout_s=10,
        what="the outbox is drained",
    )
    kept = sorted(one.name for one in outbox.glob("*.refused"))
    assert kept == ["0-directory.refused", "1-junk.refused"]
    assert run("explain", made.json["key_id"], site=site).code == 0


# --- what is written down ---------------------------------------------------------------------


def contents(state: Path, *, without: frozenset[str]) -> Iterator[tuple[Path, bytes]]:
    for path in state.rglob("*"):
        if path.is_file() and not without & set(path.relative_to(state).parts):
            yield path, path.read_bytes()


def spellings(what: str, secret: bytes) -> dict[str, bytes]:
    """Return how a secret may be written down, by what to call it."""
    return {
        what: secret,
        f"{what}, base64url": encode_base64url(secret).encode(),
        f"{what}, base64": base64.b64encode(secret),
        f"{what}, hex": secret.hex().encode(),
    }


def test_a54_no_password_proof_or_private_key_is_in_any_log_or_store(
    run: Run, site: Site, tmp_path: Path
) -> None:
    run("device", "new", "secretive", "--pub=site/secretive", site=site)
    plug = run("device", "new", "plug", "--pub=site/plug", "--password", site=site).json
    device = DeviceKey.load(tmp_path / "secretive.key")
    proof = device.password(site.endpoint)
    secret = plug["password"]
    wrong = encode_base64url(b"some wrong bytes")
    for username, password, client_id, accepted in (
        (device.username, proof, device.client_id, 1),
        (device.username, proof, device.client_id, 0),
        (plug["key_id"], secret, plug["client_id"], 1),
        ("lamp", wrong, plug["client_id"], 0),
    ):
        with Client(
            site.mqtt_port, client_id=client_id, username=username, password=password
        ) as client:
            assert client.accepted == accepted
            client.publish("site/plug", "x")
    body = json.dumps(
        {
            "username": device.username,
            "password": device.password(site.other_endpoint),
            "clientid": 7,
        },
    )
    base = go_auth_base(site)
    for data in (body, "{"):
        request = urllib.request.Request(base + "/go-auth/user", data=data.encode())  # noqa: S310 - loopback
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(request, timeout=5)  # noqa: S310 - loopback
    with socket.create_connection(("127.0.0.1", site.http_port), timeout=5) as raw:
        path = base.partition(str(site.http_port))[2]
        raw.sendall(f"POST {path}/us\x01er HTTP/1.1\r\n\r\n".encode("latin-1"))
        assert raw.recv(100).startswith(b"HTTP/1.0 400")

    keystore = Keystore(site.state)
    seeds = [device.key.seed, password_key(secret).seed, password_key(wrong).seed]
    seeds += [keystore.load(name).seed for name in keystore.names() if name != "root"]
    signature = decode_base64url(proof)[-64:]
    traces = {
        "proof": proof.encode(),
        "signature": signature,
        "device password": secret.encode(),
        "device password, raw": decode_base64url(secret),
        "wrong password": wrong.encode(),
        "broker secret": load_node_file(site.state).broker_secrets["old"].encode(),
    }
    for number, seed in enumerate(seeds):
        traces |= spellings(f"seed {number}", seed)
    log = site.log().read_bytes()
    assert b'"event": "connect"' in log
    for what, trace in traces.items():
        assert trace not in log, what
        for file, stored in contents(site.state, without=frozenset({"keys", "tls", "node.json"})):
            assert trace not in stored, (what, file)
    with sqlite3.connect(f"file:{site.state / 'authd.db'}?mode=ro", uri=True) as database:
        assert database.execute("SELECT count(*) FROM nonces").fetchone()[0] >= 1
    database.close()


def test_every_decision_is_logged_once_with_its_reason(site: Site) -> None:
    decisions = site.decisions()
    assert decisions
    assert all(
        {"broker", "client_id", "effect", "reason", "elapsed_ms"} <= set(one) for one in decisions
    )
    lines = site.log().read_text("utf-8").splitlines()
    assert not [line for line in lines if "Traceback" in line]


def test_metrics_and_health_are_served(site: Site) -> None:
    assert get(site, "/livez") == (200, {"ok": True})
    url = f"http://127.0.0.1:{site.http_port}/metrics"
    with urllib.request.urlopen(url, timeout=5) as answer:
        text = answer.read().decode()
    assert re.search(r'^authd_state\{what="alarms"\} 0\.0$', text, re.MULTILINE)


# --- starting and stopping --------------------------------------------------------------------


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path / "stage", mosquitto=None, plugin=None) as stage:
        yield stage


def up(site: Site, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "authd", "up"],
        env={
            **os.environ,
            "AUTHD_STATE": str(site.state),
            "AUTHD_RUN_DIR": str(site.run_dir),
            **environment,
        },
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_a_daemon_that_cannot_start_ends_with_2_and_one_sentence(stage: Stage) -> None:
    site = lone_site(stage, start=False)
    with socket.create_server(("127.0.0.1", site.http_port)):
        taken = up(site)
    assert taken.returncode == 2
    assert "listen.http" in taken.stderr.splitlines()[-1]
    assert "Traceback" not in taken.stderr
    site.run_dir.chmod(0o777)
    opened = up(site)
    assert opened.returncode == 2
    assert "others may write" in opened.stderr
    site.run_dir.chmod(0o755)
    (site.state / "keys" / "node.key").chmod(0o644)
    readable = up(site)
    assert readable.returncode == 2
    assert "chmod 600" in readable.stderr
    (site.state / "keys" / "node.key").chmod(0o600)
    (site.state / "authd.db").write_bytes(b"junk" * 1_000)
    damaged = up(site)
    assert damaged.returncode == 2
    assert "authd.db" in damaged.stderr


def test_a_clean_stop_is_no_unclean_one_and_a_damaged_floor_stops_the_start(stage: Stage) -> None:
    site = lone_site(stage)
    assert site.daemon is not None
    site.daemon.stop()
    assert site.daemon.child is not None
    assert site.daemon.child.returncode == 0
    stage.start_daemon(site)
    assert "not clean" not in site.log().read_text("utf-8")
    site.daemon.stop()
    with sqlite3.connect(site.state / "authd.db") as database:
        database.execute("UPDATE meta SET value = 'soon' WHERE name = 'floor'")
    database.close()
    refused = up(site)
    assert refused.returncode == 2
    assert "floor" in refused.stderr

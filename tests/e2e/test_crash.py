"""A daemon killed in the middle of a revocation has it, and enforces it, when it is back."""

import base64
import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from authd.clock import SystemClock
from authd.core.claims import Kind
from authd.core.encoding import decode_base64url
from authd.core.identity import PublicKey, SigningKey
from authd.core.statements import sign_revoke
from authd.demo.clients import Client
from authd.demo.stage import Site, Stage, wait_until
from authd.device import DeviceKey
from authd.service.issuing import Bundle, encode_bundle
from authd.service.ports import Item
from authd.store.keystore import AUTHORITY, Keystore
from tests.stages import lone_site


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with Stage(tmp_path, mosquitto=None, plugin=None) as stage:
        yield stage


def submit_and_forget(site: Site, target: PublicKey, authority: SigningKey) -> socket.socket:
    """Send a revocation to the admin socket and do not wait for the answer."""
    revoke = sign_revoke(authority, target=target, issued_at=SystemClock().now())
    bundle = encode_bundle(Bundle(statements=(Item(Kind.REVOKE, revoke.encoded),)))
    body = json.dumps({"bundle": base64.b64encode(bundle).decode()}).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(site.run_dir / "admin.sock"))
    head = f"POST /v1/admin/submit HTTP/1.1\r\nHost: authd\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


@pytest.mark.parametrize("acknowledged", [True, False], ids=["after the answer", "before it"])
def test_kill_9_in_the_middle_of_a_revocation_loses_nothing(
    stage: Stage,
    *,
    acknowledged: bool,
) -> None:
    site = lone_site(stage)
    device = stage.authd("device", "new", "pump", "--pub=site/pump", site=site)
    key = DeviceKey.load(stage.directory / "pump.key")
    authority = Keystore(site.state).load(AUTHORITY)
    public = PublicKey(decode_base64url(device["key"]))
    with Client(site.mqtt_port, client_id=key.client_id, device=key) as client:
        assert client.accepted == 1
        connection = submit_and_forget(site, public, authority)
        if acknowledged:
            assert b"200 OK" in connection.recv(4_096)
        else:
            # Any moment will do: either it is on disk, or nobody was told that it is.
            threading.Event().wait(0.002)
        assert site.daemon is not None
        site.daemon.stop(signal.SIGKILL)
        connection.close()
    stage.start_daemon(site)
    known = stage.authd("revocations", site=site)["revocations"]
    if acknowledged:
        assert [one["target"] for one in known] == [device["key_id"]]
    explained = stage.authd("explain", "pump", site=site, check=False)
    if not known:
        # Nobody was told that it is there, and nothing of it is: whole or not at all.
        assert explained["effect"] == "allow"
        return
    assert known[0]["state"] == "in force"
    assert (explained["effect"], explained["reason"]) == ("deny", "revoked")
    with Client(site.mqtt_port, client_id=key.client_id, device=key) as client:
        assert client.accepted == 0


def test_an_issue_made_while_the_daemon_is_down_is_published_when_it_starts(stage: Stage) -> None:
    site = lone_site(stage, start=False)
    answer = stage.authd("device", "new", "lamp", "--pub=site/lamp", site=site)
    assert answer["published"] is False
    revoked = stage.authd("device", "new", "old-lamp", "--pub=site/lamp", site=site)
    assert stage.authd("revoke", "old-lamp", site=site, check=False)["state"] == "outbox"
    stage.start_daemon(site)
    wait_until(
        lambda: stage.authd("status", site=site)["revocations"] == 1,
        timeout_s=10,
        what="the outbox is drained",
    )
    assert stage.authd("explain", "lamp", "publish", "site/lamp", site=site)["effect"] == "allow"
    explained = stage.authd("explain", revoked["key_id"], site=site, check=False)
    assert explained["reason"] == "revoked"


def test_sessions_survive_a_restart_of_the_daemon(stage: Stage) -> None:
    site = lone_site(stage)
    stage.authd("device", "new", "pump", "--pub=site/pump", site=site)
    key = DeviceKey.load(stage.directory / "pump.key")
    password = key.password(site.endpoint)
    with Client(
        site.mqtt_port,
        client_id=key.client_id,
        username=key.username,
        password=password,
    ) as client:
        assert client.accepted == 1
    assert site.daemon is not None
    site.daemon.stop(signal.SIGKILL)
    stage.start_daemon(site)
    # The nonce was consumed before the crash, and proofs of before the crash do not count.
    with Client(
        site.mqtt_port,
        client_id=key.client_id,
        username=key.username,
        password=password,
    ) as client:
        assert client.accepted == 0
    said = site.decisions()[-1]
    assert said["reason"] in ("replayed", "predates_restart")

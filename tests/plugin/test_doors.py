"""Ways around BASIC_AUTH: enhanced authentication, listeners that take certificates for names."""

import subprocess
from pathlib import Path

import pytest

from tests.plugin.conftest import Broker, StartBroker, free_port
from tests.plugin.fake_authd import FakeAuthd, key_id
from tests.plugin.mqtt import REFUSED, V5, Device, RawClient, connect_packet, pop

CONNACK_BAD_METHOD = 0x8C


def test_a52_enhanced_authentication_is_refused(broker: Broker, fake: FakeAuthd) -> None:
    raw = RawClient(broker.port)
    raw.send(
        connect_packet(
            client_id=b"c1",
            username=key_id().encode(),
            password=pop().encode(),
            level=5,
            properties=b"\x15\x00\x07authd-1",
        ),
    )
    assert raw.receive()[:4][3] == CONNACK_BAD_METHOD
    raw.close()
    assert fake.questions == []


@pytest.mark.parametrize("packet", [b"\xf0\x00", b"\xf0\x02\x19\x00", b"\xf0\x02\x18\x00"])
def test_a52_an_auth_packet_on_an_accepted_connection_only_ends_it(
    broker: Broker,
    fake: FakeAuthd,
    packet: bytes,
) -> None:
    key = key_id().encode()
    for _ in range(3):
        raw = RawClient(broker.port)
        raw.send(connect_packet(client_id=b"c1", username=key, password=pop().encode(), level=5))
        assert raw.receive()[:1] == b"\x20"
        raw.send(packet)
        while raw.receive():
            pass
        raw.close()
    fake.wait_report("offline", "c1")
    assert broker.device("c2").connect() == 0


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A self-signed certificate for everything, and its key."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("/usr/bin/openssl", "req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"),
            *("-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


def test_a50_a_listener_that_skips_the_question_gives_no_rights(
    start_broker: StartBroker,
    fake: FakeAuthd,
    certificate: tuple[Path, Path],
) -> None:
    """`use_identity_as_username` skips BASIC_AUTH, so a stranger can take a known client id."""
    cert, key = certificate
    port = free_port()
    broker = start_broker(
        options=f"listener {port} 127.0.0.1\ncafile {cert}\ncertfile {cert}\nkeyfile {key}\n"
        "require_certificate true\nuse_identity_as_username true",
    )
    broker.wait_log("event stream open")
    victim = broker.online("c1", protocol=V5)
    assert victim.publish("site/a") == 0x10
    thief = Device(port, client_id="c1", key=key_id(), protocol=V5)
    thief.use_certificate(cert, key)
    assert thief.connect() == 0
    assert thief.publish("site/a") == REFUSED
    assert thief.subscribe("site/a") == REFUSED
    thief.close()

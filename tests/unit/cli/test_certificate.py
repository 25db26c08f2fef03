"""``authd device cert`` and its like: what is written, what is granted, how it is taken back."""

import hashlib
import http.client
import json
import socket
import ssl
import threading
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from authd.cli.certificate import read_public_key_info
from authd.core.counter import is_counter_password
from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.grants import Form, TlsSubject, verify_grant
from authd.demo.stage import Site, Stage
from authd.device import DeviceKey
from authd.errors import ConfigError
from authd.grpc_api.certificates import ensure_certificates
from authd.store.keystore import Keystore
from tests.stages import lone_site
from tests.unit.cli.conftest import Run

MOSQUITTO = """
[[broker]]
name = "hall"
kind = "mosquitto"
audiences = ["hall.example:8883"]
"""


def info_of(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def digest_of(certificate: Path) -> str:
    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    info = parsed.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encode_base64url(hashlib.sha256(info).digest())


@pytest.mark.parametrize("key_type", ["p256", "ed25519", "rsa"])
def test_a_certificate_is_made_for_its_owner_alone_and_its_key_is_granted(
    run: Run, domain: Path, tmp_path: Path, key_type: str
) -> None:
    made = run("device", "cert", "lamp", "--pub=site/lamp", f"--key-type={key_type}").json
    certificate, key = Path(made["certificate_file"]), Path(made["key_file"])
    assert {path.stat().st_mode & 0o777 for path in (certificate, key)} == {0o600}
    assert made["digest"] == digest_of(certificate)
    subject = Keystore(domain).subject("lamp")
    assert subject is not None
    grant = verify_grant(decode_base64url(subject.grants[0]))
    assert isinstance(grant.subject, TlsSubject)
    assert (encode_base64url(grant.subject.key), grant.forms, grant.depth) == (
        made["digest"],
        frozenset({Form.TLS}),
        0,
    )
    assert handshake(tmp_path, certificate, key) == made["digest"]


def handshake(tmp_path: Path, certificate: Path, key: Path) -> str:
    """Connect to a TLS server that requires a certificate of the file; return whose it saw."""
    made = ensure_certificates(tmp_path / "tls", host_names=(), brokers=(), now=_wall())
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(made.server.certificate, made.server.key)
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(certificate)
    client = ssl.create_default_context(cafile=str(made.authority))
    client.load_cert_chain(certificate, key)
    near, far = socket.socketpair()
    seen: list[bytes] = []

    def serve() -> None:
        with server.wrap_socket(far, server_side=True) as connection:
            seen.append(connection.getpeercert(binary_form=True) or b"")
            connection.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(near, server_hostname="localhost") as connection:
        connection.send(b"x")
    thread.join(5)
    shown = tmp_path / "shown.crt"
    shown.write_text(ssl.DER_cert_to_PEM_cert(seen[0]))
    return digest_of(shown)


def _wall() -> int:
    import time  # noqa: PLC0415 - certificates are checked against the real clock

    return int(time.time())


def test_nothing_is_overwritten(run: Run, domain: Path, tmp_path: Path) -> None:
    (tmp_path / "lamp.crt").write_text("mine")
    refused = run("device", "cert", "lamp", "--pub=site/lamp")
    assert (refused.code, refused.json["reason"]) == (2, "conflict")
    assert (tmp_path / "lamp.crt").read_text() == "mine"
    assert not (tmp_path / "lamp.key").exists()
    assert Keystore(domain).subject("lamp") is None
    assert run("device", "cert", "lamp", "--pub=site/lamp", "--out=new").code == 0
    again = run("device", "cert", "lamp", "--pub=site/lamp", "--out=newer")
    assert (again.code, again.json["reason"]) == (2, "conflict")
    assert not (tmp_path / "newer.key").exists()


def test_a_certificate_or_public_key_that_exists_is_taken_by_its_key(
    run: Run, domain: Path, tmp_path: Path
) -> None:
    made = run("device", "cert", "lamp", "--pub=site/lamp").json
    other = tmp_path / "other.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    other.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )
    taken = run("device", "cert", "pump", "--pub=site/pump", f"--certificate={other}").json
    assert taken["digest"] == encode_base64url(hashlib.sha256(info_of(key)).digest())
    assert taken["certificate_file"] is None
    certificate = Path(made["certificate_file"])
    same = run("device", "cert", "twin", "--pub=site/twin", f"--certificate={certificate}").json
    assert same["digest"] == made["digest"]


@pytest.mark.parametrize("content", ["", "-----BEGIN CERTIFICATE-----\nAA\n", None])
def test_what_is_no_certificate_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "x.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=r"x\.pem"):
        read_public_key_info(path)


def test_a_private_key_is_not_taken_for_a_certificate(
    run: Run, domain: Path, tmp_path: Path
) -> None:
    made = run("device", "cert", "lamp", "--pub=site/lamp").json
    refused = run("device", "cert", "b", "--pub=b", f"--certificate={made['key_file']}")
    assert (refused.code, refused.json["reason"]) == (2, "bad_config")
    assert "PRIVATE" not in refused.out + refused.err


@pytest.mark.parametrize(
    "arguments",
    ["device cert x --pub=x --key-type=dsa", "grant lamp --pub=x"],
)
def test_a_certificate_is_no_key(run: Run, domain: Path, arguments: str) -> None:
    assert run("device", "cert", "lamp", "--pub=site/lamp").code == 0
    refused = run(*arguments.split())
    assert (refused.code, refused.json["reason"]) == (2, "malformed")


def test_the_next_steps_name_what_the_broker_needs(run: Run, domain: Path) -> None:
    plain = run("device", "cert", "lamp", "--sub=site/lamp", as_json=False)
    assert plain.code == 0
    for line in ("require_certificate true", "cafile /etc/mosquitto/certs/clients.crt"):
        assert line in plain.out
    assert "--cert lamp.crt --key lamp.key" in plain.out
    assert "PRIVATE" not in plain.out


# --- counters ---------------------------------------------------------------------------------


def test_a_device_that_counts_is_granted_one_audience(run: Run, domain: Path) -> None:
    made = run("device", "new", "meter", "--pub=site/meter", "--counter", "--at=hall:1883")
    assert made.code == 0
    device = DeviceKey.load(made.json["key_file"])
    (grant,) = device.path
    assert (grant.forms, len(grant.audiences)) == (frozenset({Form.COUNTER}), 1)
    assert is_counter_password(device.counter_password("hall:1883", 1))


@pytest.mark.parametrize("options", [["--counter", "--password"], ["--at=hall:1883"]])
def test_a_counter_is_one_form_alone(run: Run, domain: Path, options: list[str]) -> None:
    refused = run("device", "new", "meter", "--pub=site/meter", *options)
    assert (refused.code, refused.json["reason"]) == (2, "malformed")


# --- with a daemon ----------------------------------------------------------------------------


def connect(site: Site, certificate: str, client_id: str) -> dict[str, Any]:
    """Ask as the plugin does."""
    body = {
        "broker": "hall",
        "boot": "0" * 16,
        "client_id": client_id,
        "username": "",
        "password": "",
        "certificate": certificate,
        "clean": True,
        "enforces": [],
    }
    connection = http.client.HTTPConnection("authd")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(site.run_dir / "broker.sock"))
    connection.request("POST", "/v1/plugin/connect", body=json.dumps(body))
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert isinstance(answer, dict)
    return answer


def test_a_certificate_is_revoked_by_name_and_its_session_is_cut(run: Run, tmp_path: Path) -> None:
    with Stage(tmp_path / "stage", mosquitto=None, plugin=None) as stage:
        site = lone_site(stage, more=MOSQUITTO)
        made = run("device", "cert", "lamp", "--pub=site/lamp", site=site).json
        assert made["published"] is True
        allowed = connect(site, made["digest"], made["client_id"])
        assert (allowed["verdict"], allowed["key"]) == ("allow", made["key_id"])
        explained = run("explain", "lamp", "publish", "site/lamp", "--broker=hall", site=site)
        assert (explained.code, explained.json["effect"]) == (0, "allow")
        assert run("trust", "why", "lamp", site=site).json["paths"]
        revoked = run("revoke", "lamp", "--wait=1", site=site)
        assert (revoked.code, revoked.json["kind"], revoked.json["target"]) == (
            0,
            "grant",
            made["grant"],
        )
        assert [cut["client_id"] for cut in revoked.json["cut"]] == [made["client_id"]]
        assert connect(site, made["digest"], made["client_id"])["reason"] == "revoked"
        assert run("explain", "lamp", "--broker=hall", site=site).json["reason"] == "revoked"
        why = run("trust", "why", "lamp", site=site)
        assert (why.code, why.json["failures"][0]["reason"]) == (1, "revoked")

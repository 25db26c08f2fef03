"""TLS client certificates: the key in them is what the daemon is asked about."""

import base64
import datetime as dt
import hashlib
import ipaddress
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from authd.demo.stage import free_port
from tests.plugin.conftest import Broker, StartBroker
from tests.plugin.fake_authd import Allow, Deny, FakeAuthd, key_id, text
from tests.plugin.mqtt import REFUSED, V5, V311, Device, eventually, pop

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
PEM = serialization.Encoding.PEM


def generate(kind: str) -> PrivateKey:
    """Make a key of one of the algorithms that devices have."""
    if kind == "p256":
        return ec.generate_private_key(ec.SECP256R1())
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass(frozen=True)
class Certificate:
    """Files of a certificate and its key."""

    cert: Path
    key: Path
    digest: str


def digest_of(key: PrivateKey) -> str:
    """Return what the contract calls `certificate`."""
    spki = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return text(hashlib.sha256(spki).digest())


class Issuer:
    """A certificate authority of one test."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.key, self.name = folder, generate("p256"), _name("test authority")
        self.file = folder / "ca.pem"
        self.file.write_bytes(self._sign(self.key, self.name, is_authority=True))

    def issue(self, common_name: str, key: PrivateKey) -> Certificate:
        """Write the files of a new certificate."""
        stem = f"{common_name.replace('/', '_')}-{digest_of(key)[:8]}"
        cert, path = self.folder / f"{stem}.pem", self.folder / f"{stem}.key"
        cert.write_bytes(self._sign(key, _name(common_name), is_authority=False))
        no_password = serialization.NoEncryption()
        path.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, no_password))
        return Certificate(cert, path, digest_of(key))

    def _sign(self, key: PrivateKey, subject: x509.Name, *, is_authority: bool) -> bytes:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
                critical=False,
            )
        )
        return builder.sign(self.key, hashes.SHA256()).public_bytes(PEM)


def _name(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common_name)])


@pytest.fixture
def issuer(tmp_path: Path) -> Issuer:
    folder = tmp_path / "tls"
    folder.mkdir()
    return Issuer(folder)


@dataclass(frozen=True)
class Listener:
    """A broker with a TLS listener that wants a certificate."""

    broker: Broker
    port: int
    issuer: Issuer

    def device(
        self,
        shown: Certificate,
        *,
        client_id: str = "c1",
        name: str | None = None,
        password: str | None = None,
        v5: bool = False,
    ) -> Device:
        """Make a client with this certificate; by default without name and password."""
        device = Device(self.port, client_id=client_id, key="", protocol=V5 if v5 else V311)
        device.use_certificate(shown.cert, shown.key, self.issuer.file)
        device.show(name, password)
        self.broker.devices.append(device)
        return device


Listen = Callable[..., Listener]


@pytest.fixture
def listen(start_broker: StartBroker, issuer: Issuer) -> Listen:
    server = issuer.issue("server", generate("p256"))

    def start(options: str = "", under: tuple[str, ...] = ()) -> Listener:
        port = free_port()
        broker = start_broker(
            options=f"plugin_opt_authd_rate 1000\nlistener {port} 127.0.0.1\n"
            f"cafile {issuer.file}\ncertfile {server.cert}\nkeyfile {server.key}\n"
            f"require_certificate true\n{options}",
            under=under,
        )
        broker.wait_log("event stream open")
        return Listener(broker, port, issuer)

    return start


@pytest.mark.parametrize("kind", ["p256", "ed25519", "rsa"])
@pytest.mark.parametrize("v5", [False, True], ids=["v3.1.1", "v5"])
def test_a_certificate_is_known_by_its_key(
    listen: Listen,
    fake: FakeAuthd,
    issuer: Issuer,
    kind: str,
    *,
    v5: bool,
) -> None:
    listener, shown = listen(), issuer.issue("whatever", generate(kind))
    device = listener.device(shown, v5=v5)
    assert device.connect() == 0
    question = fake.questions[0]
    assert question["certificate"] == shown.digest
    assert (question["username"], question["password"]) == ("", "")
    assert device.publish("site/a") in (0, 0x10)
    named = text(base64.urlsafe_b64decode(shown.digest + "=")[:16])
    listener.broker.wait_log(f"u'{named}'")


def test_a16_names_in_a_certificate_count_for_nothing(
    listen: Listen,
    fake: FakeAuthd,
    issuer: Issuer,
) -> None:
    """Two names for one key are one device; one name for two keys is two."""
    listener, key = listen(), generate("ed25519")
    for name, of in (("a", key), ("#", key), ("a", generate("ed25519"))):
        assert listener.device(issuer.issue(name, of)).connect() == 0
        eventually(lambda: not fake.sessions or fake.reported("online", "c1"))
        fake.cut(key=fake.session_of("c1").key)
        fake.wait_report("kicked", "c1")
        fake.reports.clear()
    asked = [question["certificate"] for question in fake.questions]
    assert asked[0] == asked[1] != asked[2]


def test_a_chosen_user_name_proves_nothing_and_is_replaced(
    listen: Listen,
    fake: FakeAuthd,
    issuer: Issuer,
) -> None:
    listener, shown = listen(), issuer.issue("x", generate("p256"))
    assert listener.device(shown, name="admin").connect() == 0
    assert fake.questions[0]["username"] == "admin"
    listener.broker.wait_log(f"u'{fake.session_of('c1').key}'")
    assert "u'admin'" not in listener.broker.log.read_text()


def test_a_password_that_comes_with_a_certificate_is_judged_alone(
    listen: Listen,
    fake: FakeAuthd,
    issuer: Issuer,
) -> None:
    listener, shown = listen(), issuer.issue("x", generate("p256"))
    password = pop()
    assert listener.device(shown, name=key_id(), password=password).connect() == 0
    assert fake.questions[0]["password"] == password
    assert "certificate" not in fake.questions[0]


def test_a7_a_bad_password_does_not_fall_back_to_the_certificate(
    listen: Listen,
    fake: FakeAuthd,
    issuer: Issuer,
) -> None:
    listener, shown = listen(), issuer.issue("x", generate("p256"))
    assert listener.device(shown, name=key_id(), password="x").connect() == REFUSED
    assert listener.device(shown, name="a/b").connect() == REFUSED
    assert fake.questions == []


def test_a_refused_certificate_is_refused(
    listen: Listen,
    fake: FakeAuthd,
    issuer: Issuer,
) -> None:
    listener, shown = listen(), issuer.issue("x", generate("ed25519"))
    fake.decide = lambda _: Deny()
    assert listener.device(shown).connect() == REFUSED


def test_a36_the_session_of_a_certificate_is_cut_by_its_key(
    listen: Listen,
    fake: FakeAuthd,
    issuer: Issuer,
) -> None:
    listener, shown = listen(), issuer.issue("x", generate("p256"))
    fake.decide = lambda _: Allow()
    device = listener.device(shown)
    assert device.connect() == 0
    fake.cut(key=fake.session_of("c1").key)
    device.wait_end(1.0)


def test_without_a_certificate_and_a_password_nobody_gets_in(
    listen: Listen,
    fake: FakeAuthd,
) -> None:
    """On the plain listener of the same broker."""
    listener = listen()
    device = Device(listener.broker.port, client_id="c1", key="")
    device.show(None, None)
    assert device.connect() == REFUSED
    device.close()
    assert fake.questions == []


@pytest.mark.parametrize("option", ["use_identity_as_username", "use_subject_as_username"])
def test_a50_a_listener_that_skips_the_question_gives_no_rights_and_is_named_in_the_log(
    listen: Listen,
    fake: FakeAuthd,
    issuer: Issuer,
    option: str,
) -> None:
    listener = listen(f"{option} true")
    victim = listener.broker.online("c1", protocol=V5)
    assert victim.publish("site/a") == 0x10
    thief = listener.device(issuer.issue("c1", generate("p256")), v5=True)
    assert thief.connect() == 0
    assert thief.publish("site/a") == REFUSED
    assert thief.subscribe("site/a") == REFUSED
    listener.broker.wait_log("client c1 came in without a question to authd, so it has no rights")
    assert len(fake.questions) == 1


def steal(listener: Listener, shown: Certificate, client_id: str) -> tuple[int, int]:
    """Come under a client id, with a certificate alone; what SUBSCRIBE and PUBLISH are told."""
    thief = listener.device(shown, client_id=client_id, v5=True)
    assert thief.connect() == 0
    told = thief.subscribe("site/#"), thief.publish("site/a")
    thief.disconnect()
    time.sleep(0.1)
    return told


@pytest.mark.parametrize("named", ["after-the-id", "after-the-key"])
@pytest.mark.parametrize("victims", ["clean", "v5", "online"])
def test_a50_a_stranger_on_the_handle_of_one_who_left_gets_none_of_its_rights(
    listen: Listen,
    issuer: Issuer,
    fake: FakeAuthd,
    victims: str,
    named: str,
) -> None:
    """The broker frees the handle of a connection, and often gives it to the next one."""
    listener = listen("use_identity_as_username true")
    reader, told = listener.broker.online("reader"), set()
    reader.subscribe("site/#")
    for client_id in [f"c{number}" for number in range(7)]:
        key = key_id()
        shown = issuer.issue(key if named == "after-the-key" else client_id, generate("p256"))
        protocol = V5 if victims == "v5" else V311
        owner = listener.broker.online(client_id, key=key, protocol=protocol)
        if victims != "online":
            owner.disconnect()
            fake.wait_report("offline", client_id)
            time.sleep(0.15)
        told |= {steal(listener, shown, client_id) for _ in range(3)}
    assert told == {(REFUSED, REFUSED)}
    assert reader.receives_nothing()
    assert len(fake.questions) == 8

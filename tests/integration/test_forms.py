"""The proof forms beside the pop at a real Mosquitto with its plugin and a real daemon."""

import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from authd.core.challenge import METHOD
from authd.demo.stage import Site, Stage, can_connect, free_port, wait_until
from authd.device import DeviceKey
from authd.grpc_api.certificates import ensure_certificates

PATIENCE_S = 5.0


def connects(
    port: int,
    client_id: str,
    prepare: Callable[[paho.Client], None],
    *,
    properties: Properties | None = None,
) -> tuple[bool, paho.Client]:
    """Connect once (MQTT 5); say whether the broker let the client in."""
    client = paho.Client(
        CallbackAPIVersion.VERSION2, client_id=client_id, protocol=MQTTProtocolVersion.MQTTv5
    )
    prepare(client)
    done = threading.Event()
    accepted: list[bool] = []

    def on_connect(*arguments: object) -> None:
        accepted.append(not arguments[3].is_failure)  # type: ignore[attr-defined]  # paho's reason
        done.set()

    client.on_connect = on_connect
    # One that is told "later" has no CONNACK, and comes again by itself.
    client.connect("127.0.0.1", port, keepalive=30, properties=properties)
    client.loop_start()
    done.wait(PATIENCE_S)
    return accepted[:1] == [True], client


def leave(client: paho.Client) -> None:
    client.disconnect()
    client.loop_stop()


def with_auth_data(data: bytes) -> Properties:
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]  # paho
    properties.AuthenticationMethod = METHOD
    properties.AuthenticationData = data
    return properties


def test_a4_a_single_step_is_let_in_once(stage: Stage, site: Site) -> None:
    key_file = stage.directory / "pump.key"
    stage.authd("device", "new", "pump", "--pub=site/pump", f"--out={key_file}", site=site)
    key = DeviceKey.load(key_file)
    shown = with_auth_data(key.auth_data(site.endpoint))
    for expected in (True, False):
        allowed, client = connects(site.mqtt_port, key.client_id, lambda _: None, properties=shown)
        leave(client)
        assert allowed is expected
    forms = [one["form"] for one in site.decisions() if one["effect"] == "allow"]
    assert forms == ["challenge"]


def test_a4_a_counter_is_let_in_once(stage: Stage, site: Site) -> None:
    key_file = stage.directory / "meter.key"
    stage.authd(
        *("device", "new", "meter", "--pub=site/meter", "--counter"),
        *(f"--at={site.endpoint}", f"--out={key_file}"),
        site=site,
    )
    key = DeviceKey.load(key_file)
    for counter, expected in ((1, True), (1, False), (2, True)):
        password = key.counter_password(site.endpoint, counter)

        def prepare(client: paho.Client, password: str = password) -> None:
            client.username_pw_set(key.username, password)

        allowed, client = connects(site.mqtt_port, key.client_id, prepare)
        leave(client)
        assert allowed is expected


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture
def tls_port(stage: Stage, site: Site) -> int:
    """Add a listener that requires certificates; two clients of `clients.crt` are known to it."""
    made = ensure_certificates(
        stage.directory / "tls", host_names=(), brokers=(), now=int(time.time())
    )
    for name in ("lamp", "stranger"):
        stage.authd("device", "cert", name, f"--pub=site/{name}", site=site)
    clients = stage.directory / "clients.crt"
    clients.write_text(
        "".join((stage.directory / f"{name}.crt").read_text() for name in ("lamp", "stranger"))
    )
    port = free_port()
    conf = site.directory / "mosquitto.conf"
    assert site.broker is not None
    site.broker.stop()
    conf.write_text(
        conf.read_text() + f"\nlistener {port} 127.0.0.1\ncertfile {made.server.certificate}\n"
        f"keyfile {made.server.key}\ncafile {clients}\nrequire_certificate true\n"
    )
    for one in (made.server.certificate, made.server.key, clients):
        one.chmod(0o644)
    site.broker.start()
    wait_until(lambda: can_connect(port), timeout_s=PATIENCE_S, what="the TLS listener")
    stage.await_status(
        site,
        lambda status: any(one["attached"] for one in status["brokers"]),
        what="the plugin attaches again",
    )
    return port


def tls_client(stage: Stage, name: str) -> Callable[[paho.Client], None]:
    context = ssl.create_default_context(cafile=str(stage.directory / "tls" / "ca.crt"))
    context.check_hostname = False
    context.load_cert_chain(stage.directory / f"{name}.crt", stage.directory / f"{name}.key")
    return lambda client: client.tls_set_context(context)


def certificate_of(stage: Stage, name: str) -> Path:
    return stage.directory / f"{name}.crt"


def test_a_certificate_is_let_in_and_cut_when_it_is_revoked_by_name(
    stage: Stage, site: Site, tls_port: int
) -> None:
    client_id = key_id_of(certificate_of(stage, "lamp"))
    allowed, lamp = connects(tls_port, client_id, tls_client(stage, "lamp"))
    assert allowed
    as_another, client = connects(tls_port, client_id, tls_client(stage, "stranger"))
    leave(client)
    assert not as_another, "the client id of another certificate"
    assert lamp.is_connected()
    revoked = stage.authd("revoke", "lamp", site=site)
    assert revoked["kind"] == "grant"
    wait_until(lambda: not lamp.is_connected(), timeout_s=PATIENCE_S, what="the session is cut")
    leave(lamp)
    again, client = connects(tls_port, client_id, tls_client(stage, "lamp"))
    leave(client)
    assert not again


def key_id_of(certificate: Path) -> str:
    parsed = x509.load_pem_x509_certificate(certificate.read_bytes())
    return str(parsed.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

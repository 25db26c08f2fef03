"""``authd shim`` as a process: where it listens, what it says, what it never says."""

import json
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from authd.core.claims import Kind
from authd.core.encoding import encode_base64url
from authd.core.identity import DomainId, key_id_text
from authd.core.proofs import Audience, UnverifiedPop, parse_credentials, verify_pop
from authd.device import DeviceKey
from authd.grpc_api.certificates import ensure_certificates
from authd.service.issuing import Bundle, encode_bundle
from authd.service.ports import Item
from authd.shim.wire import Connect, connect_length, parse_connect
from tests.unit.cli.conftest import Run
from tests.unit.core.world import key, make_grant
from tests.unit.shim.packets import body, packet, text

WAIT_S = 10.0
DOMAIN = DomainId(bytes(range(16)))
CONNECT = packet(body(flags=0xC2, fields=text("lamp") + text("me") + text("hunter2")))


class Broker:
    """Takes one connection at a time and keeps the CONNECT it gets."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(WAIT_S)
        self._tls = tls
        self.port = int(self._listener.getsockname()[1])

    def take(self) -> tuple[Connect, socket.socket]:
        plain, _ = self._listener.accept()
        plain.settimeout(WAIT_S)
        taken = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
        data = taken.recv(5)
        length = connect_length(data)
        assert length is not None
        while len(data) < length:
            data += taken.recv(length - len(data))
        return parse_connect(data), taken

    def close(self) -> None:
        self._listener.close()


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.close()


@pytest.fixture
def device(tmp_path: Path) -> DeviceKey:
    device = DeviceKey(key=key("lamp"), domain=DOMAIN, client_id=key_id_text(key("lamp").public))
    (tmp_path / "lamp.key").write_text(device.dump(), "utf-8")
    return device


class Running:
    """A shim as a process, and what it has printed."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "authd", "shim", f"--key={directory}/lamp.key", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.first = self.process.stdout.readline()

    def events(self) -> list[dict[str, str]]:
        """Stop it by SIGTERM and return what it said with ``--json``."""
        out, _ = self.end()
        return [json.loads(line) for line in (self.first + out).splitlines()]

    def end(self) -> tuple[str, str]:
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=WAIT_S)
        assert self.process.returncode == 0, err
        return out, err

    @property
    def port(self) -> int:
        found = re.search(r"127\.0\.0\.1:([0-9]+)", self.first)
        assert found is not None, self.first
        return int(found[1])


Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path, device: DeviceKey) -> Iterator[Start]:
    running: list[Running] = []

    def begin(*arguments: str) -> Running:
        running.append(Running(tmp_path, "--listen=127.0.0.1:0", *arguments))
        return running[-1]

    yield begin
    for one in running:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate()


def verify(connect: Connect, device: DeviceKey, endpoint: str) -> UnverifiedPop:
    """Verify the proof in a CONNECT; return it."""
    assert connect.username == device.username
    assert connect.password is not None
    pop = parse_credentials(connect.username, connect.password.decode("ascii"))
    assert isinstance(pop, UnverifiedPop)
    verify_pop(
        pop,
        key=device.key.public,
        audiences=[Audience(DOMAIN, endpoint)],
        client_id=connect.client_id,
        now=int(time.time()),
    )
    return pop


def connect(port: int, sent: bytes = CONNECT) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", port), WAIT_S)
    client.sendall(sent)
    return client


def test_each_connect_carries_a_fresh_proof_for_the_broker(
    start: Start, broker: Broker, device: DeviceKey
) -> None:
    endpoint = f"127.0.0.1:{broker.port}"
    shim = start(f"--to={endpoint}")
    assert device.username in shim.first
    nonces = set()
    for _ in range(2):
        with connect(shim.port) as client:
            got, taken = broker.take()
            nonces.add(verify(got, device, endpoint).nonce)
            assert got.client_id == "lamp"
            with taken:
                taken.sendall(b"\x20\x02\0\0")
                assert client.recv(4) == b"\x20\x02\0\0"
    assert len(nonces) == 2
    assert shim.end() == ("", "")


@pytest.mark.parametrize(
    "case",
    [
        ([], "", "KEY"),
        ([], "lamp", "lamp"),
        (["--client-id=fixed"], "lamp", "fixed"),
        (["--client-id=fixed"], "", "fixed"),
    ],
)
def test_the_client_id_is_kept_unless_it_is_empty_or_another_is_asked_for(
    start: Start, broker: Broker, device: DeviceKey, case: tuple[list[str], str, str]
) -> None:
    options, sent, expected = case
    endpoint = f"127.0.0.1:{broker.port}"
    shim = start(f"--to={endpoint}", *options)
    with connect(shim.port, packet(body(fields=text(sent)))):
        got, taken = broker.take()
        taken.close()
    assert got.client_id == expected.replace("KEY", device.client_id)
    verify(got, device, endpoint)


def test_over_tls_the_broker_is_checked_and_what_was_sent_last_arrives(
    start: Start, device: DeviceKey, tmp_path: Path
) -> None:
    made = ensure_certificates(
        tmp_path / "tls", host_names=("localhost",), brokers=(), now=int(time.time())
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(made.server.certificate, made.server.key)
    broker = Broker(tls)
    ca = f"--cafile={tmp_path}/tls/ca.crt"
    shim = start(f"--to=localhost:{broker.port}", "--tls", ca)
    with connect(shim.port, CONNECT + b"\x30\x03\0\x01a") as client:
        got, taken = broker.take()
        verify(got, device, f"localhost:{broker.port}")
        client.sendall(b"\xe0\0")
    received = b""
    while part := taken.recv(100):
        received += part
    assert received.endswith(b"\x30\x03\0\x01a\xe0\0"[-len(received) :])
    taken.close()
    unchecked = start(f"--to=localhost:{broker.port}", "--tls", "--json")
    with connect(unchecked.port) as client:
        with pytest.raises((OSError, ssl.SSLError)):
            broker.take()
        assert client.recv(1) == b""
    event = unchecked.events()[-1]
    assert (event["event"], "certificate" in event["detail"]) == ("unreachable", True)
    broker.close()


def test_a_bundle_makes_the_proof_carry_the_path(
    start: Start, broker: Broker, device: DeviceKey, tmp_path: Path
) -> None:
    path = (make_grant("X", "gate", depth=1), make_grant("gate", "lamp"))
    items = tuple(Item(Kind.GRANT, one.encoded) for one in (*reversed(path), make_grant("X", "y")))
    bundle = tmp_path / "path.bundle"
    bundle.write_bytes(encode_bundle(Bundle(statements=items, records=())))
    shim = start(f"--to=127.0.0.1:{broker.port}", f"--path={bundle}")
    with connect(shim.port):
        got, taken = broker.take()
        taken.close()
    pop = verify(got, device, f"127.0.0.1:{broker.port}")
    assert pop.stapled == tuple(one.encoded for one in path)


def test_what_it_says_holds_no_secret(start: Start, device: DeviceKey, broker: Broker) -> None:
    shim = start(f"--to=127.0.0.1:{broker.port}", "--json")
    with connect(shim.port):
        got, taken = broker.take()
        taken.close()
    for sent in (b"GET / HTTP/1.1\r\n\r\n", packet(body(fields=text("odd\u00e9")))):
        with connect(shim.port, sent) as client:
            assert client.recv(1) == b""
    broker.close()
    with connect(shim.port) as client:
        assert client.recv(1) == b""
    events = shim.events()
    assert events[0] == {
        "event": "listening",
        "listen": f"127.0.0.1:{shim.port}",
        "to": f"127.0.0.1:{broker.port}",
        "key_id": device.username,
    }
    ended = sorted(one["event"] for one in events[1:])
    assert ended == ["passed", "refused", "refused", "unreachable"]
    said = json.dumps(events)
    assert got.password is not None
    for secret in ("hunter2", got.password.decode(), encode_base64url(device.key.seed)):
        assert secret not in said


def test_for_people_it_says_who_was_not_let_through(start: Start, broker: Broker) -> None:
    shim = start(f"--to=127.0.0.1:{broker.port}")
    with connect(shim.port, b"\x16\x03\x01") as client:
        assert client.recv(1) == b""
    _, err = shim.end()
    assert err == (
        "a client: refused: the first byte is 0x16, not that of a CONNECT: the client speaks TLS,"
        " the shim does not\n"
    )


def test_a_connect_that_the_broker_refuses_is_one_line(start: Start, broker: Broker) -> None:
    shim = start(f"--to=127.0.0.1:{broker.port}")
    with connect(shim.port) as client:
        _, taken = broker.take()
        taken.sendall(b"\x20\x02\0\x05")
        taken.close()
        assert client.recv(5) == b"\x20\x02\0\x05"
        assert client.recv(1) == b""
    _, err = shim.end()
    assert err == "client `lamp`: refused: the broker's CONNACK is 5, not authorized\n"


# --- what it does not begin with --------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--listen=0.0.0.0:0",), "can be reached by other hosts"),
        (("--listen=[::]:0",), "can be reached by other hosts"),
        (("--listen=192.0.2.1:0",), "can be reached by other hosts"),
        (("--listen=example.org:0",), "is no address to listen on"),
        (("--listen=nonsense",), "is not a lower-case"),
        (("--to=Broker.example:1883",), "is not a lower-case"),
        (("--to=broker..example:1883",), "is no name of a host"),
        (("--cafile=ca.crt",), "add `--tls`"),
        (("--tls", "--cafile=none.crt"), "No such file"),
        (("--key=none.key",), "No such file"),
        (("--path=none.bundle",), "No such file"),
        (("--path=other.bundle",), "no grant to this key"),
        (("--path=lamp.key",), "`lamp.key`: "),
        (("--connections=0",), "--connections"),
    ],
)
def test_what_cannot_be_is_refused_before_it_listens(
    run: Run, device: DeviceKey, tmp_path: Path, arguments: tuple[str, ...], sentence: str
) -> None:
    other = Bundle(statements=(Item(Kind.GRANT, make_grant("X", "y").encoded),), records=())
    (tmp_path / "other.bundle").write_bytes(encode_bundle(other))
    given = {one.partition("=")[0] for one in arguments}
    usual = [
        one
        for one in ("--key=lamp.key", "--to=broker.example:1883")
        if one.partition("=")[0] not in given
    ]
    done = run("shim", *usual, *arguments)
    assert done.code == 2
    assert sentence in done.json["error"]


def test_a_port_that_is_taken_is_an_error(run: Run, device: DeviceKey, broker: Broker) -> None:
    taken = f"--listen=127.0.0.1:{broker.port}"
    done = run("shim", "--key=lamp.key", "--to=broker.example:1883", taken)
    assert (done.code, done.json["reason"]) == (2, "bad_config")


def test_whoever_wants_other_hosts_to_be_this_device_is_warned(
    tmp_path: Path, device: DeviceKey
) -> None:
    shim = Running(tmp_path, "--listen=0.0.0.0:0", "--to=broker.example:1883", "--listen-anywhere")
    _, err = shim.end()
    assert err == "WARNING  whoever reaches `0.0.0.0:0` is this device\n"


def test_the_unit_of_the_page_names_options_that_exist(run: Run) -> None:
    page = (Path(__file__).parents[3] / "docs" / "clients.md").read_text("utf-8")
    help_page = run("shim", "--help", as_json=False).out
    (command,) = re.findall(r"(?m)^ExecStart=%h/.local/bin/authd shim (.*)$", page)
    options = set(re.findall(r"--[a-z-]+", command))
    assert len(options) == 4
    named = set(re.findall(r"`(--[a-z-]+)", page[page.index("## authd shim") :].split("## A ")[0]))
    for one in {*options, *named} - {"--user"}:
        assert f"  {one} " in help_page

"""docs/challenge.md: its packets verify, and a real broker exchanges the same today.

When a packet is no longer as the page has it, the test shows new traces to paste.
"""

import re
from collections.abc import Callable, Iterator

import pytest

from authd.clock import SystemEntropy
from authd.core.challenge import METHOD, Exchange, Hello, parse_first, verify_response
from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.grants import Form
from authd.core.identity import DomainId, PublicKey, key_id, parse_id
from authd.core.proofs import Audience, UnverifiedPop, VerifiedProof, verify_pop
from authd.demo.stage import Stage
from authd.device import DeviceKey
from authd.errors import ProofError
from tests.integration.fleet import add_audience
from tests.integration.trace import DOC, Packet, dissect, read, write
from tests.plugin.mqtt import RawClient, auth_data, auth_packet, auth_properties, connect_packet
from tests.stages import lone_site

ENDPOINT = "broker.example:1883"
CLIENT_ID = "pump"
OUT, IN = "client → broker", "broker → client"


class Recorder:
    """A client that keeps every packet of its connection."""

    def __init__(self, port: int, key: DeviceKey) -> None:
        self._raw = RawClient(port)
        self.key = key
        self.nonce = b""
        self.packets: list[Packet] = []

    def send(self, packet: bytes) -> bytes:
        self._raw.send(packet)
        self.packets.append(dissect(packet, OUT))
        answer = self._raw.packet()
        self.packets.append(dissect(answer, IN))
        return answer

    def connect(self, data: bytes) -> bytes:
        return self.send(
            connect_packet(
                client_id=CLIENT_ID.encode(),
                username=None,
                password=None,
                level=5,
                properties=auth_properties(data, method=METHOD.encode()),
            )
        )

    def hello(self) -> bytes:
        self.nonce = SystemEntropy().token(16)
        return self.key.hello(self.nonce)

    def response(self, challenge: bytes, *, endpoint: str = ENDPOINT) -> bytes:
        return self.key.respond(auth_data(challenge), endpoint, self.nonce)

    def close(self) -> None:
        self._raw.close()


@pytest.fixture
def recorder(stage: Stage) -> Iterator[Callable[[], Recorder]]:
    site = lone_site(stage, mosquitto=True, start=False)
    add_audience(site, ENDPOINT)
    stage.start_daemon(site)
    stage.start_broker(site)
    rights = ("--pub=site/pump", f"--client-id={CLIENT_ID}")
    stage.authd("device", "new", "pump", *rights, site=site)
    key = DeviceKey.load(stage.directory / "pump.key")
    opened: list[Recorder] = []

    def connect() -> Recorder:
        opened.append(Recorder(site.mqtt_port, key))
        return opened[-1]

    yield connect
    for one in opened:
        one.close()


def play(connect: Callable[[], Recorder]) -> list[list[Packet]]:
    """Let one in by challenge, and again on its connection; refuse one; one by a single step."""
    full, wrong, single = connect(), connect(), connect()
    full.send(auth_packet(full.response(full.connect(full.hello()))))
    again = full.send(auth_packet(full.hello(), reason=0x19))
    full.send(auth_packet(full.response(again)))
    wrong.send(auth_packet(wrong.response(wrong.connect(wrong.hello()), endpoint="other:1883")))
    full.close()
    single.connect(single.key.auth_data(ENDPOINT))
    return [full.packets, wrong.packets, single.packets]


def test_a_real_broker_exchanges_the_packets_of_the_page(
    recorder: Callable[[], Recorder],
) -> None:
    played = play(recorder)
    key = recorder().key
    shapes = [[(one.name, one.way, one.shape()) for one in trace] for trace in played]
    on_page = [[(one.name, one.way, one.shape()) for one in trace] for trace in read(page())]
    about = f"key `{encode_base64url(key.key.public)}`, domain `{encode_base64url(key.domain)}`"
    assert shapes == on_page, "\n\n".join([about, *map(write, played)])


def page() -> str:
    return DOC.read_text("utf-8")


def facts() -> tuple[PublicKey, Audience]:
    """Return the key and the audience that the page names."""
    key = re.search(r"key `([\w-]{43})`", page())
    domain = re.search(r"domain `([\w-]{22})`", page())
    assert key is not None
    assert domain is not None
    audience = Audience(DomainId(parse_id(domain[1])), ENDPOINT)
    return PublicKey(decode_base64url(key[1])), audience


def auth_data_of(packet: Packet) -> bytes:
    """Return the authentication data of a packet on the page: what follows its announcement."""
    names = [what for _, what in packet.parts]
    (at,) = [place for place, what in enumerate(names) if what.startswith("authentication data")]
    length = int(names[at].split()[2])
    return b"".join(part for part, _ in packet.parts[at + 1 :])[:length]


@pytest.mark.parametrize(
    ("trace", "start", "holds"),
    [(0, 0, True), (0, 4, True), (1, 0, False)],
    ids=["connect", "again", "refused"],
)
def test_the_responses_on_the_page_verify(trace: int, start: int, *, holds: bool) -> None:
    key, audience = facts()
    packets = read(page())[trace][start : start + 4]
    hello, challenge, response = map(auth_data_of, packets[:3])
    first = parse_first(hello)
    assert isinstance(first, Hello)
    assert first.key_id == key_id(key)
    exchange = Exchange(hello=first, nonce=challenge[1:])

    def verify() -> VerifiedProof:
        return verify_response(
            exchange, response, key=key, audiences=[audience], client_id=CLIENT_ID
        )

    if holds:
        assert verify().form is Form.CHALLENGE
    else:
        with pytest.raises(ProofError):
            verify()


def test_the_single_step_on_the_page_verifies() -> None:
    key, audience = facts()
    pop = parse_first(auth_data_of(read(page())[2][0]))
    assert isinstance(pop, UnverifiedPop)
    proof = verify_pop(pop, key=key, audiences=[audience], client_id=CLIENT_ID, now=pop.time)
    assert proof.form is Form.CHALLENGE

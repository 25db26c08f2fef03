"""Enhanced authentication (MQTT 5 §4.12), method `authd-1`: at CONNECT, and again later."""

import time
from collections.abc import Iterator

import pytest

from tests.plugin.conftest import Broker
from tests.plugin.enhanced import Client
from tests.plugin.fake_authd import Allow, Deny, FakeAuthd, Json, raw, text
from tests.plugin.mqtt import REFUSED, auth_data, auth_packet, eventually, publish_packet
from tests.plugin.prover import Prover

BAD_METHOD = 0x8C
MALFORMED = 0x82
# 2.0.22 and 2.1 add a DISCONNECT 0x82 to the CONNACK of a refusal.
NOTHING = (b"", b"\xe0\x01\x82")
AUTHENTICATE_AGAIN = 0x19


@pytest.fixture
def client(broker: Broker) -> Iterator[Client]:
    opened = Client(broker.port, "c1", Prover())
    yield opened
    opened.close()


def test_a_single_step_is_passed_on_whole_and_lets_in(client: Client, fake: FakeAuthd) -> None:
    data = client.device.single("c1")
    connack = client.begin(data)
    assert connack[:1] + connack[3:4] == b"\x20\x00"
    question = fake.questions[0]
    assert (question["auth"], question["password"], question["username"]) == (text(data), "", "")
    assert "exchange" not in question
    assert client.publish("site/a") == 0x10
    assert client.publish("other") == REFUSED
    fake.wait_report("online", "c1")


def test_a_challenge_is_drawn_by_the_plugin_and_asked_about_once(
    client: Client,
    fake: FakeAuthd,
) -> None:
    hello = client.device.hello()
    packet = client.begin(hello)
    assert packet[:1] == b"\xf0"
    assert packet[2] == 0x18
    challenge = auth_data(packet)
    assert fake.questions == []
    response = client.device.response("c1", challenge)
    assert client.authenticate(response)[:1] == b"\x20"
    assert fake.questions[0]["exchange"] == {
        "hello": text(hello),
        "nonce": text(challenge[1:]),
        "response": text(response),
    }
    assert len(challenge) == 17
    assert client.publish("site/a") == 0x10


def test_a4_each_challenge_is_new_and_a_response_good_for_one_connection(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    device, challenges, responses = Prover(), set(), []
    for _ in range(5):
        client = Client(broker.port, "c1", device)
        challenge = auth_data(client.begin(device.hello()))
        challenges.add(challenge)
        responses.append(device.response("c1", challenge))
        client.close()
    assert len(challenges) == 5
    late = Client(broker.port, "c1", device)
    late.begin(device.hello())
    fake.decide = lambda question: (
        Allow() if raw(question["exchange"]["nonce"]) in responses else Deny()
    )
    assert late.authenticate(responses[0])[3] == REFUSED
    assert raw(fake.questions[0]["exchange"]["nonce"]) not in {c[1:] for c in challenges}
    late.close()


def test_the_user_name_becomes_the_proven_key(
    broker: Broker,
    client: Client,
    fake: FakeAuthd,
) -> None:
    client.begin(client.device.single("c1"), username=b"somebody-else")
    assert fake.questions[0]["username"] == "somebody-else"
    broker.wait_log(f"as c1 (p5, c1, k30, u'{client.device.id}')")
    assert client.publish("site/a") == 0x10


def test_a16_a_user_name_outside_the_alphabet_is_refused(client: Client, fake: FakeAuthd) -> None:
    assert client.begin(client.device.single("c1"), username=b"a/b")[3] == REFUSED
    assert fake.questions == []


@pytest.mark.parametrize("method", [b"authd-2", b"SCRAM-SHA-1", b"AUTHD-1", b""])
def test_a7_another_method_is_not_supported(
    client: Client,
    fake: FakeAuthd,
    method: bytes,
) -> None:
    packet = client.begin(client.device.single("c1"), method=method)
    assert packet == b"" or packet[3] == BAD_METHOD or (method, packet[3]) == (b"", MALFORMED)
    assert fake.questions == []


@pytest.mark.parametrize(
    "data",
    [
        None,
        b"",
        b"\x01",
        b"\x00" * 94,
        b"\x01" * 93,
        b"\x01" * 95,
        b"\x02" * 34,
        b"\x03" * 17,
        b"\x04" * 65,
        b"\x01" * 33,
        b"\x02" * 94,
    ],
    ids=lambda data: "none" if data is None else f"{data[:1].hex()}-{len(data)}",
)
def test_a15_other_data_is_refused_and_costs_no_question(
    client: Client,
    fake: FakeAuthd,
    data: bytes | None,
) -> None:
    assert client.begin(data)[3] == REFUSED
    assert fake.questions == []


@pytest.mark.parametrize("data", [b"\x04" * 64, b"\x04" * 66, b"\x01" * 94, b"\x02" * 33, None])
def test_a_challenge_takes_nothing_but_a_response_and_takes_it_once(
    client: Client,
    fake: FakeAuthd,
    data: bytes | None,
) -> None:
    client.begin(client.device.hello())
    assert client.authenticate(data)[3] == REFUSED
    assert client.wait_end() in NOTHING
    assert fake.questions == []


def test_a_refusal_for_good_and_one_for_now_look_different(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    device = Prover()
    fake.decide = lambda _: Deny()
    first = Client(broker.port, "c1", device)
    assert first.begin(device.single("c1"))[3] == REFUSED
    fake.decide = lambda _: Deny(temporary=True)
    second = Client(broker.port, "c1", device)
    assert second.begin(device.single("c1")) == b""
    fake.stop()
    third = Client(broker.port, "c1", device)
    assert third.begin(device.single("c1")) == b""
    fake.start()
    for client in (first, second, third):
        client.close()


def test_an_answer_about_another_key_lets_nobody_in(client: Client, fake: FakeAuthd) -> None:
    fake.decide = lambda _: Allow(key=Prover().id)
    assert client.begin(client.device.single("c1")) == b""


def test_a4_the_data_of_a_single_step_is_good_once(broker: Broker, fake: FakeAuthd) -> None:
    device = Prover()
    data = device.single("c1")
    codes = []
    for _ in range(2):
        client = Client(broker.port, "c1", device)
        codes.append(client.begin(data)[3])
        client.close()
    assert codes == [0, REFUSED]
    assert len(fake.questions) == 2


# --- again, on a live connection ----------------------------------------------------------------


@pytest.mark.parametrize("how", ["single", "challenge"])
def test_who_authenticates_again_keeps_the_session(
    client: Client,
    fake: FakeAuthd,
    how: str,
) -> None:
    fake.decide = lambda _: Allow(lease_ms=3000)
    begun = time.monotonic()
    client.online()
    session = fake.session_of("c1").session
    fake.decide = lambda _: Allow(rights=({"filter": "new/#", "actions": 1},))
    if how == "single":
        again = client.authenticate(client.device.single("c1"), reason=AUTHENTICATE_AGAIN)
    else:
        challenge = client.authenticate(client.device.hello(), reason=AUTHENTICATE_AGAIN)
        again = client.authenticate(client.device.response("c1", auth_data(challenge)))
    assert again[:3] == b"\xf0" + again[1:2] + b"\x00"
    assert fake.questions[1]["reauthenticates"] == session
    assert client.publish("new/a") == 0x10
    assert client.publish("site/a") == REFUSED
    time.sleep(max(0.0, begun + 3.2 - time.monotonic()))
    assert client.publish("new/a") == 0x10
    assert [r["what"] for r in fake.reports] == ["online"]


def test_a_snapshot_that_had_begun_undoes_no_authentication(
    client: Client, fake: FakeAuthd
) -> None:
    client.online()
    fake.holds_back = 40
    fake.end_stream()
    fake.wait_streams(2)
    fake.decide = lambda _: Allow(rights=({"filter": "new/#", "actions": 1},))
    client.authenticate(client.device.single("c1"), reason=AUTHENTICATE_AGAIN)
    fake.let_go()
    fake.wait_for(lambda: [one["client_id"] for one in fake.synced] == ["c1"])
    assert client.publish("new/a") == 0x10
    assert client.publish("site/a") == REFUSED
    fake.cut(key=client.device.id)
    client.wait_end()


def test_rights_that_are_newer_than_the_answer_are_not_undone_by_it(
    client: Client,
    fake: FakeAuthd,
) -> None:
    """They get here first, and for a session that the answer then replaces."""
    client.online()

    def narrow(_question: Json) -> None:
        session = fake.session_of("c1")
        session.rights = [{"filter": "new/#", "actions": 1}]
        fake.send("set", **session.as_json())

    fake.overtake = narrow
    client.authenticate(client.device.single("c1"), reason=AUTHENTICATE_AGAIN)
    eventually(lambda: client.publish("new/a") == 0x10)
    assert client.publish("site/a") == REFUSED
    assert fake.streams == 1


@pytest.mark.parametrize(
    "verdict",
    [Deny(), Deny(temporary=True), Allow(key=Prover().id), Allow(lease_ms=0)],
    ids=["denied", "for-now", "another-key", "ended"],
)
def test_who_fails_to_authenticate_again_is_disconnected(
    client: Client,
    fake: FakeAuthd,
    verdict: Allow | Deny,
) -> None:
    client.online()
    fake.decide = lambda _: verdict
    client.send(auth_packet(client.device.single("c1"), reason=AUTHENTICATE_AGAIN))
    client.wait_end()
    fake.wait_report("offline", "c1")


def test_another_key_cannot_take_a_session_by_authenticating_again(
    client: Client,
    fake: FakeAuthd,
) -> None:
    client.online()
    thief = Prover().single("c1")
    client.send(auth_packet(thief, reason=AUTHENTICATE_AGAIN))
    client.wait_end()
    fake.wait_report("offline", "c1")


def test_a_revoked_session_cannot_authenticate_again(client: Client, fake: FakeAuthd) -> None:
    client.online()
    asked = len(fake.questions)
    fake.cut(key=client.device.id)
    client.send(auth_packet(client.device.single("c1"), reason=AUTHENTICATE_AGAIN))
    client.wait_end()
    fake.wait_for(lambda: fake.reported("kicked", "c1") or fake.reported("not_found", "c1"))
    assert len(fake.questions) - asked <= 1


# --- the empty packet ---------------------------------------------------------------------------


def test_a52_an_empty_packet_on_an_accepted_connection_ends_it(
    broker: Broker,
    client: Client,
    fake: FakeAuthd,
) -> None:
    client.online()
    client.send(b"\xf0\x00\xf0\x00")
    client.wait_end()
    fake.wait_report("kicked", "c1")
    broker.wait_log("an authentication packet out of place")
    again = Client(broker.port, "c1", client.device).online()
    assert again.publish("site/a") == 0x10
    again.close()


def test_a52_an_empty_packet_denies_at_once(client: Client, fake: FakeAuthd) -> None:
    client.online()
    client.send(b"\xf0\x00" + publish_packet("site/a", b"x", qos=1, mid=7, level=5))
    assert b"\x40" not in client.wait_end()[:1]
    # 2.1 reads the next packet before TICK, and ends the connection by itself.
    fake.wait_for(lambda: fake.reported("kicked", "c1") or fake.reported("not_found", "c1"))


def test_a52_an_empty_packet_during_an_exchange_is_a_refusal(
    broker: Broker,
    client: Client,
    fake: FakeAuthd,
) -> None:
    client.begin(client.device.hello())
    client.send(b"\xf0\x00")
    assert client.packet()[3] == REFUSED
    assert client.wait_end() in NOTHING
    other = Client(broker.port, "c2", Prover()).online()
    other.authenticate(other.device.hello(), reason=AUTHENTICATE_AGAIN)
    other.send(b"\xf0\x00")
    other.wait_end()
    fake.wait_report("offline", "c2")
    other.close()


@pytest.mark.timeout(90)
def test_a_challenge_waits_ten_seconds(client: Client, fake: FakeAuthd) -> None:
    challenge = auth_data(client.begin(client.device.hello()))
    time.sleep(10.2)
    assert client.authenticate(client.device.response("c1", challenge))[3] == REFUSED
    assert fake.questions == []


def is_challenged(broker: Broker) -> bool:
    """Say whether one more client is challenged."""
    client = Client(broker.port, "one-more", Prover())
    packet = client.begin(client.device.hello())
    client.close()
    return packet[:1] == b"\xf0"


def test_a53_strangers_who_open_challenges_stop_nobody(broker: Broker, fake: FakeAuthd) -> None:
    """Neither one that is open, nor a session that authenticates again, nor a single step."""
    online = Client(broker.port, "online", Prover()).online()
    challenge = auth_data(online.authenticate(online.device.hello(), reason=AUTHENTICATE_AGAIN))
    first = Client(broker.port, "first", Prover())
    first_challenge = auth_data(first.begin(first.device.hello()))
    strangers = [Client(broker.port, f"c{i}", Prover()) for i in range(300)]
    told = [stranger.begin(stranger.device.hello()) for stranger in strangers]
    assert [packet != b"" for packet in told] == [True] * 190 + [False] * 110
    broker.wait_log("for now: too many challenges are open")
    again = online.authenticate(online.device.response("online", challenge))
    assert (again[0], again[2]) == (0xF0, 0x00)
    assert online.authenticate(online.device.hello(), reason=AUTHENTICATE_AGAIN)[2] == 0x18
    response = first.device.response("first", first_challenge)
    assert first.authenticate(response)[:1] == b"\x20"
    Client(broker.port, "single", Prover()).online().close()
    for client in (*strangers, first):
        client.close()
    eventually(lambda: is_challenged(broker))
    online.close()

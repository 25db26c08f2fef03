"""CONNECT: who is let in, who is refused, and how a refusal looks."""

import json
import time

import pytest

from tests.plugin.conftest import VERSION, Broker, StartBroker, tell
from tests.plugin.fake_authd import Allow, Deny, FakeAuthd, Raw, key_id
from tests.plugin.mqtt import REFUSED, V5, V311, RawClient, connect_packet, pop

DEVICE_PASSWORD = "AAECAwQFBgcICQoLDA0ODw"
UNAVAILABLE = 0x88
PROTOCOLS = pytest.mark.parametrize("protocol", [V311, V5], ids=["v3.1.1", "v5"])


def test_an_allowed_client_gets_in_and_is_reported(broker: Broker, fake: FakeAuthd) -> None:
    device = broker.device("c1")
    assert device.connect() == 0
    fake.wait_report("online", "c1")
    device.disconnect()
    fake.wait_report("offline", "c1")


@PROTOCOLS
def test_a_refusal_for_good_is_told_as_not_authorised(
    broker: Broker,
    fake: FakeAuthd,
    protocol: int,
) -> None:
    fake.decide = lambda _: Deny()
    assert broker.device("c1", protocol=protocol).connect() == REFUSED
    broker.wait_log("refused client c1 from 127.0.0.1: revoked: the grant is revoked")


@PROTOCOLS
def test_a_refusal_for_now_does_not_look_like_one_for_good(
    broker: Broker,
    fake: FakeAuthd,
    protocol: int,
) -> None:
    fake.decide = lambda _: Deny(reason="lookup", temporary=True)
    code = UNAVAILABLE if VERSION >= (2, 1) and protocol is V5 else None
    assert broker.device("c1", protocol=protocol).connect() == code
    broker.wait_log("refused client c1 from 127.0.0.1 for now: lookup")


@pytest.mark.parametrize(
    "verdict",
    [
        Raw(status=500),
        Raw(status=404, body="{}"),
        Raw(status=302, body="{}"),
        Raw(body=""),
        Raw(body="{}"),
        Raw(body='{"verdict":"allow"}'),
        Raw(status=201, body='{"verdict":"deny","reason":"x","detail":"y","temporary":false}'),
        Raw(body=json.dumps({"verdict": "allow", "pad": "x" * 2_000_000})),
    ],
    ids=["500", "404", "302", "empty", "no-verdict", "bare-allow", "201", "huge"],
)
def test_an_odd_answer_is_cannot_decide(broker: Broker, fake: FakeAuthd, verdict: Raw) -> None:
    fake.decide = lambda _: verdict
    assert broker.device("c1").connect() is None


def test_an_answer_about_another_key_is_cannot_decide(broker: Broker, fake: FakeAuthd) -> None:
    fake.decide = lambda _: Allow(key=key_id())
    assert broker.device("c1").connect() is None
    fake.wait_report("offline", "c1")


def test_a_lease_of_nothing_lets_nobody_in(broker: Broker, fake: FakeAuthd) -> None:
    fake.decide = lambda _: Allow(lease_ms=0)
    assert broker.device("c1").connect() is None
    fake.wait_report("offline", "c1")
    assert not fake.reported("online", "c1")


def test_nobody_gets_in_while_the_daemon_is_away(broker: Broker, fake: FakeAuthd) -> None:
    fake.stop()
    assert broker.device("c1").connect() is None
    fake.start()
    assert broker.device("c1").connect() == 0


def test_nobody_gets_in_if_the_socket_was_never_there(start_broker: StartBroker) -> None:
    assert start_broker().device("c1").connect() is None


def test_the_question_carries_what_the_contract_says(broker: Broker, fake: FakeAuthd) -> None:
    key, password = key_id(), pop(hint=True)
    broker.online("c1", key=key, password=password, protocol=V5, clean=False)
    question = {name: value for name, value in fake.questions[0].items() if name != "at"}
    assert question == {
        "broker": "hall",
        "boot": fake.boots.pop(),
        "client_id": "c1",
        "username": key,
        "password": password,
        "address": "127.0.0.1",
        "protocol": 5,
        "clean": False,
        "enforces": ["rights", "lease", "kick", "will"],
    }


def test_the_key_becomes_the_user_name_of_whoever_chose_another(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    key = key_id()
    fake.decide = lambda _: Allow(key=key)
    device = broker.online("c1", key="sensor", password=DEVICE_PASSWORD, protocol=V5)
    broker.wait_log(f"u'{key}'")
    assert device.publish("site/a") == 0x10
    device.subscribe("site/a")
    device.publish("site/a", b"mine", retain=True)
    assert device.receive() == ("site/a", b"mine")


def test_a_proof_with_a_wrong_time_is_left_to_the_daemon(broker: Broker, fake: FakeAuthd) -> None:
    fake.decide = lambda _: Deny(reason="clock")
    assert broker.device("c1", password=pop(time_s=1000)).connect() == REFUSED
    broker.wait_log("refused client c1 from 127.0.0.1: clock")


@pytest.mark.parametrize(
    "password",
    [
        pop(version=2),
        pop(time_s=2**40 - 1),
        pop()[:-1],
        pop() + "A",
        pop() + ".",
        pop() + ".A",
        pop() + ".gR",
        pop() + "." + "A" * 3001,
        pop() + ".gQ.gQ",
        pop()[:-1] + "=",
        pop()[:-1] + "+",
        pop(hint=True)[:-1] + "B",
        DEVICE_PASSWORD[:-1],
        DEVICE_PASSWORD[:-1] + "x",
        "",
        "x" * 60_000,
    ],
    ids=lambda password: f"{len(password)}-characters",
)
def test_what_is_no_credential_costs_no_question(
    broker: Broker,
    fake: FakeAuthd,
    password: str,
) -> None:
    assert broker.device("c1", password=password).connect() == REFUSED
    assert fake.questions == []


@pytest.mark.parametrize("password", [pop() + ".gQ", pop(hint=True), DEVICE_PASSWORD])
def test_each_form_of_credential_reaches_the_daemon(
    broker: Broker,
    fake: FakeAuthd,
    password: str,
) -> None:
    broker.online("c1", password=password)
    assert fake.questions[0]["password"] == password


@pytest.mark.parametrize(
    "username",
    ["authd-evict", "a/b", "+", "#", "ü", "x" * 65, "a b", "$x/y", "�"],
)
def test_a15_a16_user_names_outside_the_alphabet_are_refused(
    broker: Broker,
    fake: FakeAuthd,
    username: str,
) -> None:
    device = broker.device("c1", key=username, password=DEVICE_PASSWORD)
    assert device.connect() == REFUSED
    assert fake.questions == []


@pytest.mark.parametrize(
    "client_id",
    ["+", "#", "a/b", "/", "x" * 129, "ü", "a\x07", "\x7f", "http-api", "�"],
)
def test_a16_client_ids_outside_the_alphabet_are_refused(
    broker: Broker,
    fake: FakeAuthd,
    client_id: str,
) -> None:
    raw = RawClient(broker.port)
    raw.send(
        connect_packet(
            client_id=client_id.encode(), username=key_id().encode(), password=pop().encode()
        )
    )
    assert raw.receive() in (b"\x20\x02\x00\x05", b"")
    raw.close()
    assert fake.questions == []


@pytest.mark.parametrize(
    ("username", "password"),
    [(None, None), (key_id().encode(), None), (b"", b""), (key_id().encode(), b"")],
    ids=["nothing", "no-password", "both-empty", "empty-password"],
)
def test_missing_credentials_are_refused(
    broker: Broker,
    fake: FakeAuthd,
    username: bytes | None,
    password: bytes | None,
) -> None:
    raw = RawClient(broker.port)
    raw.send(connect_packet(client_id=b"c1", username=username, password=password))
    assert raw.receive() == b"\x20\x02\x00\x05"
    raw.close()
    assert fake.questions == []


@pytest.mark.parametrize(
    "password",
    [DEVICE_PASSWORD[:10] + "\0" + DEVICE_PASSWORD[10:], pop()[:50] + "\0" + pop()[50:]],
    ids=["device-password", "pop"],
)
def test_a15_a_password_with_a_nul_is_refused(
    broker: Broker,
    fake: FakeAuthd,
    password: str,
) -> None:
    raw = RawClient(broker.port)
    raw.send(
        connect_packet(client_id=b"c1", username=key_id().encode(), password=password.encode()),
    )
    assert raw.receive() == b"\x20\x02\x00\x05"
    raw.close()
    assert fake.questions == []


def test_an_assigned_client_id_reaches_the_daemon(broker: Broker, fake: FakeAuthd) -> None:
    """An empty client id never gets here: the broker makes one up, and the daemon judges that."""
    fake.decide = lambda question: Deny() if question["client_id"] else Allow()
    raw = RawClient(broker.port)
    raw.send(
        connect_packet(client_id=b"", username=key_id().encode(), password=pop().encode()),
    )
    assert raw.receive() == b"\x20\x02\x00\x05"
    raw.close()


def test_a22_another_key_cannot_take_over_a_live_client_id(
    broker: Broker,
    fake: FakeAuthd,
) -> None:
    """The daemon should refuse this; if it ever allows it, the plugin does not."""
    victim = broker.online("c1")
    assert broker.device("c1", key=key_id()).connect() is None
    assert not victim.ended
    assert victim.publish("site/a") == 0
    broker.wait_log("a live session of another key holds this client id")
    refused = fake.session_of("c1").session
    fake.wait_for(lambda: any(r["session"] == refused for r in fake.reports))


def test_a_client_may_take_itself_over(broker: Broker, fake: FakeAuthd) -> None:
    key = key_id()
    first = broker.online("c1", key=key)
    second = broker.online("c1", key=key)
    first.wait_end()
    assert second.subscribe("site/#") in (0, 1)
    second.publish("site/a", b"still here")
    assert second.receive() == ("site/a", b"still here")
    fake.wait_for(lambda: [r["what"] for r in fake.reports] == ["online", "offline", "online"])


def test_another_key_gets_the_client_id_once_it_is_free(broker: Broker, fake: FakeAuthd) -> None:
    first = broker.online("c1")
    first.disconnect()
    fake.wait_report("offline", "c1")
    broker.online("c1", key=key_id())


def test_one_address_cannot_ask_as_often_as_it_likes(
    start_broker: StartBroker,
    fake: FakeAuthd,
) -> None:
    broker = start_broker(options="plugin_opt_authd_rate 2")
    broker.wait_log("event stream open")
    fake.decide = lambda _: Deny()
    begun = time.monotonic()
    codes = [broker.device(f"c{i}").connect() for i in range(20)]
    allowed = 6 + 2 * (time.monotonic() - begun) + 1
    assert 6 <= len(fake.questions) <= allowed
    assert codes[:6] == [REFUSED] * 6
    assert codes[-1] is None
    broker.wait_log("too many attempts from this address")


def knock(broker: Broker, source: str, client_id: str) -> bool:
    """Connect from an address with what has the form of a proof; whether the answer was yes."""
    raw = RawClient(broker.port, source=source)
    name, password = key_id().encode(), pop().encode()
    raw.send(connect_packet(client_id=client_id.encode(), username=name, password=password))
    connack = raw.receive()
    raw.close()
    return connack == b"\x20\x02\x00\x00"


def test_a53_one_address_leaves_time_for_the_questions_of_others(
    start_broker: StartBroker,
    fake: FakeAuthd,
) -> None:
    broker = start_broker(options="")
    broker.wait_log("event stream open")
    fake.decide = lambda question: Deny() if question["client_id"] == "flood" else Allow()
    fake.delay_s = 0.004
    begun = time.monotonic()
    for _ in range(40):
        knock(broker, "127.0.0.2", "flood")
    asked = len(fake.questions)
    came_in = [knock(broker, "127.0.0.3", f"c{number}") for number in range(3)]
    tell(f"{asked} of 40 asked about, in {time.monotonic() - begun:.2f} s with the newcomers")
    assert 4 <= asked < 40
    assert came_in == [True] * 3
    broker.wait_log("the time for questions to authd is used up for this second")


def test_proofs_out_of_time_use_up_the_rate_faster(
    start_broker: StartBroker,
    fake: FakeAuthd,
) -> None:
    broker = start_broker(options="plugin_opt_authd_rate 5")
    broker.wait_log("event stream open")
    fake.decide = lambda _: Deny()
    begun = time.monotonic()
    for i in range(10):
        broker.device(f"c{i}", password=pop(time_s=1000)).connect()
    assert len(fake.questions) <= (15 + 5 * (time.monotonic() - begun)) / 5 + 1


def test_a54_the_log_has_no_password_in_it(broker: Broker, fake: FakeAuthd) -> None:
    passwords = [pop(), pop(hint=True), DEVICE_PASSWORD, pop() + ".gR"]
    for i, password in enumerate(passwords):
        broker.device(f"c{i}", password=password).connect()
    fake.decide = lambda _: Deny()
    broker.device("c9", password=passwords[0]).connect()
    log = broker.log.read_text()
    assert "refused client c9" in log
    assert not [password for password in passwords if password in log]

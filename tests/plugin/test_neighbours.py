"""A second plugin in the same broker: a no stays a no, or the log says who is in the way."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.plugin.conftest import Broker, StartBroker
from tests.plugin.fake_authd import PUB, SUB, Deny, FakeAuthd, by_client, key_id, rights
from tests.plugin.mqtt import REFUSED, V5, V311

SOURCE = Path(__file__).with_name("neighbour.c")
ORDERS = pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
Load = Callable[..., Broker]


@pytest.fixture(scope="session")
def neighbour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    library = tmp_path_factory.mktemp("neighbour") / "neighbour.so"
    subprocess.run(
        ["/usr/bin/gcc", "-shared", "-fPIC", "-Wall", "-o", str(library), str(SOURCE)], check=True
    )
    return library


@pytest.fixture
def load(start_broker: StartBroker, neighbour: Path, fake: FakeAuthd) -> Load:
    """Start a broker with a careless plugin before or after ours."""

    def start(what: str, *, first: bool) -> Broker:
        lines = f"plugin {neighbour}\nplugin_opt_neighbour {what}"
        broker = start_broker(
            extra=lines if first else "",
            options="plugin_opt_authd_rate 1000" + ("" if first else f"\n{lines}"),
        )
        broker.wait_log("event stream open")
        broker.wait_log(f"authd: another plugin is loaded, {neighbour}")
        return broker

    return start


@ORDERS
def test_a48_a_plugin_without_opinion_changes_nothing(
    load: Load,
    fake: FakeAuthd,
    *,
    first: bool,
) -> None:
    broker = load("defer", first=first)
    device = broker.online("c1", protocol=V5)
    assert device.publish("site/a") == 0x10
    assert device.publish("other") == REFUSED
    assert device.subscribe("other") == REFUSED
    fake.decide = lambda _: Deny()
    assert broker.device("c2").connect() == REFUSED


def test_a48_who_is_let_in_by_another_plugin_has_no_rights(load: Load, fake: FakeAuthd) -> None:
    broker = load("admit", first=True)
    device = broker.online("c1", protocol=V5)
    assert fake.questions == []
    assert device.publish("site/a") == REFUSED
    assert device.subscribe("site/a") == REFUSED
    broker.wait_log("client c1 came in without a question to authd")


def steal(broker: Broker, client_id: str, name: str) -> tuple[int, int]:
    """Come under a client id, let in by the other plugin; what SUBSCRIBE and PUBLISH are told."""
    thief = broker.online(client_id, key=name, password="open sesame", protocol=V5)
    told = thief.subscribe("site/#"), thief.publish("site/a")
    thief.disconnect()
    time.sleep(0.1)
    return told


@pytest.mark.parametrize(("protocol", "knows_the_key"), [(V5, False), (V311, True)])
def test_a48_who_is_let_in_by_another_plugin_gets_no_rights_with_a_handle_that_was_freed(
    load: Load,
    fake: FakeAuthd,
    protocol: int,
    *,
    knows_the_key: bool,
) -> None:
    """Of a session that may be kept, by the name alone; of one that is over, by nothing."""
    broker, told = load("phrase", first=True), set()
    for client_id in [f"c{number}" for number in range(12)]:
        key = key_id()
        broker.online(client_id, key=key, protocol=protocol).disconnect()
        fake.wait_report("offline", client_id)
        time.sleep(0.15)
        told |= {steal(broker, client_id, key if knows_the_key else "mallory") for _ in range(3)}
    assert told == {(REFUSED, REFUSED)}
    assert len(fake.questions) == 12


def test_a48_our_no_comes_before_another_plugins_yes(load: Load, fake: FakeAuthd) -> None:
    fake.decide = lambda question: Deny() if question["client_id"] == "c2" else rights()
    for what in ("allow", "admit"):
        broker = load(what, first=False)
        device = broker.online("c1", protocol=V5)
        assert device.publish("site/a") == REFUSED
        assert broker.device("c2").connect() == REFUSED
        broker.stop()
        broker.log.unlink()


@ORDERS
def test_a48_a_message_rewritten_into_a_forbidden_topic_reaches_nobody_without_that_right(
    load: Load,
    fake: FakeAuthd,
    *,
    first: bool,
) -> None:
    """The broker does not check a rewritten topic again, but each delivery is checked by it."""
    fake.decide = by_client(
        writer=rights(("site/#", PUB)),
        reader=rights(("site/#", SUB)),
        other=rights(("secret/#", SUB)),
    )
    broker = load("rewrite", first=first)
    reader, other = broker.online("reader"), broker.online("other")
    reader.subscribe("site/#")
    other.subscribe("secret/#")
    broker.online("writer").publish("site/a", b"x")
    assert other.receive() == ("secret/a", b"x")
    assert reader.receives_nothing()


def test_a_broker_with_authd_alone_names_nobody(broker: Broker) -> None:
    assert "another plugin is loaded" not in broker.log.read_text()

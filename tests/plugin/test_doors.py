"""Ways around BASIC_AUTH: packets that have no business on a connection."""

import pytest

from tests.plugin.conftest import Broker
from tests.plugin.fake_authd import FakeAuthd, key_id
from tests.plugin.mqtt import RawClient, connect_packet, pop


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

"""A client that speaks enhanced authentication (MQTT 5 §4.12) packet by packet."""

from tests.plugin.mqtt import (
    RawClient,
    auth_packet,
    auth_properties,
    connect_packet,
    publish_packet,
)
from tests.plugin.prover import Prover


class Client(RawClient):
    """A raw client that speaks enhanced authentication."""

    def __init__(self, port: int, client_id: str, device: Prover) -> None:
        super().__init__(port)
        self.client_id, self.device = client_id, device

    def begin(
        self,
        data: bytes | None,
        *,
        method: bytes = b"authd-1",
        username: bytes | None = None,
    ) -> bytes:
        """Send a CONNECT with this AUTH data; the first packet that comes back."""
        self.send(
            connect_packet(
                client_id=self.client_id.encode(),
                username=username,
                password=None,
                level=5,
                properties=auth_properties(data, method=method),
            ),
        )
        return self.packet()

    def authenticate(self, data: bytes | None, *, reason: int = 0x18) -> bytes:
        """Send an AUTH; the packet that comes back."""
        self.send(auth_packet(data, reason=reason))
        return self.packet()

    def online(self) -> "Client":
        """Connect by a single step."""
        connack = self.begin(self.device.single(self.client_id))
        assert connack[0] == 0x20
        assert connack[3] == 0
        return self

    def publish(self, topic: str) -> int:
        """Publish with QoS 1; the reason code."""
        self.send(publish_packet(topic, b"x", qos=1, mid=7, level=5))
        puback = self.packet()
        assert puback[0] == 0x40
        return puback[4] if len(puback) > 4 else 0

    def wait_end(self) -> bytes:
        """Read until the broker closes; what came."""
        data = b""
        while part := self.receive():
            data += part
        return data

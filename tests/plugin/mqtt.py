"""MQTT clients for the tests: one on paho, one that writes packets by hand."""

import base64
import contextlib
import queue
import secrets
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

WAIT_S: Final = 5.0
V311: Final = MQTTProtocolVersion.MQTTv311
V5: Final = MQTTProtocolVersion.MQTTv5


REFUSED: Final = 0x87


def eventually(claim: Callable[[], bool]) -> None:
    """Wait until a claim about the broker holds."""
    until = time.monotonic() + WAIT_S
    while not claim():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.02)


def pop(*, time_s: int | None = None, version: int = 1, hint: bool = False) -> str:
    """Make a password of the form of a proof; its signature is noise."""
    at = int(time.time()) if time_s is None else time_s
    tail = secrets.token_bytes(8 + (16 if hint else 0) + 64)
    data = bytes([version]) + at.to_bytes(5, "big") + tail
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]  # paho leaves it untyped


@dataclass(frozen=True)
class Will:
    """A last will."""

    topic: str
    payload: bytes = b"gone"
    retain: bool = False


class Device:
    """A paho client that never reconnects by itself and remembers what it saw."""

    def __init__(
        self,
        port: int,
        *,
        client_id: str,
        key: str,
        password: str | None = None,
        protocol: MQTTProtocolVersion = V311,
        clean: bool = True,
        will: Will | None = None,
        transport: Literal["tcp", "websockets"] = "tcp",
    ) -> None:
        self.client_id, self.key, self._port = client_id, key, port
        self._clean, self._v5 = clean, protocol is V5
        self.session_expiry_s = 300
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=protocol,
            transport=transport,
            reconnect_on_failure=False,
            clean_session=None if self._v5 else clean,
        )
        self._client.username_pw_set(key, pop() if password is None else password)
        if will is not None:
            self._client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        self.messages: queue.Queue[tuple[str, bytes, float]] = queue.Queue()
        self._connacks: queue.Queue[int] = queue.Queue()
        self._ends: queue.Queue[int] = queue.Queue()
        self._subacks: queue.Queue[int] = queue.Queue()
        self._pubacks: queue.Queue[int] = queue.Queue()
        self._unsubacks: queue.Queue[int] = queue.Queue()
        self._blind: set[int] = set()
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_subscribe = self._on_subscribe
        self._client.on_publish = self._on_publish
        self._client.on_unsubscribe = self._on_unsubscribe
        self._client.on_message = self._on_message

    def use_certificate(self, cert: Path, key: Path, authority: Path) -> None:
        """Connect by TLS with this certificate; `authority` vouches for the broker."""
        self._client.tls_set(ca_certs=str(authority), certfile=str(cert), keyfile=str(key))

    def show(self, username: str | None, password: str | None) -> None:
        """Show these in the next CONNECT, or nothing."""
        self._client.username_pw_set(username, password)

    def connect(self) -> int | None:
        """Connect; the reason code of the CONNACK, or None if there was none."""
        properties = None
        if self._v5:
            properties = _properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = 0 if self._clean else self.session_expiry_s
        self._client.connect(
            "127.0.0.1",
            self._port,
            clean_start=self._clean if self._v5 else paho.MQTT_CLEAN_START_FIRST_ONLY,
            properties=properties,
        )
        self._client.loop_start()
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            try:
                return self._connacks.get(timeout=0.02)
            except queue.Empty:
                if not self._ends.empty():
                    # A CONNACK comes before the end, so if there was one it is here by now.
                    return None if self._connacks.empty() else self._connacks.get()
        raise AssertionError("neither CONNACK nor an end")

    def wait_end(self, timeout_s: float = WAIT_S) -> int:
        """Wait until the connection ends; the reason code (MQTT 5)."""
        return self._ends.get(timeout=timeout_s)

    @property
    def ended(self) -> bool:
        return not self._ends.empty()

    def subscribe(self, topic_filter: str, *, qos: int = 1) -> int:
        """Subscribe; the reason code of the SUBACK."""
        self._client.subscribe(topic_filter, qos=qos)
        return self._subacks.get(timeout=WAIT_S)

    def publish(
        self, topic: str, payload: bytes = b"x", *, qos: int = 1, retain: bool = False
    ) -> int:
        """Publish; with QoS 1 the reason code of the PUBACK."""
        self._client.publish(topic, payload, qos=qos, retain=retain)
        return self._pubacks.get(timeout=WAIT_S)

    def publish_by_alias(self, topic: str, payload: bytes, *, set_alias: bool) -> int:
        """Publish under topic alias 1 (MQTT 5); the reason code of the PUBACK."""
        properties = _properties(PacketTypes.PUBLISH)
        properties.TopicAlias = 1
        name = topic if set_alias else ""
        self._client.publish(name, payload, qos=1, properties=properties)
        return self._pubacks.get(timeout=WAIT_S)

    def publish_blindly(self, topic: str, payload: bytes) -> None:
        """Publish with QoS 0 and do not care."""
        self._blind.add(self._client.publish(topic, payload).mid)

    def unsubscribe(self, topic_filter: str) -> int:
        """Unsubscribe; the reason code of the UNSUBACK (MQTT 5)."""
        self._client.unsubscribe(topic_filter)
        return self._unsubacks.get(timeout=WAIT_S)

    def receive(self, timeout_s: float = WAIT_S) -> tuple[str, bytes]:
        """Wait for the next message."""
        topic, payload, _ = self.messages.get(timeout=timeout_s)
        return topic, payload

    def receives_nothing(self, for_s: float = 0.4) -> bool:
        """Say whether no message came for a while."""
        try:
            self.messages.get(timeout=for_s)
        except queue.Empty:
            return True
        return False

    def drain(self, for_s: float = 0.4) -> list[bytes]:
        """Return the payloads of everything that comes until it is quiet for a while."""
        payloads = []
        with contextlib.suppress(queue.Empty):
            while True:
                payloads.append(self.messages.get(timeout=for_s)[1])
        return payloads

    def disconnect(self) -> None:
        """Leave properly."""
        self._client.disconnect()
        self._client.loop_stop()

    def vanish(self) -> None:
        """Close the socket without DISCONNECT."""
        sock = self._client.socket()
        assert isinstance(sock, socket.socket)
        sock.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()

    def close(self) -> None:
        """Release everything, whatever state it is in."""
        self._client.disconnect()
        self._client.loop_stop()

    def _on_connect(
        self,
        _client: paho.Client,
        _userdata: object,
        _flags: paho.ConnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._connacks.put(reason.value)

    def _on_disconnect(
        self,
        _client: paho.Client,
        _userdata: object,
        _flags: paho.DisconnectFlags,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        self._ends.put(reason.value)

    def _on_subscribe(
        self,
        _client: paho.Client,
        _userdata: object,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        self._subacks.put(reasons[0].value)

    def _on_publish(
        self,
        _client: paho.Client,
        _userdata: object,
        mid: int,
        reason: ReasonCode,
        _properties: Properties | None,
    ) -> None:
        if mid not in self._blind:
            self._pubacks.put(reason.value)

    def _on_unsubscribe(
        self,
        _client: paho.Client,
        _userdata: object,
        _mid: int,
        reasons: list[ReasonCode],
        _properties: Properties | None,
    ) -> None:
        self._unsubacks.put(reasons[0].value if reasons else 0)

    def _on_message(
        self, _client: paho.Client, _userdata: object, message: paho.MQTTMessage
    ) -> None:
        self.messages.put((message.topic, bytes(message.payload), time.monotonic()))


def _text(data: bytes) -> bytes:
    return struct.pack("!H", len(data)) + data


def _packet(kind: int, body: bytes) -> bytes:
    length, head = len(body), bytearray([kind])
    while True:
        length, low = divmod(length, 128)
        head.append(low | (0x80 if length else 0))
        if not length:
            return bytes(head) + body


def connect_packet(
    *,
    client_id: bytes,
    username: bytes | None,
    password: bytes | None,
    level: int = 4,
    properties: bytes = b"",
    clean: bool = True,
    will: bytes = b"",
    keepalive_s: int = 30,
) -> bytes:
    """Write a CONNECT byte by byte, so that a test may put anything into it; `will` is a topic."""
    flags = 0x02 * clean | (0x80 if username is not None else 0)
    flags |= (0x40 if password is not None else 0) | (0x0C if will else 0)
    body = _text(b"MQTT") + bytes([level, flags]) + struct.pack("!H", keepalive_s)
    body += bytes([len(properties)]) + properties if level == 5 else b""
    body += _text(client_id)
    if will:
        body += b"\x00" * (level == 5) + _text(will) + _text(b"gone")
    body += b"".join(_text(part) for part in (username, password) if part is not None)
    return _packet(0x10, body)


def subscribe_packet(topic: bytes, *, level: int = 4) -> bytes:
    """Write a SUBSCRIBE to one filter with QoS 1."""
    return _packet(0x82, b"\x00\x01" + b"\x00" * (level == 5) + _text(topic) + b"\x01")


def auth_properties(data: bytes | None, *, method: bytes = b"authd-1") -> bytes:
    """Write the properties of enhanced authentication (MQTT 5 §4.12)."""
    return b"\x15" + _text(method) + (b"" if data is None else b"\x16" + _text(data))


def auth_packet(data: bytes | None, *, reason: int = 0x18) -> bytes:
    """Write an AUTH packet."""
    properties = auth_properties(data)
    return _packet(0xF0, bytes([reason, len(properties)]) + properties)


def auth_data(packet: bytes) -> bytes:
    """Return the authentication data of a short AUTH packet."""
    return packet[packet.index(b"authd-1") + len("authd-1") + 3 :]


def publish_packet(topic: str, payload: bytes, *, qos: int, mid: int, level: int = 4) -> bytes:
    """Write a PUBLISH of QoS 1 or 2, without properties."""
    body = _text(topic.encode()) + struct.pack("!H", mid) + b"\x00" * (level == 5) + payload
    return _packet(0x30 | qos << 1, body)


class RawClient:
    """A socket that speaks whatever it is told to."""

    def __init__(self, port: int, *, source: str = "127.0.0.1") -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), WAIT_S, (source, 0))

    def send(self, packet: bytes) -> None:
        self._socket.sendall(packet)

    def packet(self) -> bytes:
        """Return the next packet, empty if the broker closed the connection. Only short ones."""
        head = self._exactly(2)
        return head + self._exactly(head[1]) if head else b""

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                part = self._socket.recv(count - len(data))
            except ConnectionError:
                return b""
            if not part:
                return b""
            data += part
        return data

    def receive(self) -> bytes:
        """Return the next bytes, empty if the broker closed the connection."""
        try:
            return self._socket.recv(4096)
        except ConnectionError:
            return b""

    def close(self) -> None:
        self._socket.close()

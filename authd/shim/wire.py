"""One MQTT packet, CONNECT, read and written again with another login; and the answer's code.

The fixed header is a type and a remaining length of one to four bytes (MQTT 5 §2.1); the body is
protocol name, level, flags, keep alive, properties (MQTT 5), then client id, will, user name and
password as far as the flags say so (MQTT 3.1.1 §3.1, MQTT 5 §3.1). What is passed on is kept as the
bytes it came in: properties and will are checked for their form and never interpreted.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from authd.errors import FormatError, LimitError

# A CONNECT holds a will at most; what is larger is not a CONNECT anybody needs.
MAX_CONNECT_BYTES: Final = 65_536
_MAX_FIELD_BYTES: Final = 65_535

_CONNECT, _CONNACK = 0x10, 0x20
_TLS_HANDSHAKE: Final = 0x16
_NAME: Final = b"MQTT"
_OLD_NAME: Final = b"MQIsdp"
_V311, _V5 = 4, 5
# Mosquitto's bridges set this bit of the level to say that they are bridges.
_BRIDGE: Final = 0x80

_WILL, _WILL_QOS, _WILL_RETAIN = 0x04, 0x18, 0x20
_PASSWORD, _USERNAME = 0x40, 0x80
_RESERVED: Final = 0x01
_MAX_LENGTH_BYTES: Final = 4

# Property identifier → length in bytes of its value, or the type of one that says its own length
# (MQTT 5 §2.2.2.2). Each may stand once, but for user properties.
_TEXT, _BINARY, _PAIR = -1, -2, -3
_USER_PROPERTY: Final = 0x26
_AUTH_METHOD, _AUTH_DATA = 0x15, 0x16
_CONNECT_PROPERTIES: Final[Mapping[int, int]] = {
    0x11: 4,  # session expiry interval
    0x15: _TEXT,  # authentication method
    0x16: _BINARY,  # authentication data
    0x17: 1,  # request problem information
    0x19: 1,  # request response information
    0x21: 2,  # receive maximum
    0x22: 2,  # topic alias maximum
    _USER_PROPERTY: _PAIR,
    0x27: 4,  # maximum packet size
}
_WILL_PROPERTIES: Final[Mapping[int, int]] = {
    0x01: 1,  # payload format indicator
    0x02: 4,  # message expiry interval
    0x03: _TEXT,  # content type
    0x08: _TEXT,  # response topic
    0x09: _BINARY,  # correlation data
    0x18: 4,  # will delay interval
    _USER_PROPERTY: _PAIR,
}


# A type, a remaining length, acknowledge flags and the code: what follows is of no interest.
ANSWER_BYTES: Final = 1 + _MAX_LENGTH_BYTES + 2
# The codes of a CONNACK (MQTT 3.1.1 §3.2.2.3, MQTT 5 §3.2.2.2) that say no.
_REFUSALS: Final[Mapping[int, str]] = {
    1: "protocol version not accepted",
    2: "client id refused",
    3: "server unavailable",
    4: "bad user name or password",
    5: "not authorized",
    0x80: "unspecified error",
    0x81: "malformed packet",
    0x82: "protocol error",
    0x83: "implementation specific error",
    0x84: "protocol version not accepted",
    0x85: "client id refused",
    0x86: "bad user name or password",
    0x87: "not authorized",
    0x88: "server unavailable",
    0x89: "server busy",
    0x8A: "banned",
    0x8C: "bad authentication method",
    0x90: "topic name of the will refused",
    0x95: "packet too large",
    0x97: "quota exceeded",
    0x99: "payload format of the will refused",
    0x9A: "retained will refused",
    0x9B: "quality of service of the will refused",
    0x9C: "use another server",
    0x9D: "server moved",
    0x9F: "connection rate exceeded",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """A CONNECT packet.

    Attributes:
        level: Protocol level, 4 or 5, with the bit 0x80 of a bridge.
        flags: Clean flag and the bits of the will; user name and password are the members below.
        keep_alive_s: 0 to 65 535 seconds; 0 is none.
        properties: MQTT 5: the properties without their length; empty in MQTT 3.1.1.
        client_id: May be empty.
        will: Will properties, topic and payload as they stand in the packet; empty without one.
        username: None where the packet carries none.
        password: None where the packet carries none.
    """

    level: int
    flags: int
    keep_alive_s: int
    properties: bytes
    client_id: str
    will: bytes
    username: str | None
    password: bytes | None

    def with_login(self, *, client_id: str, username: str, password: str) -> "Connect":
        """Return this packet with another client id, user name and password."""
        return replace(
            self, client_id=client_id, username=username, password=password.encode("ascii")
        )


def connect_length(head: bytes) -> int | None:
    """Return the length of a CONNECT packet, in bytes, from its first bytes; None for too few.

    Args:
        head: Untrusted. The beginning of what a client sent.

    Raises:
        FormatError: Not the beginning of a CONNECT.
        LimitError: Longer than ``MAX_CONNECT_BYTES``.
    """
    if head and head[0] != _CONNECT:
        tls = ": the client speaks TLS, the shim does not" if head[0] == _TLS_HANDSHAKE else ""
        raise FormatError(f"the first byte is {head[0]:#04x}, not that of a CONNECT{tls}")
    length, shift = 0, 0
    for place, byte in enumerate(head[1 : 1 + _MAX_LENGTH_BYTES]):
        length |= (byte & 0x7F) << shift
        if byte & 0x80:
            shift += 7
            continue
        if byte == 0 and place:
            raise FormatError("the remaining length is not written as short as it can be")
        if 2 + place + length > MAX_CONNECT_BYTES:
            raise LimitError(f"a CONNECT of {2 + place + length} bytes")
        return 2 + place + length
    if len(head) > _MAX_LENGTH_BYTES:
        raise FormatError("the remaining length has more than four bytes")
    return None


def parse_connect(packet: bytes) -> Connect:
    """Read a whole CONNECT packet of MQTT 3.1.1 or 5.

    Args:
        packet: Untrusted.

    Raises:
        FormatError: Not exactly one well-formed CONNECT, or of another version of MQTT.
        LimitError: Longer than ``MAX_CONNECT_BYTES``.
    """
    length = connect_length(packet)
    if length != len(packet):
        raise FormatError(f"not exactly one packet: {len(packet)} bytes")
    body = _Reader(packet, _body_at(packet))
    level = _take_level(body)
    flags = body.take(1)[0]
    _check_flags(flags, level)
    keep_alive_s = int.from_bytes(body.take(2), "big")
    properties, seen = _take_properties(body, _CONNECT_PROPERTIES) if _is_v5(level) else (b"", ())
    if _AUTH_METHOD in seen or _AUTH_DATA in seen:
        raise FormatError("the client authenticates by AUTH itself: connect it to the broker")
    client_id = body.text()
    will = _take_will(body, level) if flags & _WILL else b""
    connect = Connect(
        level=level,
        flags=flags & ~(_USERNAME | _PASSWORD),
        keep_alive_s=keep_alive_s,
        properties=properties,
        client_id=client_id,
        will=will,
        username=body.text() if flags & _USERNAME else None,
        password=body.binary() if flags & _PASSWORD else None,
    )
    body.finish()
    return connect


def encode_connect(connect: Connect) -> bytes:
    """Write a CONNECT packet; inverse of `parse_connect`.

    Raises:
        LimitError: A field is longer than 65 535 bytes, or the packet than ``MAX_CONNECT_BYTES``.
    """
    flags = (
        connect.flags
        | (_USERNAME if connect.username is not None else 0)
        | (_PASSWORD if connect.password is not None else 0)
    )
    parts = [
        _field(_NAME),
        bytes([connect.level, flags]),
        connect.keep_alive_s.to_bytes(2, "big"),
        _length(len(connect.properties)) + connect.properties if _is_v5(connect.level) else b"",
        _field(connect.client_id.encode()),
        connect.will,
        b"" if connect.username is None else _field(connect.username.encode()),
        b"" if connect.password is None else _field(connect.password),
    ]
    body = b"".join(parts)
    packet = bytes([_CONNECT]) + _length(len(body)) + body
    if len(packet) > MAX_CONNECT_BYTES:
        raise LimitError(f"a CONNECT of {len(packet)} bytes")
    return packet


def describe_refusal(head: bytes) -> str:
    """Say why a broker refused a CONNECT, from the first bytes it sent; empty if it did not.

    Args:
        head: Untrusted. At most ``ANSWER_BYTES`` are looked at; whatever is not the beginning of a
            CONNACK is no refusal.
    """
    if len(head) < 2 or head[0] != _CONNACK:  # noqa: PLR2004 - type and remaining length
        return ""
    length_end = next((at + 1 for at in range(1, len(head)) if not head[at] & 0x80), len(head))
    code_at = length_end + 1
    if length_end > 1 + _MAX_LENGTH_BYTES or code_at >= len(head) or not head[code_at]:
        return ""
    code = head[code_at]
    number = f"{code:#04x}" if code & 0x80 else str(code)
    return f"the broker's CONNACK is {number}, {_REFUSALS.get(code, 'an unknown code')}"


# --- parts ------------------------------------------------------------------------------------


class _Reader:
    """Takes fields off the front of a packet."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self.at = at

    def take(self, count: int) -> bytes:
        part = self._data[self.at : self.at + count]
        if len(part) != count:
            raise FormatError("the packet ends in the middle of a field")
        self.at += count
        return part

    def since(self, start: int) -> bytes:
        return self._data[start : self.at]

    def more(self) -> bool:
        return self.at < len(self._data)

    def binary(self) -> bytes:
        return self.take(int.from_bytes(self.take(2), "big"))

    def text(self) -> str:
        """Take a UTF-8 string (MQTT 5 §1.5.4)."""
        try:
            text = self.binary().decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError("a text is not UTF-8") from error
        if "\0" in text:
            raise FormatError("a text holds U+0000")
        return text

    def variable(self) -> int:
        value = 0
        for place in range(_MAX_LENGTH_BYTES):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << (7 * place)
            if not byte & 0x80:
                if byte == 0 and place:
                    break
                return value
        raise FormatError("a length is not written as short as it can be")

    def finish(self) -> None:
        if self.more():
            raise FormatError("bytes are left after the last field")


def _body_at(packet: bytes) -> int:
    """Return where the body of a packet with a checked length begins."""
    return next(at + 1 for at in range(1, len(packet)) if not packet[at] & 0x80)


def _is_v5(level: int) -> bool:
    return level & ~_BRIDGE == _V5


def _take_level(body: _Reader) -> int:
    name, level = body.binary(), body.take(1)[0]
    if name == _OLD_NAME:
        raise FormatError("MQTT 3.1 is not spoken here: set the client to MQTT 3.1.1 or 5")
    if name != _NAME or level & ~_BRIDGE not in (_V311, _V5):
        raise FormatError("neither MQTT 3.1.1 nor MQTT 5")
    return level


def _check_flags(flags: int, level: int) -> None:
    will_bits = flags & (_WILL_QOS | _WILL_RETAIN)
    if flags & _RESERVED or flags & _WILL_QOS == _WILL_QOS:
        raise FormatError("a reserved flag is set")
    if will_bits and not flags & _WILL:
        raise FormatError("flags of a will without a will")
    if flags & _PASSWORD and not flags & _USERNAME and not _is_v5(level):
        raise FormatError("a password without a user name")


def _take_will(body: _Reader, level: int) -> bytes:
    start = body.at
    if _is_v5(level):
        _take_properties(body, _WILL_PROPERTIES)
    body.text()
    body.binary()
    return body.since(start)


def _take_properties(body: _Reader, known: Mapping[int, int]) -> tuple[bytes, Collection[int]]:
    """Take properties, checking each (MQTT 5 §2.2.2); their bytes, and which there are."""
    data = body.take(body.variable())
    reader = _Reader(data)
    seen: set[int] = set()
    while reader.more():
        identifier = reader.take(1)[0]
        if identifier not in known:
            raise FormatError(f"property {identifier:#04x} has no place here")
        if identifier in seen and identifier != _USER_PROPERTY:
            raise FormatError(f"property {identifier:#04x} stands twice")
        seen.add(identifier)
        _skip(reader, known[identifier])
    return data, seen


def _skip(reader: _Reader, kind: int) -> None:
    if kind == _BINARY:
        reader.binary()
    elif kind == _TEXT:
        reader.text()
    elif kind == _PAIR:
        reader.text()
        reader.text()
    else:
        reader.take(kind)


def _length(value: int) -> bytes:
    """Write a variable byte integer (MQTT 5 §1.5.5)."""
    data = bytearray()
    while True:
        value, low = divmod(value, 128)
        data.append(low | (0x80 if value else 0))
        if not value:
            return bytes(data)


def _field(data: bytes) -> bytes:
    if len(data) > _MAX_FIELD_BYTES:
        raise LimitError(f"a field of {len(data)} bytes")
    return len(data).to_bytes(2, "big") + data

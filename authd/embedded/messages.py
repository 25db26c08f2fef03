"""MQTT 3.1.1 CONNECT and CONNACK (OASIS MQTT 3.1.1 §3.1, §3.2), bytes in and values out.

The gate reads CONNECT itself, because amqtt acts on one before it has asked anybody: it ends or
changes an existing session of the same client id. Only what the gate admitted reaches amqtt, in a
CONNECT that is written anew here, without user name, password and keep-alive.
"""

from dataclasses import dataclass
from typing import Final

from authd.errors import FormatError, LimitError

CONNECT_TYPE: Final = 0x10
# The longest password is 3 200 characters; the rest is for a client id and a will.
MAX_CONNECT_BYTES: Final = 16_384

PROTOCOL_NAME: Final = b"MQTT"
LEVEL_3_1_1: Final = 4
LEVEL_5: Final = 5

_USERNAME: Final = 0x80
_PASSWORD: Final = 0x40
_WILL_RETAIN: Final = 0x20
_WILL_QOS: Final = 0x18
_WILL: Final = 0x04
_CLEAN_SESSION: Final = 0x02
_RESERVED: Final = 0x01
_MAX_QOS: Final = 2
_MAX_LENGTH_BYTES: Final = 4
_CONTINUES: Final = 0x80

# MQTT 3.1.1 §3.2.2.3; temporary refusals are none of these: the gate closes without an answer,
# because many clients give up for ever on 4 and 5.
REFUSED_VERSION: Final = b"\x20\x02\x00\x01"
REFUSED_CLIENT_ID: Final = b"\x20\x02\x00\x02"
REFUSED_NOT_AUTHORIZED: Final = b"\x20\x02\x00\x05"
# MQTT 5 §3.2.2.2, `unsupported protocol version`, without properties.
REFUSED_VERSION_5: Final = b"\x20\x03\x00\x84\x00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker publishes for a client that goes without saying so."""

    topic: str
    message: bytes
    qos: int
    retain: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Connect:
    """A CONNECT that is well-formed; nothing in it is verified.

    Attributes:
        client_id: May be empty.
        username: Empty if absent.
        password: Empty if absent.
        clean_session: Whether earlier state is to be dropped, and none kept.
        keep_alive_s: 0 to 65 535; 0 means none.
        will: What to publish on an abnormal end, if anything.
    """

    client_id: str
    username: str
    password: str
    clean_session: bool
    keep_alive_s: int
    will: Will | None


@dataclass(frozen=True, slots=True, kw_only=True)
class UnsupportedVersion:
    """A CONNECT of another protocol level than 3.1.1's."""

    level: int

    @property
    def answer(self) -> bytes:
        """The CONNACK that a client of that level understands."""
        return REFUSED_VERSION_5 if self.level == LEVEL_5 else REFUSED_VERSION


def parse_length(data: bytes) -> int | None:
    """Read a remaining length (MQTT 3.1.1 §2.2.3); None if more bytes are needed.

    Raises:
        FormatError: Longer than four bytes.
        LimitError: More than `MAX_CONNECT_BYTES`.
    """
    value = 0
    for index, byte in enumerate(data):
        if index == _MAX_LENGTH_BYTES:
            raise FormatError("remaining length is longer than four bytes")
        value |= (byte & ~_CONTINUES) << (7 * index)
        if not byte & _CONTINUES:
            if value > MAX_CONNECT_BYTES:
                raise LimitError(f"connect of `{value}` bytes is longer than {MAX_CONNECT_BYTES}")
            return value
    if len(data) >= _MAX_LENGTH_BYTES:
        raise FormatError("remaining length is longer than four bytes")
    return None


def parse_connect(body: bytes) -> Connect | UnsupportedVersion:
    """Parse what follows the fixed header of a CONNECT.

    Args:
        body: Untrusted; exactly as long as the remaining length says.

    Raises:
        FormatError: Against a rule of MQTT 3.1.1 §3.1, or text that is not UTF-8.
    """
    reader = _Reader(body)
    name = reader.take_bytes()
    level = reader.take_int(1)
    if name != PROTOCOL_NAME or level != LEVEL_3_1_1:
        return UnsupportedVersion(level=level)
    flags = reader.take_int(1)
    _check_flags(flags)
    keep_alive_s = reader.take_int(2)
    client_id = reader.take_text()
    will = _take_will(reader, flags) if flags & _WILL else None
    username = reader.take_text() if flags & _USERNAME else ""
    password = reader.take_text() if flags & _PASSWORD else ""
    reader.finish()
    return Connect(
        client_id=client_id,
        username=username,
        password=password,
        clean_session=bool(flags & _CLEAN_SESSION),
        keep_alive_s=keep_alive_s,
        will=will,
    )


def encode_connect(connect: Connect) -> bytes:
    """Write a whole CONNECT packet; `parse_connect` reads it back."""
    flags = _CLEAN_SESSION if connect.clean_session else 0
    payload = _text(connect.client_id)
    if connect.will is not None:
        flags |= _WILL | connect.will.qos << 3 | (_WILL_RETAIN if connect.will.retain else 0)
        payload += _text(connect.will.topic) + _sized(connect.will.message)
    if connect.username or connect.password:
        flags |= _USERNAME
        payload += _text(connect.username)
    if connect.password:
        flags |= _PASSWORD
        payload += _text(connect.password)
    keep_alive = connect.keep_alive_s.to_bytes(2)
    body = _sized(PROTOCOL_NAME) + bytes([LEVEL_3_1_1, flags]) + keep_alive + payload
    return bytes([CONNECT_TYPE]) + _encode_length(len(body)) + body


def _check_flags(flags: int) -> None:
    if flags & _RESERVED:
        raise FormatError("reserved connect flag is set")  # MQTT-3.1.2-3
    if not flags & _WILL and flags & (_WILL_QOS | _WILL_RETAIN):
        raise FormatError("will flags are set without a will")  # MQTT-3.1.2-13, -15
    if (flags & _WILL_QOS) >> 3 > _MAX_QOS:
        raise FormatError("will quality of service is 3")  # MQTT-3.1.2-14
    if flags & _PASSWORD and not flags & _USERNAME:
        raise FormatError("a password without a user name")  # MQTT-3.1.2-22


def _take_will(reader: "_Reader", flags: int) -> Will:
    return Will(
        topic=reader.take_text(),
        message=reader.take_bytes(),
        qos=(flags & _WILL_QOS) >> 3,
        retain=bool(flags & _WILL_RETAIN),
    )


class _Reader:
    """Takes fields off the front of a packet."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take_int(self, size: int) -> int:
        return int.from_bytes(self._take(size))

    def take_bytes(self) -> bytes:
        return self._take(self.take_int(2))

    def take_text(self) -> str:
        try:
            text = self.take_bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise FormatError("text is not UTF-8") from error  # MQTT-1.5.3-1
        if "\x00" in text:
            raise FormatError("text holds a null character")  # MQTT-1.5.3-2
        return text

    def finish(self) -> None:
        if self._at != len(self._data):
            raise FormatError("bytes are left after the last field")

    def _take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise FormatError("packet ends inside a field")
        self._at += size
        return taken


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data


def _text(text: str) -> bytes:
    return _sized(text.encode())


def _encode_length(value: int) -> bytes:
    encoded = bytearray()
    while True:
        value, byte = value >> 7, value & ~_CONTINUES & 0x7F
        encoded.append(byte | (_CONTINUES if value else 0))
        if not value:
            return bytes(encoded)

"""CONNECT packets, as clients send them and as they may be drawn."""

from hypothesis import strategies as st

from authd.shim.wire import Connect

V311, V5, BRIDGE = 4, 5, 0x80


def text(data: str | bytes) -> bytes:
    raw = data.encode() if isinstance(data, str) else data
    return len(raw).to_bytes(2, "big") + raw


def packet(body: bytes, *, first: int = 0x10) -> bytes:
    """Write a packet around a body, with the shortest remaining length."""
    length, head = len(body), bytearray([first])
    while True:
        length, low = divmod(length, 128)
        head.append(low | (0x80 if length else 0))
        if not length:
            return bytes(head) + body


def body(
    *,
    level: int = V311,
    flags: int = 0x02,
    properties: bytes | None = None,
    fields: bytes = text("lamp"),
    name: bytes = b"MQTT",
) -> bytes:
    """Write a CONNECT's body field by field, so that any of them may be wrong."""
    block = bytes([len(properties)]) + properties if properties is not None else b""
    return text(name) + bytes([level, flags]) + b"\0\x1e" + block + fields


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40)
_BYTES = st.binary(max_size=40)


def _number(identifier: int, size: int) -> st.SearchStrategy[bytes]:
    return st.binary(min_size=size, max_size=size).map(lambda value: bytes([identifier]) + value)


def _block(*once: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Draw properties: some of those that may stand once, and user properties."""
    pairs = st.lists(
        st.tuples(TEXTS, TEXTS).map(lambda two: b"\x26" + text(two[0]) + text(two[1])), max_size=3
    )
    some = st.tuples(*(st.one_of(st.just(b""), one) for one in once)).map(b"".join)
    return st.tuples(some, pairs).map(lambda drawn: drawn[0] + b"".join(drawn[1]))


CONNECT_PROPERTIES = _block(
    _number(0x11, 4), _number(0x17, 1), _number(0x19, 1), _number(0x21, 2), _number(0x27, 4)
)
WILL_PROPERTIES = _block(
    _number(0x01, 1),
    _number(0x18, 4),
    TEXTS.map(lambda value: b"\x03" + text(value)),
    _BYTES.map(lambda value: b"\x09" + text(value)),
)


def _variable(data: bytes) -> bytes:
    return packet(data)[1:]


@st.composite
def connects(draw: st.DrawFn) -> Connect:
    """Draw any CONNECT that is well formed."""
    level = draw(st.sampled_from([V311, V5])) | draw(st.sampled_from([0, BRIDGE]))
    v5 = level & ~BRIDGE == V5
    will = b""
    flags = draw(st.sampled_from([0, 0x02]))
    if draw(st.booleans()):
        flags |= 0x04 | draw(st.sampled_from([0, 0x08, 0x10])) | draw(st.sampled_from([0, 0x20]))
        will = _variable(draw(WILL_PROPERTIES)) if v5 else b""
        will += text(draw(TEXTS)) + text(draw(_BYTES))
    username = draw(st.none() | TEXTS)
    allowed = v5 or username is not None
    return Connect(
        level=level,
        flags=flags,
        keep_alive_s=draw(st.integers(0, 65_535)),
        properties=draw(CONNECT_PROPERTIES) if v5 else b"",
        client_id=draw(TEXTS),
        will=will,
        username=username,
        password=draw(st.none() | _BYTES) if allowed else None,
    )

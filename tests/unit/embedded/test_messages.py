import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authd.embedded.messages import (
    MAX_CONNECT_BYTES,
    REFUSED_VERSION,
    REFUSED_VERSION_5,
    Connect,
    UnsupportedVersion,
    Will,
    encode_connect,
    parse_connect,
    parse_length,
)
from authd.errors import FormatError, LimitError

HEAD = b"\x00\x04MQTT\x04"
text = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)
wills = st.builds(
    Will,
    topic=text,
    message=st.binary(max_size=40),
    qos=st.integers(0, 2),
    retain=st.booleans(),
)
connects = st.builds(
    Connect,
    client_id=text,
    username=text,
    password=text,
    clean_session=st.booleans(),
    keep_alive_s=st.integers(0, 65_535),
    will=st.none() | wills,
)


def body_of(packet: bytes) -> bytes:
    assert packet[0] == 0x10
    size = 1
    while packet[size] & 0x80:
        size += 1
    body = packet[size + 1 :]
    assert parse_length(packet[1 : size + 1]) == len(body)
    return body


@given(connects)
def test_a_written_connect_reads_back(connect: Connect) -> None:
    assert parse_connect(body_of(encode_connect(connect))) == connect


@given(st.binary(max_size=80) | st.binary(max_size=80).map(lambda data: HEAD + data))
def test_any_bytes_give_a_value_or_a_format_error(data: bytes) -> None:
    with contextlib.suppress(FormatError):
        assert isinstance(parse_connect(data), Connect | UnsupportedVersion)


@given(connects, st.integers(min_value=0))
def test_a_connect_cut_short_or_made_longer_is_refused(connect: Connect, at: int) -> None:
    body = body_of(encode_connect(connect))
    with pytest.raises(FormatError):
        parse_connect(body[: at % len(body)])
    with pytest.raises(FormatError):
        parse_connect(body + b"\x00")


def test_a_connect_as_the_standard_writes_it() -> None:
    body = HEAD + b"\xee\x00\x0a\x00\x01c\x00\x03w/t\x00\x02\xff\x00\x00\x01u\x00\x01p"
    assert parse_connect(body) == Connect(
        client_id="c",
        username="u",
        password="p",
        clean_session=True,
        keep_alive_s=10,
        will=Will(topic="w/t", message=b"\xff\x00", qos=1, retain=True),
    )


@pytest.mark.parametrize(
    ("flags", "rest", "complaint"),
    [
        (0x03, b"", "reserved"),
        (0x0A, b"", "without a will"),
        (0x22, b"", "without a will"),
        (0x1E, b"\x00\x01t\x00\x00", "quality of service"),
        (0x42, b"\x00\x01p", "without a user name"),
        (0x82, b"\x00\x01\xff", "not UTF-8"),
        (0x82, b"\x00\x03a\x00b", "null character"),
        (0x82, b"\x00\x03\xed\xa0\x80", "not UTF-8"),
        (0x82, b"\x00\x05a", "ends inside"),
        (0x02, b"x", "left after"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_its_reason(
    flags: int,
    rest: bytes,
    complaint: str,
) -> None:
    with pytest.raises(FormatError, match=complaint):
        parse_connect(HEAD + bytes([flags]) + b"\x00\x00\x00\x01c" + rest)


@pytest.mark.parametrize(
    ("start", "level", "answer"),
    [
        (b"\x00\x04MQTT\x05", 5, REFUSED_VERSION_5),
        (b"\x00\x04MQTT\x03", 3, REFUSED_VERSION),
        (b"\x00\x06MQIsdp\x03", 3, REFUSED_VERSION),
        (b"\x00\x04mqtt\x04", 4, REFUSED_VERSION),
    ],
)
def test_another_version_is_named_with_the_answer_it_understands(
    start: bytes,
    level: int,
    answer: bytes,
) -> None:
    found = parse_connect(start + b"\x02\x00\x00\x00\x00")
    assert found == UnsupportedVersion(level=level)
    assert isinstance(found, UnsupportedVersion)
    assert found.answer == answer


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (b"", None),
        (b"\x80", None),
        (b"\x00", 0),
        (b"\x7f", 127),
        (b"\x80\x01", 128),
        (b"\x80\x80\x01", MAX_CONNECT_BYTES),
    ],
)
def test_a_remaining_length_is_read_as_soon_as_it_is_complete(
    data: bytes,
    length: int | None,
) -> None:
    assert parse_length(data) == length


def test_a_remaining_length_that_is_too_large_or_too_long_is_refused() -> None:
    with pytest.raises(LimitError):
        parse_length(b"\x81\x80\x01")
    for endless in (b"\x80" * 4, b"\x80" * 4 + b"\x01"):
        with pytest.raises(FormatError):
            parse_length(endless)

"""A CONNECT is read strictly, and written again with nothing but the login changed."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authd.errors import FormatError, LimitError
from authd.shim.wire import (
    MAX_CONNECT_BYTES,
    Connect,
    connect_length,
    encode_connect,
    parse_connect,
)
from tests.unit.shim.packets import V5, body, connects, packet, text

BOUNDED = settings(max_examples=200, deadline=None, database=None)
# By mosquitto_sub 2.0.11 with `-i lamp -u u -P p --will-topic t --will-payload w -V mqttv5`.
MOSQUITTO_SUB = bytes.fromhex(
    "102100044d51545405c6003c0321001400046c616d7000000174000177000175000170"
)


def test_what_mosquitto_sub_sends_is_read() -> None:
    got = parse_connect(MOSQUITTO_SUB)
    assert (got.level, got.keep_alive_s, got.client_id) == (5, 60, "lamp")
    assert (got.properties, got.will) == (b"\x21\0\x14", b"\0" + text("t") + text("w"))
    assert (got.username, got.password) == ("u", b"p")


@BOUNDED
@given(connects())
def test_what_is_written_is_read_as_the_same(connect: Connect) -> None:
    written = encode_connect(connect)
    assert connect_length(written[:5]) == len(written)
    assert parse_connect(written) == connect


@BOUNDED
@given(connects(), st.text(st.characters(codec="ascii", exclude_characters="\0"), max_size=300))
def test_a_new_login_changes_nothing_but_the_login(connect: Connect, password: str) -> None:
    fresh = connect.with_login(client_id="lamp", username="key", password=password)
    got = parse_connect(encode_connect(fresh))
    assert (got.client_id, got.username, got.password) == ("lamp", "key", password.encode())
    assert connect == replace(
        got, client_id=connect.client_id, username=connect.username, password=connect.password
    )


def refuse(data: bytes) -> None:
    """Take any bytes: a packet that is read is written again as it was."""
    try:
        connect = parse_connect(data)
    except (FormatError, LimitError):
        return
    assert encode_connect(connect) == data


@BOUNDED
@given(st.binary(max_size=200))
def test_any_bytes_are_a_packet_or_refused(data: bytes) -> None:
    refuse(data)
    refuse(packet(data))
    refuse(packet(body()[:10] + data))


@BOUNDED
@given(connects(), st.integers(0, 10_000), st.integers(0, 255))
def test_a_changed_byte_is_another_packet_or_refused(
    connect: Connect, place: int, value: int
) -> None:
    data = bytearray(encode_connect(connect))
    data[place % len(data)] = value
    refuse(bytes(data))
    refuse(bytes(data[: place % len(data)]))


@BOUNDED
@given(st.binary(max_size=8))
def test_any_beginning_has_a_length_or_needs_more_or_is_refused(head: bytes) -> None:
    try:
        length = connect_length(head)
    except (FormatError, LimitError):
        return
    assert length is None or 2 <= length <= MAX_CONNECT_BYTES


WILL = text("t") + text("gone")
WRONG = {
    "another packet": packet(body(), first=0xC0),
    "flags in the first byte": packet(body(), first=0x11),
    "TLS": bytes.fromhex("1603010200010001fc0303"),
    "another protocol": packet(body(name=b"MQTS")),
    "MQTT 3.1": packet(body(name=b"MQIsdp", level=3)),
    "level 6": packet(body(level=6)),
    "level 3": packet(body(level=3)),
    "the reserved flag": packet(body(flags=0x03)),
    "a will of QoS 3": packet(body(flags=0x1E, fields=text("lamp") + WILL)),
    "a will's QoS without a will": packet(body(flags=0x0A)),
    "a will's retain without a will": packet(body(flags=0x22)),
    "a password alone": packet(body(flags=0x42, fields=text("lamp") + text("x"))),
    "a client id cut off": packet(body(fields=b"\0\x05lamp")),
    "no client id": packet(body(fields=b"")),
    "no will": packet(body(flags=0x06)),
    "no user name": packet(body(flags=0x82)),
    "more than fields": packet(body(fields=text("lamp") + b"x")),
    "more than a packet": packet(body()) + b"\xe0\0",
    "less than a packet": packet(body())[:-1],
    "a client id that is no UTF-8": packet(body(fields=text(b"\xff\xfe"))),
    "a surrogate": packet(body(fields=text(b"\xed\xa0\x80"))),
    "U+0000": packet(body(fields=text(b"a\0b"))),
    "an unknown property": packet(body(level=V5, properties=b"\x7f\0")),
    "a will's property": packet(body(level=V5, properties=b"\x18\0\0\0\0")),
    "a property twice": packet(body(level=V5, properties=b"\x17\1\x17\1")),
    "a property cut off": packet(body(level=V5, properties=b"\x11\0\0")),
    "half a pair": packet(body(level=V5, properties=b"\x26" + text("a"))),
    "properties cut off": packet(body(level=V5, properties=b"")[:-7] + b"\x7f"),
    "no properties": packet(text("MQTT") + b"\x05\x02\0\x1e"),
    "a length in more bytes than needed": packet(
        text("MQTT") + b"\x05\x02\0\x1e\x80\0" + text("lamp")
    ),
    "a length of five bytes": packet(
        text("MQTT") + b"\x05\x02\0\x1e\x80\x80\x80\x80\1" + text("lamp")
    ),
    "data without a method": packet(body(level=V5, properties=b"\x16" + text("x"))),
    "a remaining length in more bytes than needed": b"\x10\x90\x00" + body()[:16],
    "a remaining length of five bytes": b"\x10\x80\x80\x80\x80\x01",
    "nothing": b"",
    "one byte": b"\x10",
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_a_connect_is_refused(what: str) -> None:
    with pytest.raises(FormatError):
        parse_connect(WRONG[what])


def test_a_client_that_speaks_tls_is_told_so() -> None:
    with pytest.raises(FormatError, match="speaks TLS"):
        connect_length(WRONG["TLS"])


def test_a_client_that_authenticates_by_itself_is_sent_to_the_broker() -> None:
    properties = b"\x15" + text("authd-1") + b"\x16" + text("x")
    with pytest.raises(FormatError, match="connect it to the broker"):
        parse_connect(packet(body(level=V5, properties=properties)))


def test_a_packet_over_64_kib_is_refused_by_its_first_bytes() -> None:
    longest = packet(bytes(MAX_CONNECT_BYTES - 4))
    assert connect_length(longest[:5]) == MAX_CONNECT_BYTES
    with pytest.raises(LimitError):
        connect_length(packet(bytes(MAX_CONNECT_BYTES - 3))[:5])


@pytest.mark.parametrize("will", [60_000, 65_500])
def test_a_packet_that_grows_over_64_kib_is_refused(will: int) -> None:
    fields = text("lamp") + text("t") + text(bytes(will))
    connect = parse_connect(packet(body(flags=0x06, fields=fields)))
    with pytest.raises(LimitError):
        encode_connect(
            connect.with_login(client_id="lamp", username="key", password="x" * (70_000 - will))
        )

import pytest

from authd.core.addresses import is_address, is_loopback_address, is_worth_dialling, join_address


@pytest.mark.parametrize("text", ["host:1", "192.0.2.1:65535", "[2001:db8::1]:8184", "a-b.c_d:80"])
def test_what_can_be_dialled_is_an_address(text: str) -> None:
    assert is_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":1",
        "host",
        "host:",
        "host:0",
        "host:65536",
        "unix:/run/x:1",
        "2001:db8::1:80",
        "[host]:1",
        "[::1:1",
        "h st:1",
        "ho\nst:1",
        "host:¹",
        "dns:///x:1",
        "x" * 260 + ":1",
    ],
)
def test_what_cannot_be_dialled_is_none(text: str) -> None:
    assert not is_address(text)


def test_an_address_has_255_characters_at_most() -> None:
    assert is_address("x" * 250 + ":8184")
    assert not is_address("x" * 251 + ":8184")


def test_an_address_is_joined_as_it_is_read() -> None:
    assert join_address("192.0.2.1", 8184) == "192.0.2.1:8184"
    assert join_address("2001:db8::1", 8184) == "[2001:db8::1]:8184"
    assert is_address(join_address("2001:db8::1", 8184))


LOOPBACK = [
    "127.0.0.1:1",
    "127.9.9.9:1",
    "[::1]:1",
    "[::ffff:127.0.0.1]:1",
    "localhost:1",
    "LOCALHOST.:1",
    "a.localhost:1",
]


@pytest.mark.parametrize("text", LOOPBACK)
def test_loopback_is_dialled_only_by_whoever_is_known_by_it(text: str) -> None:
    assert is_loopback_address(text)
    assert is_worth_dialling(text, on_loopback=True)
    assert not is_worth_dialling(text, on_loopback=False)


@pytest.mark.parametrize(
    "text", ["192.0.2.1:8184", "10.0.0.1:1", "[2001:db8::1]:8184", "b.example:1", "[fd00::1]:1"]
)
def test_addresses_of_hosts_are_worth_dialling(text: str) -> None:
    assert not is_loopback_address(text)
    assert is_worth_dialling(text, on_loopback=False)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nowhere",
        "0.0.0.0:1",
        "0.1.2.3:1",
        "224.0.0.251:5353",
        "255.255.255.255:1",
        "240.0.0.1:1",
        "[::]:1",
        "[ff02::fb]:5353",
        "[fe80::1]:1",
        "[::ffff:0.0.0.0]:1",
        "127.1:1",
        "2130706433:1",
        "0x7f.1:1",
        "host.0x7f:1",
    ],
)
def test_what_leads_nowhere_is_not_dialled(text: str) -> None:
    assert not is_worth_dialling(text, on_loopback=True)

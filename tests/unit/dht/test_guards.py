"""Cookies, tokens, rates, admission: what stands before any work."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest

from authd.core.identity import PublicKey
from authd.dht.gate import Gate
from authd.dht.messages import SEAL_BYTES
from authd.dht.rates import RateLimiter
from authd.dht.responder import fit_grants
from authd.dht.seals import Seals
from authd.dht.udp import address_text, parse_host_port
from authd.errors import ConfigError
from tests.unit.dht.nodes import make_key

HERE = ("192.0.2.1", 8184)
SEALS = Seals(secret=bytes(32))


def test_a_cookie_counts_for_its_address_and_some_minutes() -> None:
    cookie = SEALS.cookie(HERE, now=1_000.0)
    assert len(cookie) == SEAL_BYTES
    assert SEALS.is_cookie(cookie, HERE, now=1_299.0)
    assert not SEALS.is_cookie(cookie, HERE, now=1_900.0)
    assert not SEALS.is_cookie(cookie, ("192.0.2.1", 8185), now=1_000.0)
    assert not SEALS.is_cookie(cookie, ("192.0.2.2", 8184), now=1_000.0)
    assert not SEALS.is_cookie(b"", HERE, now=1_000.0)
    assert not Seals(secret=bytes(31) + b"x").is_cookie(cookie, HERE, now=1_000.0)


def test_a_token_counts_for_its_target_only_and_is_no_cookie() -> None:
    token = SEALS.token(HERE, bytes(20), now=0.0)
    assert SEALS.is_token(token, HERE, bytes(20), now=299.0)
    assert not SEALS.is_token(token, HERE, b"x" * 20, now=0.0)
    assert not SEALS.is_cookie(token, HERE, now=0.0)
    assert not SEALS.is_token(SEALS.cookie(HERE, now=0.0), HERE, bytes(20), now=0.0)


def test_a_rate_is_kept_for_each_address_apart() -> None:
    limiter = RateLimiter(rate_per_s=10, burst=5)
    assert sum(limiter.allows("a", now=0.0) for _ in range(20)) == 5
    assert limiter.allows("b", now=0.0)
    assert sum(limiter.allows("a", now=0.3) for _ in range(20)) == 3


def test_a_flood_from_many_addresses_is_forgotten_in_order() -> None:
    limiter = RateLimiter(rate_per_s=1, burst=1)
    for number in range(30_000):
        limiter.allows(str(number), now=0.0)
    assert len(limiter._levels) == 20_000


@dataclass
class CountingAdmission:
    admitted: set[PublicKey] = field(default_factory=set)
    asked: int = 0

    def admits(self, node: PublicKey) -> bool:
        self.asked += 1
        return node in self.admitted

    def is_own(self, node: PublicKey) -> bool:
        return node in self.admitted

    def admission_grants(self) -> list[bytes]:
        return [b"own"]

    def learn_grants(self, grants: Iterable[bytes]) -> None:
        self.admitted.add(make_key("node").public)


def test_an_admission_is_remembered_for_a_moment_and_a_refusal_never() -> None:
    node, port = make_key("node").public, CountingAdmission()
    gate = Gate(port)
    assert not gate.admits(node, now=0.0)
    assert not gate.admits(node, now=0.0)
    gate.learn([b"grant"])
    assert gate.admits(node, now=1.0)
    assert gate.admits(node, now=2.0)
    assert port.asked == 3
    port.admitted.clear()
    assert not gate.admits(node, now=12.0)


def test_a_dropped_node_is_asked_about_at_once() -> None:
    node, port = make_key("node").public, CountingAdmission()
    gate = Gate(port)
    gate.learn([])
    assert gate.admits(node, now=0.0)
    port.admitted.clear()
    gate.drop(node)
    assert not gate.admits(node, now=0.0)
    assert gate.grants() == [b"own"]


def test_grants_are_shown_as_far_as_they_fit() -> None:
    assert fit_grants([bytes(200)] * 4) == (bytes(200),) * 4
    assert fit_grants([bytes(600)] * 4) == (bytes(600),)
    assert fit_grants([bytes(1_200)]) == ()
    assert fit_grants([bytes(10)] * 9) == (bytes(10),) * 4


@pytest.mark.parametrize(
    ("text", "address"),
    [("example.org:1", ("example.org", 1)), ("[2001:db8::1]:8184", ("2001:db8::1", 8184))],
)
def test_addresses_are_read_as_they_are_written(text: str, address: tuple[str, int]) -> None:
    assert parse_host_port(text) == address
    assert address_text(address) == text


@pytest.mark.parametrize(
    "text", ["", "host", ":1", "host:", "host:0", "host:65536", "host:¹", "h:+1"]
)
def test_what_is_no_address_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match="`"):
        parse_host_port(text)

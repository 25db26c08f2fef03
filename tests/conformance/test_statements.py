"""The vectors of statements, roots, proofs and records through Python."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from authd.core.challenge import Hello, begin_exchange, parse_first, verify_response
from authd.core.claims import Kind
from authd.core.counter import check_rises, parse_counter, verify_counter
from authd.core.encoding import encode_base64url
from authd.core.identity import DomainId, PublicKey, admit_key, parse_id
from authd.core.proofs import Audience, UnverifiedPop, parse_credentials, verify_pop, verify_stapled
from authd.core.records import verify_record
from authd.core.roots import verify_root
from authd.core.statements import verify
from authd.discovery.slots import read_rendezvous
from authd.errors import AuthdError
from authd.service.issuing import decode_bundle, decode_ticket, encode_bundle, encode_ticket
from tests.vectors.make import FOLDER, vectors

FILES = sorted(FOLDER.glob("*/*.txt"))


@dataclass(frozen=True)
class Scenario:
    """One file: its header and what is judged."""

    header: dict[str, str]
    body: bytes

    @property
    def now(self) -> int:
        return int(self.header["now"])


def read(path: Path) -> Scenario:
    head, _, body = path.read_text(encoding="ascii").partition("\n\n")
    header = dict(line.split(": ", 1) for line in head.split("\n"))
    return Scenario(header, bytes.fromhex(body.replace("\n", "")))


def _statement(scenario: Scenario) -> str:
    kind = Kind[scenario.header["kind"].upper()]
    return encode_base64url(verify(kind, scenario.body).statement_id)


def _root(scenario: Scenario) -> str:
    encoded = scenario.header.get("previous")
    previous = verify_root(bytes.fromhex(encoded), previous=None) if encoded else None
    now = scenario.now if "now" in scenario.header else None
    root = verify_root(scenario.body, previous=previous, now=now)
    return encode_base64url(root.statement_id)


def _proof(scenario: Scenario) -> str:
    header = scenario.header
    pop = parse_credentials(header["username"], scenario.body.decode("ascii"))
    assert isinstance(pop, UnverifiedPop)
    verify_stapled(pop.stapled)
    verify_pop(
        pop,
        key=_key(scenario),
        audiences=[_audience(scenario)],
        client_id=header["client-id"],
        now=scenario.now,
    )
    return ""


def _counter(scenario: Scenario) -> str:
    header = scenario.header
    proof = verify_counter(
        parse_counter(header["username"], scenario.body.decode("ascii")),
        key=_key(scenario),
        audiences=[_audience(scenario)],
        client_id=header["client-id"],
    )
    assert check_rises(proof, last=None) == proof.counter
    return ""


def _single(scenario: Scenario) -> str:
    first = parse_first(scenario.body)
    assert isinstance(first, UnverifiedPop)
    verify_pop(
        first,
        key=_key(scenario),
        audiences=[_audience(scenario)],
        client_id=scenario.header["client-id"],
        now=scenario.now,
    )
    return ""


def _response(scenario: Scenario) -> str:
    header = scenario.header
    hello = parse_first(bytes.fromhex(header["hello"]))
    assert isinstance(hello, Hello)
    exchange = begin_exchange(hello, nonce=bytes.fromhex(header["challenge"])[1:])
    assert exchange.challenge.hex() == header["challenge"]
    verify_response(
        exchange,
        scenario.body,
        key=_key(scenario),
        audiences=[_audience(scenario)],
        client_id=header["client-id"],
    )
    return ""


def _key(scenario: Scenario) -> PublicKey:
    return admit_key(bytes.fromhex(scenario.header["key"]))


def _audience(scenario: Scenario) -> Audience:
    domain, _, endpoint = scenario.header["audience"].partition("/")
    return Audience(DomainId(parse_id(domain)), endpoint)


def _record(scenario: Scenario) -> str:
    verify_record(scenario.body, now=scenario.now)
    return ""


def _rendezvous(scenario: Scenario) -> str:
    record = verify_record(scenario.body, now=scenario.now)
    read_rendezvous(record, domain=DomainId(bytes.fromhex(scenario.header["domain"])))
    return ""


def _bundle(scenario: Scenario) -> str:
    assert encode_bundle(decode_bundle(scenario.body)) == scenario.body
    return ""


def _ticket(scenario: Scenario) -> str:
    assert encode_ticket(decode_ticket(scenario.body)) == scenario.body
    return ""


JUDGES: dict[str, Callable[[Scenario], str]] = {
    "grant": _statement,
    "revoke": _statement,
    "heartbeat": _statement,
    "broker": _statement,
    "root": _root,
    "proof": _proof,
    "counter": _counter,
    "single": _single,
    "response": _response,
    "record": _record,
    "rendezvous": _rendezvous,
    "bundle": _bundle,
    "ticket": _ticket,
}


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_vector_ends_as_it_says(path: Path) -> None:
    scenario = read(path)
    assert _judge(scenario) == (scenario.header["expect"], scenario.header.get("id", ""))


def _judge(scenario: Scenario) -> tuple[str, str]:
    try:
        return "ok", JUDGES[scenario.header["kind"]](scenario)
    except AuthdError as error:
        return error.reason.value, ""


def test_the_files_are_what_their_generator_writes() -> None:
    written = {
        f"{path.parent.name}/{path.name}": path.read_text(encoding="ascii") for path in FILES
    }
    assert written == {vector.path: vector.render() for vector in vectors()}


def test_every_kind_has_vectors_that_pass_and_that_do_not() -> None:
    for kind in JUDGES:
        results = {
            read(path).header["expect"] == "ok" for path in FILES if path.parent.name == kind
        }
        assert results == {True, False}

"""What a device shows at CONNECT, as targets."""

from random import Random

from authd.core.challenge import Hello as ExchangeHello
from authd.core.challenge import (
    begin_exchange,
    make_hello,
    make_response,
    make_single,
    parse_first,
    verify_response,
)
from authd.core.counter import make_counter, parse_counter, verify_counter
from authd.core.encoding import decode, decode_base64url, encode, encode_base64url
from authd.core.proofs import (
    UnverifiedPop,
    make_pop,
    parse_credentials,
    parse_stapled,
    verify_pop,
    verify_stapled,
)
from authd.errors import (
    ProofError,
)
from tests.bench.fuzz_inputs import damaged, encoded, odd_value
from tests.bench.fuzz_target import LAMP, PARSED, VERIFIED, WORLD, Target, as_text, vectors_of
from tests.unit.core.world import (
    NOW,
    id_of,
    make_grant,
)


def _credentials(text: str) -> object:
    username, _, password = text.partition(" ")
    found = parse_credentials(username, password)
    if not isinstance(found, UnverifiedPop):
        return found
    verify_stapled(found.stapled)
    return verify_pop(found, key=LAMP.public, audiences=[WORLD.audience], client_id="lamp", now=NOW)


def _pop(*, staple: bool) -> bytes:
    password = make_pop(
        LAMP,
        audience=WORLD.audience,
        client_id="lamp",
        time=NOW,
        nonce=bytes(8),
        path=[make_grant("X", "lamp")] if staple else (),
    )
    return f"{id_of('lamp')} {password}".encode()


def _repacked(rng: Random, seed: bytes) -> bytes:
    """Change what is inside the base64url, so that the outside stays well-formed."""
    username, _, password = seed.partition(b" ")
    head, dot, path = password.partition(b".")
    pieces = [decode_base64url(one.decode()) for one in (head, path)]
    at = 1 if dot and rng.random() < 0.7 else 0
    if at:
        pieces[1] = encoded(odd_value(rng, decode(pieces[1], max_bytes=4_000)))
    else:
        pieces[0] = damaged(rng, pieces[0], pieces)
    texts = [encode_base64url(one).encode() for one in pieces]
    return username + b" " + texts[0] + (b"." + texts[1] if dot else b"")


def proofs() -> list[Target]:
    pops = [_pop(staple=staple) for staple in (False, True)]
    counters = [
        make_counter(LAMP, audience=WORLD.audience, client_id="lamp", counter=count)
        for count in (0, 7, 2**63 - 1)
    ]
    stapled = encode_base64url(encode([make_grant("X", "lamp").encoded])).encode()

    def counter(text: str) -> object:
        found = parse_counter(id_of("lamp"), text)
        return verify_counter(found, key=LAMP.public, audiences=[WORLD.audience], client_id="lamp")

    user = id_of("lamp").encode() + b" "
    return [
        Target(
            name="credentials",
            decode=as_text(_credentials),
            refusals=(*VERIFIED, ProofError),
            seeds=[
                *pops,
                user + b"A" * 22,
                b"kitchen " + b"A" * 22,
                *(user + body for body in vectors_of("proof")),
            ],
            resealed=lambda rng, _: _repacked(rng, rng.choice(pops)),
        ),
        Target(
            name="stapled path",
            decode=as_text(lambda text: verify_stapled(parse_stapled(text))),
            refusals=VERIFIED,
            seeds=[stapled],
        ),
        Target(
            name="counter proof",
            decode=as_text(counter),
            refusals=(*PARSED, ProofError),
            seeds=[*(one.encode() for one in counters), *vectors_of("counter")],
        ),
        *_exchanges(),
    ]


def _exchanges() -> list[Target]:
    audience, nonce = WORLD.audience, bytes(16)
    hello = make_hello(LAMP.public, nonce=nonce)
    parsed = parse_first(hello)
    assert isinstance(parsed, ExchangeHello)
    exchange = begin_exchange(parsed, nonce=nonce)
    single = make_single(LAMP, audience=audience, client_id="lamp", time=NOW, nonce=bytes(8))

    def answer(challenge: bytes) -> bytes:
        return make_response(LAMP, challenge, audience=audience, client_id="lamp", nonce=bytes(16))

    return [
        Target(
            name="first of an exchange",
            decode=parse_first,
            refusals=PARSED,
            seeds=[hello, single, *vectors_of("single")],
        ),
        Target(name="challenge", decode=answer, refusals=PARSED, seeds=[exchange.challenge]),
        Target(
            name="response",
            decode=lambda data: verify_response(
                exchange, data, key=LAMP.public, audiences=[audience], client_id="lamp"
            ),
            refusals=(*PARSED, ProofError),
            seeds=[answer(exchange.challenge), *vectors_of("response")],
        ),
    ]

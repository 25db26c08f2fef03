"""MQTT 5 enhanced authentication, method ``authd-1`` (MQTT 5 §4.12), as bytes of AUTH data.

The first byte says which message it is:

- 1, *single step*, in CONNECT: ``key id(16) ‖ time(5) ‖ nonce(8) ‖ [issuer hint(16)] ‖
  signature(64)``; a pop in binary, signed under form 3, judged like any pop.
- 2, *hello*, in CONNECT or to re-authenticate: ``key id(16) ‖ client nonce(16) ‖ [hint(16)]``.
- 3, *challenge*, from the broker: ``server nonce(16)``.
- 4, *response*: ``signature(64)`` over the deterministic CBOR array of label, domain id, endpoint,
  client id, client nonce and server nonce.

A challenge is answered once: the caller forgets the `Exchange` with the first response, whatever
it is. The server's nonce makes a response fresh, so there is no clock and no replay store in it.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from authd.core.encoding import encode
from authd.core.grants import Form, is_client_id
from authd.core.identity import (
    ID_BYTES,
    SIGNATURE_BYTES,
    KeyId,
    PublicKey,
    SigningKey,
    key_id,
    key_id_text,
    verify_signature,
)
from authd.core.proofs import (
    NONCE_BYTES,
    Audience,
    UnverifiedPop,
    VerifiedProof,
    pop_message,
)
from authd.errors import FormatError, ProofError, SignatureError

METHOD: Final = "authd-1"
CHALLENGE_LABEL: Final = "authd/challenge/1"
EXCHANGE_NONCE_BYTES: Final = 16
_SINGLE, _HELLO, _CHALLENGE, _RESPONSE = 1, 2, 3, 4
_TIME_BYTES: Final = 5
_SINGLE_BYTES: Final = ID_BYTES + _TIME_BYTES + NONCE_BYTES + SIGNATURE_BYTES
_HELLO_BYTES: Final = ID_BYTES + EXCHANGE_NONCE_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """The first message of a challenge and response; it proves nothing."""

    key_id: KeyId
    nonce: bytes
    issuer_hint: KeyId | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A challenge that waits for its one response."""

    hello: Hello
    nonce: bytes

    @property
    def challenge(self) -> bytes:
        """What is sent to the client."""
        return bytes([_CHALLENGE]) + self.nonce


def parse_first(data: bytes) -> UnverifiedPop | Hello:
    """Read the AUTH data of a CONNECT, or of the AUTH that begins a re-authentication.

    Args:
        data: Untrusted.

    Raises:
        FormatError: Neither a single step nor a hello, by first byte and exact length.
    """
    kind, body = data[:1], data[1:]
    if kind == bytes([_SINGLE]) and len(body) in (_SINGLE_BYTES, _SINGLE_BYTES + ID_BYTES):
        return _parse_single(body)
    if kind == bytes([_HELLO]) and len(body) in (_HELLO_BYTES, _HELLO_BYTES + ID_BYTES):
        hint = body[_HELLO_BYTES:]
        return Hello(
            key_id=KeyId(body[:ID_BYTES]),
            nonce=body[ID_BYTES:_HELLO_BYTES],
            issuer_hint=KeyId(hint) if hint else None,
        )
    raise FormatError(f"not the first message of `{METHOD}`: {len(data)} bytes")


def _parse_single(body: bytes) -> UnverifiedPop:
    nonce_at = ID_BYTES + _TIME_BYTES
    hint = body[nonce_at + NONCE_BYTES : -SIGNATURE_BYTES]
    return UnverifiedPop(
        key_id=KeyId(body[:ID_BYTES]),
        time=int.from_bytes(body[ID_BYTES:nonce_at], "big"),
        nonce=body[nonce_at : nonce_at + NONCE_BYTES],
        issuer_hint=KeyId(hint) if hint else None,
        signature=body[-SIGNATURE_BYTES:],
        enhanced=True,
    )


def make_single(
    key: SigningKey,
    *,
    audience: Audience,
    client_id: str,
    time: int,
    nonce: bytes,
    issuer_hint: KeyId | None = None,
) -> bytes:
    """Make the AUTH data of a CONNECT that needs no answer; arguments as for `make_pop`.

    Raises:
        FormatError: A nonce of another length than 8, or an odd client id.
    """
    if len(nonce) != NONCE_BYTES or not is_client_id(client_id):
        raise FormatError(f"a nonce of 8 bytes and a client id are needed, not `{client_id}`")
    message = pop_message(
        form=Form.CHALLENGE, audience=audience, client_id=client_id, time=time, nonce=nonce
    )
    head = key_id(key.public) + time.to_bytes(_TIME_BYTES, "big") + nonce + (issuer_hint or b"")
    return bytes([_SINGLE]) + head + key.sign(message)


def make_hello(key: PublicKey, *, nonce: bytes, issuer_hint: KeyId | None = None) -> bytes:
    """Make the first message; ``nonce`` is 16 random bytes.

    Raises:
        FormatError: A nonce of another length.
    """
    _check_nonce(nonce)
    return bytes([_HELLO]) + key_id(key) + nonce + (issuer_hint or b"")


def begin_exchange(hello: Hello, *, nonce: bytes) -> Exchange:
    """Answer a hello with a challenge; ``nonce`` is 16 random bytes, never used before.

    Raises:
        FormatError: A nonce of another length.
    """
    _check_nonce(nonce)
    return Exchange(hello=hello, nonce=nonce)


def _check_nonce(nonce: bytes) -> None:
    if len(nonce) != EXCHANGE_NONCE_BYTES:
        raise FormatError(f"a nonce of {len(nonce)} bytes where {EXCHANGE_NONCE_BYTES} are needed")


def response_message(
    *, audience: Audience, client_id: str, client_nonce: bytes, server_nonce: bytes
) -> bytes:
    """Build what a response signs; one deterministic CBOR array."""
    return encode(
        [
            CHALLENGE_LABEL,
            audience.domain,
            audience.endpoint,
            client_id,
            client_nonce,
            server_nonce,
        ],
    )


def make_response(
    key: SigningKey, challenge: bytes, *, audience: Audience, client_id: str, nonce: bytes
) -> bytes:
    """Answer a challenge.

    Args:
        key: The device's.
        challenge: Untrusted; from the broker.
        audience: The broker's domain and the ``host:port`` dialled, lower case.
        client_id: As the CONNECT carried it.
        nonce: The client's, as in the hello.

    Raises:
        FormatError: Not a challenge.
    """
    if challenge[:1] != bytes([_CHALLENGE]) or len(challenge) != 1 + EXCHANGE_NONCE_BYTES:
        raise FormatError(f"not a challenge of `{METHOD}`: {len(challenge)} bytes")
    message = response_message(
        audience=audience, client_id=client_id, client_nonce=nonce, server_nonce=challenge[1:]
    )
    return bytes([_RESPONSE]) + key.sign(message)


def verify_response(
    exchange: Exchange,
    data: bytes,
    *,
    key: PublicKey,
    audiences: Iterable[Audience],
    client_id: str,
) -> VerifiedProof:
    """Verify the response to a challenge; the exchange is over, whatever comes out.

    Args:
        exchange: The challenge that was sent on this connection.
        data: Untrusted.
        key: The key of the hello's key id.
        audiences: What the broker goes by.
        client_id: As the CONNECT carried it.

    Raises:
        FormatError: Not a response.
        ProofError: `ReasonCode.BAD_SIGNATURE`, or another key than the hello named.
    """
    if data[:1] != bytes([_RESPONSE]) or len(data) != 1 + SIGNATURE_BYTES:
        raise FormatError(f"not a response of `{METHOD}`: {len(data)} bytes")
    for audience in audiences if key_id(key) == exchange.hello.key_id else ():
        message = response_message(
            audience=audience,
            client_id=client_id,
            client_nonce=exchange.hello.nonce,
            server_nonce=exchange.nonce,
        )
        try:
            verify_signature(key, message, data[1:])
        except SignatureError:
            continue
        return VerifiedProof(key=key, form=Form.CHALLENGE, client_id=client_id, audience=audience)
    raise ProofError(
        f"the response does not verify for key `{key_id_text(key)}` and client id `{client_id}`",
    )

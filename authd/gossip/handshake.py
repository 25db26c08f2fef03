"""The first two frames of each side: who is there, proven, and admitted."""

import asyncio
from dataclasses import dataclass
from typing import Final, TypeVar

from authd.core.identity import ID_BYTES, PublicKey, SigningKey
from authd.errors import FormatError, NoResponseError, RejectedError
from authd.gossip.messages import MAX_SHOWN_GRANTS, NONCE_BYTES, Challenge, Frame, Hello, Proof
from authd.gossip.transport import Link
from authd.gossip.wire import encode_frame, parse_frame
from authd.service.ports import Admission, Entropy

HANDSHAKE_S: Final = 5.0
_F = TypeVar("_F", bound=Frame)


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """The other end of a stream, proven and admitted.

    Attributes:
        key: Its node key.
        run: Id of that run of its daemon.
        stream_key: Key of this stream's fingerprints.
        we_dialled: Whether this end opened the stream.
    """

    key: PublicKey
    run: bytes
    stream_key: bytes
    we_dialled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Introducer:
    """Makes the acquaintance of whoever is at the other end of a stream."""

    key: SigningKey
    run: bytes
    entropy: Entropy
    admission: Admission

    async def introduce(self, link: Link, *, we_dialled: bool) -> Introduction:
        """Exchange keys, proofs and admission grants.

        Raises:
            NoResponseError: The stream ended, or it took too long.
            FormatError: A frame that is malformed or out of order.
            SignatureError: The other end does not hold the key it named.
            RejectedError: It is not admitted here, or is this node itself.
        """
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                return await self._introduce(link, we_dialled=we_dialled)
        except TimeoutError as error:
            raise NoResponseError("the other end did not introduce itself in time") from error

    async def _introduce(self, link: Link, *, we_dialled: bool) -> Introduction:
        nonce = self.entropy.token(NONCE_BYTES)
        ours = Hello(key=self.key.public, nonce=nonce, run=self.run)
        await link.write(encode_frame(ours))
        theirs = await _expect(link, Hello)
        ends = (ours, theirs) if we_dialled else (theirs, ours)
        challenge = Challenge(dialler=ends[0], acceptor=ends[1])
        grants = tuple(self.admission.admission_grants()[:MAX_SHOWN_GRANTS])
        proof = Proof(signature=challenge.sign(self.key), grants=grants)
        await link.write(encode_frame(proof))
        shown = await _expect(link, Proof)
        challenge.verify(theirs.key, shown.signature)
        if theirs.key == self.key.public:
            raise RejectedError("the other end is this node itself")
        if not self.admission.admits(theirs.key):
            self.admission.learn_grants(shown.grants)
        if not self.admission.admits(theirs.key):
            raise RejectedError("a node shows no admission grant that counts here")
        return Introduction(
            key=theirs.key,
            run=theirs.run,
            stream_key=challenge.stream_key(),
            we_dialled=we_dialled,
        )


async def _expect(link: Link, kind: type[_F]) -> _F:
    frame = parse_frame(await link.read())
    if not isinstance(frame, kind):
        raise FormatError(f"gossip: expected a {kind.__name__.lower()} frame first")
    return frame


RUN_BYTES: Final = ID_BYTES

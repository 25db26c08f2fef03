"""Reconnects that a plugin judges by itself: for which sessions, and what it tells of them.

A plugin may check further pops of a session with the session's own key while nothing else could
have seen such a pop: no other broker entry and no other daemon goes by that audience. It tells of
each one afterwards; the nonce is used up then.
"""

from typing import Final

from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.grants import Form
from authd.core.identity import key_id
from authd.core.limits import PROOF_WINDOW_S
from authd.core.proofs import NONCE_BYTES
from authd.errors import FormatError
from authd.service.brokers import Brokers
from authd.service.neighbours import Neighbours
from authd.service.ports import Clock, ReplayStore
from authd.service.sessions import Session

# As many as a plugin keeps: one that has them all asks about every CONNECT.
MAX_SEEN: Final = 200_000
_TIME_BYTES: Final = 5


class Reconnects:
    """What a plugin needs to judge reconnects, and what it has judged."""

    def __init__(
        self,
        *,
        brokers: Brokers,
        neighbours: Neighbours,
        used: ReplayStore,
        clock: Clock,
    ) -> None:
        """Wire the parts."""
        self._brokers = brokers
        self._neighbours = neighbours
        self._used = used
        self._clock = clock

    def terms(self, session: Session) -> dict[str, str] | None:
        """Return what the plugin may verify pops of a session with; None if it may not."""
        audience, entry = session.proof.audience, self._brokers.get(session.broker)
        if entry is None or not entry.verifies or session.proof.form is not Form.POP:
            return None
        if audience not in entry.audiences or not self._brokers.is_sole(entry, audience):
            return None
        if not self._neighbours.is_alone(audience):
            return None
        return {
            "public": encode_base64url(session.key),
            "domain": encode_base64url(audience.domain),
            "endpoint": audience.endpoint,
        }

    def seen(self, broker: str) -> list[bytes]:
        """Return the nonces that may not come again at a broker, each after its key id.

        Raises:
            StoreError: The store cannot be read.
        """
        return self._used.open_nonces(broker, now=self._clock.now(), most=MAX_SEEN)

    def consume(self, session: Session, proof: str) -> bool:
        """Use up the nonce of a proof that the plugin let a session go on with.

        Args:
            session: Whose key the plugin verified it for.
            proof: 18 base64url characters: time and nonce.

        Returns:
            False if the nonce was used for anything else, or the plugin could not judge at all.

        Raises:
            FormatError: Not 18 characters.
            StoreError: The store cannot be written.
        """
        data = decode_base64url(proof)
        if len(data) != _TIME_BYTES + NONCE_BYTES:
            raise FormatError("`proof` is not a time and a nonce")
        made_at = int.from_bytes(data[:_TIME_BYTES], "big")
        taken = self._used.consume(
            key_id(session.key) + data[_TIME_BYTES:],
            expires_at=made_at + PROOF_WINDOW_S + 1,
            now=self._clock.now(),
            broker=session.broker,
            session=session.session_id,
        )
        return taken and session.proof.form is Form.POP

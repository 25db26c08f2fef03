"""Other daemons that list one of our audiences: who was first, and what follows for us.

Two daemons do not share a memory of nonces, so a proof for an audience of both could be used once
at each. The one that was announced first goes on; the other refuses such proofs and says why.
"""

from typing import Final

from authd.core.claims import Kind
from authd.core.identity import PublicKey, SigningKey, key_id_text
from authd.core.proofs import Audience, VerifiedProof
from authd.core.statements import Broker
from authd.errors import ProofError, ReasonCode
from authd.service.announcements import is_loopback, precedence
from authd.service.authority import Authority
from authd.service.brokers import BrokerEntry, Brokers
from authd.service.ports import Clock, Item

# Whether a key may serve can change at any time, and is asked about with a signature.
_TRY_S: Final = 30.0


class Neighbours:
    """What this daemon announces, and what others' announcements mean to it."""

    def __init__(
        self,
        *,
        authority: Authority,
        brokers: Brokers,
        clock: Clock,
        key: SigningKey | None,
    ) -> None:
        """Wire the parts; without a node ``key`` nothing is announced."""
        self._authority = authority
        self.brokers = brokers
        self._clock = clock
        self._key = key
        self._next_try = 0.0

    def is_alone(self, audience: Audience) -> bool:
        """Say whether no other daemon lists an audience, as far as is known here."""
        return not self._others(audience)

    def check(self, proof: VerifiedProof) -> None:
        """Refuse a proof that another daemon's memory decides about.

        Raises:
            ProofError: `ReasonCode.WRONG_AUDIENCE`: another daemon was first with its audience.
        """
        if proof.nonce is None and proof.counter is None:
            return
        others = self._others(proof.audience)
        if not others:
            return
        first = min(others, key=precedence)
        own = [one for one in self._counting(proof.audience) if one.issuer == self._own]
        if own and precedence(own[0]) < precedence(first):
            return
        raise ProofError(
            f"`{proof.audience.endpoint}` is announced by node `{key_id_text(first.issuer)}` too,"
            " and was so first: a proof could be used at both; give each broker a name of its own",
            reason=ReasonCode.WRONG_AUDIENCE,
        )

    def announce(self) -> list[Item]:
        """Announce the broker entries whose announcement is due, and forget what has ended.

        Returns:
            What is to be pushed.

        Raises:
            StoreError: The store cannot be written.
        """
        if self._key is None or self._clock.monotonic() < self._next_try:
            return []
        self._next_try = self._clock.monotonic() + _TRY_S
        now = self._clock.now()
        self._authority.forget_announcements(now=now)
        due = [
            self._authority.announcements.renewed(entry, self._key, now=now)
            for entry in self.brokers.all()
        ]
        items = [Item(Kind.BROKER, one.encoded) for one in due if one and self._counts(one)]
        if items:
            self._authority.submit(items)
        return items

    def is_announced(self, entry: BrokerEntry) -> bool:
        """Say whether a broker entry is announced now, and the announcement counts."""
        own = self._own
        held = self._authority.announcements.get(own, entry.name) if own else None
        return held is not None and self._counts(held)

    @property
    def _own(self) -> PublicKey | None:
        return self._key.public if self._key else None

    def _others(self, audience: Audience) -> list[Broker]:
        return [one for one in self._counting(audience) if one.issuer != self._own]

    def _counting(self, audience: Audience) -> list[Broker]:
        if is_loopback(audience.endpoint):
            return []
        listing = self._authority.announcements.listing(audience)
        return [one for one in listing if self._counts(one)]

    def _counts(self, broker: Broker) -> bool:
        return self._authority.refused_service(broker) is None

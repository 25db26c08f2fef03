"""Brokers that were announced, here and elsewhere, and which of two daemons was first.

A daemon announces a broker entry under one *issued at* for as long as its endpoints stay the same,
and only moves the end: so everybody can tell who was first, whenever he began to listen.
"""

from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from authd.core.identity import PublicKey, SigningKey, StatementId, key_id
from authd.core.proofs import Audience
from authd.core.statements import Broker, sign_broker
from authd.errors import LimitError, StaleRecordError
from authd.service.brokers import BrokerEntry

# More entries than one host has brokers.
MAX_OF_A_KEY: Final = 16
LIFE_S: Final = 86_400
_RENEW_S: Final = LIFE_S // 2


class Announcements:
    """The newest announcement of each key and broker; none of them gives a right."""

    def __init__(self) -> None:
        """Start empty."""
        self._held: dict[tuple[PublicKey, str], Broker] = {}

    def check(self, broker: Broker) -> None:
        """Refuse an announcement that nothing is to be learnt from.

        Raises:
            StaleRecordError: The one held lasts as long.
            LimitError: Its key announces too many brokers.
        """
        held = self._held.get((broker.issuer, broker.broker_id))
        if held is not None and held.expires_at >= broker.expires_at:
            raise StaleRecordError(f"broker `{broker.broker_id}`: a newer announcement is held")
        if held is None and len(list(self._of(broker.issuer))) >= MAX_OF_A_KEY:
            raise LimitError(f"a key announces at most {MAX_OF_A_KEY} brokers")

    def put(self, broker: Broker) -> StatementId | None:
        """Hold an announcement; return the id of the one that goes, the older of the two."""
        place = (broker.issuer, broker.broker_id)
        held = self._held.get(place)
        if held is not None and held.expires_at >= broker.expires_at:
            return broker.statement_id
        self._held[place] = broker
        return None if held is None else held.statement_id

    def take_ended(self, *, now: int) -> list[StatementId]:
        """Let go of what has ended for as long as it lasted; return the ids."""
        ended = [place for place, one in self._held.items() if one.expires_at + LIFE_S <= now]
        return [self._held.pop(place).statement_id for place in ended]

    def get(self, key: PublicKey, broker_id: str) -> Broker | None:
        """Return what a key announced of a broker, ended or not."""
        return self._held.get((key, broker_id))

    def listing(self, audience: Audience) -> list[Broker]:
        """Return the announcements that list an audience, whether they count or not."""
        return [
            one
            for one in self._held.values()
            if one.domain == audience.domain and audience.endpoint in one.endpoints
        ]

    def _of(self, key: PublicKey) -> Iterable[Broker]:
        return (one for (issuer, _), one in self._held.items() if issuer == key)

    def renewed(self, entry: BrokerEntry, key: SigningKey, *, now: int) -> Broker | None:
        """Sign the next announcement of a broker entry; None if none is due.

        Args:
            entry: Without prefixes it is not announced.
            key: This daemon's node key.
            now: Seconds since the Unix epoch.
        """
        endpoints = {one.endpoint for one in entry.audiences if not is_loopback(one.endpoint)}
        if not entry.prefixes or not endpoints:
            return None
        held = self.get(key.public, entry.name)
        same = held is not None and (
            (set(held.endpoints), set(held.prefixes)) == (endpoints, set(entry.prefixes))
        )
        if held is not None and same and held.expires_at - now > _RENEW_S:
            return None
        known = held is not None and endpoints <= set(held.endpoints)
        return sign_broker(
            key,
            domain=entry.audiences[0].domain,
            broker_id=entry.name,
            endpoints=endpoints,
            prefixes=entry.prefixes,
            issued_at=held.issued_at if held is not None and known else now,
            # Above the one held in any case, so that it takes its place.
            expires_at=max(now + LIFE_S, held.expires_at + 1 if held else 0),
        )


def precedence(broker: Broker) -> tuple[int, bytes]:
    """Return what decides between two daemons that list one audience: the lower was first."""
    return broker.issued_at, key_id(broker.issuer)


def is_loopback(endpoint: str) -> bool:
    """Say whether ``host:port`` is each host's own: two daemons may list it and never meet."""
    host = endpoint.rpartition(":")[0].strip("[]")
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False

"""One batch of statements: what it has accepted so far, and what it changed in the end."""

from dataclasses import dataclass, field

from authd.core.grants import Grant
from authd.core.identity import StatementId
from authd.core.roots import Root
from authd.core.statements import Broker, Revoke, Statement
from authd.service.ledger import Taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What a batch changed.

    Attributes:
        grants: Grants that are new.
        revocations: Revocations that are new.
        freshness: Whether some domain is fresh until another time than before.
        roots: Whether a root is new.
        brokers: Announcements that are new.
        fallen: Keys whose branch is treated as revoked whole since, or no more, and the grants to
            such domains.
    """

    grants: tuple[Grant, ...] = ()
    revocations: tuple[Revoke, ...] = ()
    freshness: bool = False
    roots: bool = False
    brokers: tuple[Broker, ...] = ()
    fallen: frozenset[bytes] = frozenset()


@dataclass(slots=True)
class Batch:
    """What one call of `Authority.receive` has accepted so far.

    Attributes:
        accepted: In the order they came.
        ids: Of those.
        refused: How many were not.
        evidence: Heads that prove that their key signed two lists; they do not count, and travel.
    """

    accepted: list[Taken] = field(default_factory=list)
    ids: set[StatementId] = field(default_factory=set)
    refused: int = 0
    evidence: list[StatementId] = field(default_factory=list)

    def accept(self, statement: Root | Statement, data: bytes) -> None:
        """Add a statement and the bytes it was verified from."""
        self.accepted.append((statement, data))
        self.ids.add(statement.statement_id)

    @property
    def grants(self) -> tuple[Grant, ...]:
        """The grants among them."""
        return tuple(one for one, _ in self.accepted if isinstance(one, Grant))

    @property
    def revocations(self) -> tuple[Revoke, ...]:
        """The revocations among them."""
        return tuple(one for one, _ in self.accepted if isinstance(one, Revoke))

    @property
    def brokers(self) -> tuple[Broker, ...]:
        """The announcements among them."""
        return tuple(one for one, _ in self.accepted if isinstance(one, Broker))

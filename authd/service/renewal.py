"""Renewal: a grant that nobody gave an end is signed anew at half of its life.

A grant whose life is exactly one of `STANDING_LIVES_S` *stands*: it is renewed until it is revoked.
Any other ends when it says (``--until``, ``--for``). So every holder of the issuing key knows from
the grant alone what is to be done, after a restart, and from a backup.

What is signed follows from the grant alone too: the same rights from half of its life on, for
another whole one. Two daemons that hold one key sign the same bytes, which is one statement.

Only what counts now is renewed, and only while the own domain is fresh: whoever may have missed a
revocation renews nothing. Nor is what was granted to a key that its issuer has replaced since.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

import structlog

from authd.core import limits
from authd.core.claims import Kind
from authd.core.formation import Entry, Formation
from authd.core.grants import (
    DEFAULT_FORMS,
    DomainSubject,
    Grant,
    KeySubject,
    TlsSubject,
    sign_grant,
)
from authd.core.identity import SigningKey, StatementId
from authd.core.paths import find_paths
from authd.core.records import encode_record
from authd.errors import AuthdError, LimitError
from authd.service.authority import Authority
from authd.service.issuing import STANDING_LIVES_S, Bundle, grants_record
from authd.service.ports import Clock, Item
from authd.service.publisher import Publisher

WARN_S: Final = 14 * 86_400
_SLICE: Final = 50
_SLICE_S: Final = 1.0
# What was looked at needs looking at again some time: it may be fresh, or have room, by then.
_ROUND_S: Final = 3_600.0
_log = structlog.get_logger("authd.renewal")


@dataclass(slots=True)
class Expiring:
    """What one round found: grants that end within `WARN_S` and that nobody here can renew.

    Attributes:
        ends: When each ends, by its id; seconds since the Unix epoch.
    """

    ends: dict[StatementId, int] = field(default_factory=dict)

    @property
    def first_end(self) -> int:
        """When the first of them ends; 0 if none does."""
        return min(self.ends.values(), default=0)


def stands(grant: Grant) -> bool:
    """Say whether a grant is to be renewed until it is revoked."""
    return grant.expires_at - grant.issued_at in STANDING_LIVES_S


def renewal_due_at(grant: Grant) -> int:
    """Return when a grant is to be renewed: half of its life, and up to a sixteenth later.

    How much later follows from its id, so that what was issued together is not renewed together.
    """
    life_s = grant.expires_at - grant.issued_at
    spread = int.from_bytes(grant.statement_id[:4], "big") % (life_s // 16)
    return grant.issued_at + life_s // 2 + spread


def renew(key: SigningKey, grant: Grant) -> Grant:
    """Sign the successor of a grant: the same rights for another life, from half of this one on.

    Raises:
        AuthdError: It cannot be signed.
    """
    life_s = grant.expires_at - grant.issued_at
    return sign_grant(
        key,
        subject=grant.subject,
        scope=grant.scope,
        issued_at=grant.issued_at + life_s // 2,
        expires_at=grant.issued_at + life_s // 2 + life_s,
        depth=grant.depth,
        client_id=grant.client_id,
        forms=() if grant.forms == DEFAULT_FORMS else grant.forms,
        audiences=grant.audiences,
        replaces=grant.replaces,
    )


def successors(key: SigningKey, grant: Grant, *, now: int) -> Iterator[Grant]:
    """Yield what some daemon may have renewed a grant by and still counts at ``now``.

    What is signed follows from the grant alone, so nobody need have heard of it.

    Raises:
        AuthdError: It cannot be signed.
    """
    while stands(grant):
        grant = renew(key, grant)
        if grant.issued_at > now + limits.MAX_ISSUED_AHEAD_S:
            return
        if grant.expires_at > now:
            yield grant


class Renewal:
    """Goes through what ends soon, a few at a time, and renews what stands."""

    def __init__(
        self,
        *,
        authority: Authority,
        publisher: Publisher,
        clock: Clock,
        key: SigningKey | None,
    ) -> None:
        """Wire the parts; without the issuing ``key`` it only counts."""
        self._authority = authority
        self._publisher = publisher
        self._clock = clock
        self._key = key
        self._round: Iterator[bytes] = iter(())
        self._counting = Expiring()
        self._next_round_at = clock.monotonic()
        self.expiring = Expiring()
        self.renewed = 0
        self.problem = ""

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            await self.step()
            await asyncio.sleep(_SLICE_S)

    async def step(self) -> None:
        """Look at a few subjects; begin another round an hour after the last began."""
        self._authority.forget_ended(now=self._clock.now())
        subjects = list(islice(self._round, _SLICE))
        for subject in subjects:
            await self._look(subject)
        if not subjects:
            self._begin_round()

    def _begin_round(self) -> None:
        now = self._clock.monotonic()
        if now < self._next_round_at:
            self.expiring = self._counting
            return
        self.expiring, self._counting = self._counting, Expiring()
        self._next_round_at = now + _ROUND_S
        horizon_s = max(STANDING_LIVES_S) // 2 if self._key else WARN_S
        self._round = self._authority.subjects_ending(self._clock.now() + horizon_s)

    # --- one subject ----------------------------------------------------------------------

    async def _look(self, subject: bytes) -> None:
        now = self._clock.now()
        held = self._authority.state.grants_to(subject)
        for grant in held:
            if grant.expires_at <= now or _is_succeeded(grant, held):
                continue
            ours = self._key is not None and grant.issuer == self._key.public
            if ours and not stands(grant):
                # It ends because somebody here said so.
                continue
            due = ours and now >= renewal_due_at(grant)
            ends = grant.expires_at <= now + WARN_S
            if not (due or ends) or not self._counts(grant, now) or self._is_replaced(grant, now):
                continue
            renewed = due and await self._renew(grant, held)
            if ends and not renewed:
                self._counting.ends[grant.statement_id] = grant.expires_at

    def _counts(self, grant: Grant, now: int) -> bool:
        """Say whether a grant is the end of a path now; stale news alone is no reason against."""
        state, policy = self._authority.state, self._authority.policy
        if isinstance(grant.subject, DomainSubject):
            return self._may_grant(grant, now)
        evaluation = find_paths(
            state,
            grant.subject.key,
            policy=policy,
            freshness=dict.fromkeys(state.roots, now + 1),
            now=now,
            tls=isinstance(grant.subject, TlsSubject),
        )
        return any(path.leaf.statement_id == grant.statement_id for path in evaluation.paths)

    def _is_replaced(self, grant: Grant, now: int) -> bool:
        """Say whether a grant of its issuer, no older, names its key as the former one.

        One that has ended says so on, unless it was revoked: the former key does not come back.
        """
        former, state = grant.subject, self._authority.state
        if not isinstance(former, KeySubject):
            return False
        return any(
            one.replaces == former.key
            and one.issued_at >= grant.issued_at
            and one.subject != former
            and self._counts(one, min(now, one.expires_at - 1))
            for subject in self._authority.replacements.of(grant.issuer, former.key)
            for one in state.grants_between(grant.issuer, subject)
        )

    def _may_grant(self, grant: Grant, now: int) -> bool:
        """Say whether a grant to a domain counts, and its issuer stands for it."""
        state, policy = self._authority.state, self._authority.policy
        freshness = dict.fromkeys(state.roots, now + 1)
        formation = Formation(state=state, policy=policy, freshness=freshness, now=now)
        if not formation.counts(grant, grant.subject):
            return False
        for root, entry in state.authorities_with(grant.issuer):
            if (
                root.domain in policy.domains
                and formation.entry_counts(root, entry)
                and formation.fits((Entry(root, entry), grant))
                and not state.revoker_revocation(grant.issuer, entry)
            ):
                return True
        above = find_paths(state, grant.issuer, policy=policy, freshness=freshness, now=now)
        return any(path.depth > 0 for path in above.paths)

    async def _renew(self, grant: Grant, held: tuple[Grant, ...]) -> bool:
        now, policy = self._clock.now(), self._authority.policy
        if self._key is None or self._authority.heartbeats.freshness().get(policy.own, 0) <= now:
            return False
        try:
            bundle = self._bundle(self._key, grant, held)
            await self._publisher.submit(bundle)
        except AuthdError as error:
            self.problem = str(error)
            _log.warning("a grant cannot be renewed", detail=str(error))
            return False
        self.problem = ""
        self.renewed += 1
        return True

    def _bundle(self, key: SigningKey, grant: Grant, held: tuple[Grant, ...]) -> Bundle:
        successor = renew(key, grant)
        for lost in self._authority.state.take_grants([successor])[1]:
            if lost.expires_at > self._clock.now() and not _is_succeeded(lost, (*held, successor)):
                raise LimitError(
                    f"{limits.MAX_GRANTS_PER_PAIR} grants to one subject count: a renewed one would"
                    " push out another that still does"
                )
        current = [
            one
            for one in (*held, successor)
            if one.issuer == key.public
            and one.subject == grant.subject
            and one.expires_at > self._clock.now()
            and not _is_succeeded(one, (*held, successor))
        ]
        record = grants_record(key, current, now_us=self._clock.now_us())
        return Bundle(
            statements=(Item(Kind.GRANT, successor.encoded),),
            records=(encode_record(record),),
        )


def same_rights(one: Grant, other: Grant) -> bool:
    """Say whether two grants of one issuer and subject differ in nothing but their time."""
    return _rights(one) == _rights(other)


def _rights(grant: Grant) -> tuple[object, ...]:
    return (
        grant.issuer,
        grant.subject,
        grant.scope,
        grant.depth,
        grant.client_id,
        grant.forms,
        grant.audiences,
        grant.replaces,
    )


def _is_succeeded(grant: Grant, held: tuple[Grant, ...]) -> bool:
    """Say whether another grant of the same rights lasts longer, and is renewed if this one is."""
    return any(
        other.expires_at > grant.expires_at
        and same_rights(other, grant)
        and (stands(other) or not stands(grant))
        for other in held
    )

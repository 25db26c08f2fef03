"""Paths: from the root of a domain, over at most four grants, to a key.

The search climbs from the subject to authorities, level by level, over the links that count
(`core.formation`), with depth respected and counted work. Should the steps run out, there is more
around the key than an honest graph holds, and somebody may be drowning it: the search then also
descends from every authority, each with a share of the steps of its own, so that what stands below
one authority cannot hide what stands below another. A limit leaves paths out, so it may
under-grant, but it never voids what was found and never allows.

Crossing a domain id goes through one authority entry of that domain's newest root, which narrows
scope, depth and expiry like a grant but counts neither as one of the four nor for depth.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import TypeAlias

from authd.core import limits
from authd.core.formation import (
    Chain,
    Entry,
    Failure,
    Formation,
    Path,
    keys_of,
    name_of,
    scope_of,
    start_of,
    why,
)
from authd.core.grants import DomainSubject, KeySubject, Subject, TlsSubject
from authd.core.identity import PublicKey, key_id, key_id_text
from authd.core.policy import Policy
from authd.core.topics import Scope, meet_scopes
from authd.core.trust import Freshness, TrustState, subject_id
from authd.errors import ReasonCode

__all__ = ["Evaluation", "Failure", "Ground", "Path", "find_paths"]

_Open: TypeAlias = tuple[Subject, Chain]
"""Where to go on: whose grants to look at, and the chain below."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ground:
    """What a search looked at, for questions that need more than the paths.

    Attributes:
        state: What was known.
        subject: Whose paths were asked for.
        chains: Those that were found, authority by authority in turn; at most
            ``limits.MAX_GROUND_CHAINS``.
    """

    state: TrustState
    subject: KeySubject
    chains: tuple[Chain, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What a search found.

    Attributes:
        paths: The shortest of each authority first, authority by authority in turn.
        failures: Why others do not count.
        truncated: A limit was reached: there may be more paths.
        ground: What was searched; None if nothing was.
    """

    paths: tuple[Path, ...]
    failures: tuple[Failure, ...]
    truncated: bool = False
    ground: Ground | None = field(default=None, compare=False, repr=False)

    def first_failure(self) -> Failure:
        """Choose the failure that got furthest, which is the one to mend."""
        return min(self.failures, key=lambda failure: _ORDER.index(failure.reason))


# A revocation is always told; then what is closest to a complete path comes first.
_ORDER = (
    ReasonCode.REVOKED,
    ReasonCode.STALE,
    ReasonCode.NOT_GRANTED,
    ReasonCode.DEPTH_EXCEEDED,
    ReasonCode.EXPIRED,
    ReasonCode.NOT_YET_VALID,
    ReasonCode.UNTRUSTED,
    ReasonCode.LIMIT_EXCEEDED,
    ReasonCode.UNKNOWN_KEY,
)


def find_paths(
    state: TrustState,
    key: PublicKey,
    *,
    policy: Policy,
    freshness: Freshness,
    now: int,
    tls: bool = False,
) -> Evaluation:
    """Find the paths on which a key's rights rest.

    Args:
        state: What is known.
        key: The subject.
        policy: Which domains may start a path, and their grace.
        freshness: Until when each domain is fresh.
        now: Seconds since the Unix epoch.
        tls: ``key`` is the digest of a TLS key (`TlsSubject`), not a key.
    """
    search = _Search(
        formation=Formation(state=state, policy=policy, freshness=freshness, now=now),
        key=key,
        subject=TlsSubject(key) if tls else KeySubject(key),
        steps_left=limits.MAX_EVALUATION_STEPS,
    )
    revoked = state.self_revocation(key)
    if revoked is not None:
        search.formation.fail(
            ReasonCode.REVOKED,
            f"key {name_of(key)} is revoked by its own statement{why(revoked.reason)}",
        )
    elif not state.grants_to(key_id(key)):
        search.formation.fail(
            ReasonCode.UNKNOWN_KEY, f"no grant for key `{key_id_text(key)}` is known here"
        )
    else:
        search.run()
    return search.result()


@dataclass(slots=True, kw_only=True)
class _Search:
    """One evaluation: what it has found, and the work left."""

    formation: Formation
    key: PublicKey
    subject: KeySubject
    steps_left: int
    truncated: bool = False
    chains: tuple[Chain, ...] = ()
    paths: list[Path] = field(default_factory=list)

    def run(self) -> None:
        """Find chains, then turn them into paths in a fair order."""
        # Climbing, each chain is met once: it is told from others by the link that was added.
        chains = list(self._climb())
        if self.truncated:
            chains = list(dict.fromkeys((*chains, *self._descend())))
        self.chains = tuple(islice(_in_turn(chains), limits.MAX_GROUND_CHAINS))
        for place, chain in enumerate(self.chains):
            if place >= limits.MAX_CHAINS or len(self.paths) >= limits.MAX_PATHS:
                self.truncated = True
                return
            self._conclude(chain)

    def result(self) -> Evaluation:
        """Return what was found."""
        if self.truncated:
            self.formation.fail(
                ReasonCode.LIMIT_EXCEEDED, "the search for paths reached its step limit"
            )
        return Evaluation(
            paths=tuple(self.paths),
            failures=tuple(self.formation.failures),
            truncated=self.truncated,
            ground=Ground(state=self.formation.state, subject=self.subject, chains=self.chains),
        )

    # --- up from the subject --------------------------------------------------------------

    def _climb(self) -> Iterator[Chain]:
        """Yield chains that lead to the key; shorter ones first.

        Level by level, so that a bush of grants somewhere above cannot use up the steps before the
        short chains were seen.
        """
        level: list[_Open] = [(self.subject, ())]
        while level:
            above: list[_Open] = []
            for subject, below in level:
                for grant in self.formation.state.grants_to(subject_id(subject)):
                    if self.steps_left <= 0:
                        self.truncated = True
                        return
                    self.steps_left -= 1
                    chain: Chain = (grant, *below)
                    if self.formation.counts(grant, subject) and self._joins(chain):
                        yield from self._from_issuer(grant.issuer, chain, above)
            level = above

    def _from_issuer(
        self,
        issuer: PublicKey,
        chain: Chain,
        above: list[_Open],
    ) -> Iterator[Chain]:
        """Yield the chain where it is complete; add to ``above`` where to go on."""
        state = self.formation.state
        found = False
        for root, authority in state.authorities_with(issuer):
            entry: Chain = (Entry(root, authority), *chain)
            if not self.formation.entry_counts(root, authority) or not self.formation.fits(entry):
                found = True
                continue
            if root.domain in self.formation.policy.domains:
                found = True
                yield entry
            if state.grants_to(root.domain):
                found = True
                above.append((DomainSubject(root.domain), entry))
        if state.grants_to(key_id(issuer)):
            found = True
            above.append((KeySubject(issuer), chain))
        if not found:
            self.formation.fail(
                ReasonCode.UNTRUSTED,
                f"issuer {name_of(issuer)} is not an authority of a trusted domain and holds no"
                " grant",
            )

    def _joins(self, chain: Chain) -> bool:
        keys = keys_of(chain, self.key)
        if keys[0] in keys[1:]:
            self.formation.fail(ReasonCode.UNTRUSTED, f"a path passes key {name_of(keys[0])} twice")
            return False
        return self.formation.fits(chain)

    # --- down from the authorities --------------------------------------------------------

    def _descend(self) -> Iterator[Chain]:
        """Yield chains from every authority that may start one, each with its share of steps."""
        policy, roots = self.formation.policy, self.formation.state.roots
        starts = [
            Entry(roots[domain], authority)
            for domain in sorted(policy.domains)
            if domain in roots
            for authority in roots[domain].authorities
        ]
        share = limits.MAX_EVALUATION_STEPS // max(1, len(starts))
        for start in starts:
            if self.formation.entry_counts(start.root, start.authority):
                yield from islice(self._below(start, share), limits.MAX_CHAINS)

    def _below(self, start: Entry, steps_left: int) -> Iterator[Chain]:
        """Yield chains from one root entry to the key, shorter ones first."""
        level: list[tuple[PublicKey, Chain]] = [(start.authority.key, (start,))]
        for _ in range(limits.MAX_PATH_GRANTS):
            below: list[tuple[PublicKey, Chain]] = []
            for giver, chain in level:
                yield from self._arrivals(giver, chain)
                for subject in self.formation.state.delegates_of(giver):
                    if steps_left <= 0:
                        return
                    steps_left -= 1
                    below += self._extensions(giver, subject, chain)
            level = below

    def _arrivals(self, giver: PublicKey, chain: Chain) -> Iterator[Chain]:
        for grant in self.formation.state.grants_between(giver, key_id(self.key)):
            complete: Chain = (*chain, grant)
            keys = keys_of(complete, self.key)
            if (
                len(set(keys)) == len(keys)
                and self.formation.counts(grant, self.subject)
                and self.formation.fits(complete)
            ):
                yield complete

    def _extensions(
        self,
        giver: PublicKey,
        subject: bytes,
        chain: Chain,
    ) -> Iterator[tuple[PublicKey, Chain]]:
        for grant in self.formation.state.grants_between(giver, subject):
            if grant.depth == 0 or not self.formation.counts(grant, grant.subject):
                continue
            if isinstance(grant.subject, KeySubject):
                yield grant.subject.key, (*chain, grant)
                continue
            root = self.formation.state.roots.get(grant.subject.domain)
            for authority in root.authorities if root else ():
                if root and self.formation.entry_counts(root, authority):
                    yield authority.key, (*chain, grant, Entry(root, authority))

    # --- a complete chain -----------------------------------------------------------------

    def _conclude(self, chain: Chain) -> None:
        """Turn a chain that begins at a listed domain into a path, or note why it is none."""
        path = self.formation.path_of(chain, self.key, self._scope_of(chain))
        if path is not None:
            self.paths.append(path)

    def _scope_of(self, chain: Chain) -> Scope:
        scope = self.formation.policy.domains[start_of(chain).root.domain].scope
        for link in chain:
            # Crossing filters multiply: sixteen by sixteen at every link.
            met = meet_scopes(scope, scope_of(link))
            scope = met[: limits.MAX_COMPILED_FILTERS]
            self.truncated |= len(met) > len(scope)
        return scope


def _in_turn(chains: Iterable[Chain]) -> Iterator[Chain]:
    """Yield the first chain of each authority, then the second of each, and so on."""
    by_start: dict[tuple[bytes, int], list[Chain]] = {}
    for chain in chains:
        start = start_of(chain)
        place = start.root.authorities.index(start.authority)
        by_start.setdefault((start.root.domain, place), []).append(chain)
    # Short chains come first in each list: grants are what an entry's chains differ in.
    queues = [iter(sorted(by_start[start], key=len)) for start in sorted(by_start)]
    while queues:
        waiting = []
        for queue in queues:
            chain_next = next(queue, None)
            if chain_next is not None:
                yield chain_next
                waiting.append(queue)
        queues = waiting

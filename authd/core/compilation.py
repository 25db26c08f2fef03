"""Compiling rights: from the paths to a key and a proof to what may be done.

A session's rights are the union over the paths *whose conditions all hold for this CONNECT*: the
form (the leaf grant's), the client id (every grant's rule), the audience (every grant that has a
set). What reaches into a locally guarded prefix is asked about once more: it counts only if the
whole of it is given by k paths that share no key. Where only a part of it lies in the prefix and
was proven, that part stays; the rest is left out, because an allow-list of filters cannot say
"all but".
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from authd.core import limits
from authd.core.disjoint import Question, disjoint_paths
from authd.core.formation import Failure, Formation, Path
from authd.core.grants import ClientIdMatch, ClientIdRule, Form, Grant
from authd.core.identity import DomainId, PublicKey, key_id_text, looks_like_key_id
from authd.core.paths import Evaluation
from authd.core.policy import Policy
from authd.core.proofs import VerifiedProof
from authd.core.rights import Right, Rights, Withheld
from authd.core.topics import AUTHD_PREFIX, Action, meet
from authd.core.trust import Freshness
from authd.errors import ReasonCode


def compile_rights(
    evaluation: Evaluation,
    proof: VerifiedProof,
    *,
    policy: Policy,
    freshness: Freshness,
    now: int,
) -> tuple[Rights, tuple[Failure, ...]]:
    """Compile the rights of a proven key for one CONNECT.

    Returns:
        The rights, and why paths were left out.
    """
    compiler = _Compiler(
        evaluation=evaluation,
        proof=proof,
        policy=policy,
        freshness=freshness,
        now=now,
        questions_left=limits.MAX_GUARD_QUESTIONS,
    )
    for path in evaluation.paths:
        compiler.add(path)
    return compiler.rights(), tuple(compiler.failures)


@dataclass(slots=True, kw_only=True)
class _Compiler:
    """Rights in the making."""

    evaluation: Evaluation
    proof: VerifiedProof
    policy: Policy
    freshness: Freshness
    now: int
    failures: list[Failure] = field(default_factory=list)
    entries: list[Right] = field(default_factory=list)
    known: set[Right] = field(default_factory=set)
    withheld: dict[Withheld, None] = field(default_factory=dict)
    places: dict[tuple[object, ...], int] = field(default_factory=dict)
    paths: list[Path] = field(default_factory=list)
    guarded: dict[tuple[str, Action], tuple[Right, ...]] = field(default_factory=dict)
    questions_left: int

    def add(self, path: Path) -> None:
        """Add what a path gives, or note why it gives nothing."""
        failure = _unmet_condition(path, self.proof)
        if failure is not None:
            self.failures.append(failure)
            return
        found = [right for right in self._rights_of(path) if self._lasts(right)]
        if found:
            # Many issuers together may give thousands: none is looked for in a list.
            fresh = [right for right in found if right not in self.known]
            self.entries += fresh
            self.known.update(fresh)
        else:
            self.failures.append(self._withheld_of(path) or _ended(path))

    def rights(self) -> Rights:
        """Return what was compiled; each authority in turn, should there be too much."""
        entries = self.entries
        if len(entries) > limits.MAX_COMPILED_FILTERS:
            entries = sorted(entries, key=self._turns(entries).__getitem__)
        return Rights(
            entries=tuple(entries[: limits.MAX_COMPILED_FILTERS]),
            paths=tuple(self.paths),
            withheld=tuple(self.withheld),
        )

    def _turns(self, entries: list[Right]) -> dict[Right, int]:
        seen: dict[tuple[DomainId, PublicKey], int] = {}
        turns: dict[Right, int] = {}
        for entry in entries:
            path = self.paths[entry.path]
            start = (path.domains[0], path.keys[0])
            turns[entry] = seen[start] = seen.get(start, 0) + 1
        return turns

    def _withheld_of(self, path: Path) -> Failure | None:
        named = {entry.topic_filter for entry in path.scope}
        found = (one for one in self.withheld if one.topic_filter in named)
        return next((Failure(ReasonCode.NOT_GRANTED, str(one)) for one in found), None)

    def _lasts(self, right: Right) -> bool:
        return right.ends_at(policy=self.policy, freshness=self.freshness) > self.now

    def _rights_of(self, path: Path) -> Iterator[Right]:
        for entry in path.scope:
            # Powers are not topics, and `serve` is not a right of a client.
            actions = entry.actions & (Action.PUB | Action.SUB)
            if entry.topic_filter.startswith(AUTHD_PREFIX) or not actions:
                continue
            if self.policy.guards_of(entry.topic_filter):
                yield from self._guarded(entry.topic_filter, actions)
            else:
                yield self._right(entry.topic_filter, actions, (path,))

    def _right(self, topic_filter: str, actions: Action, paths: tuple[Path, ...]) -> Right:
        places = tuple(map(self._place, paths))
        return Right(
            topic_filter=topic_filter,
            actions=actions,
            expires_at=min(path.expires_at for path in paths),
            domains=tuple(dict.fromkeys(domain for path in paths for domain in path.domains)),
            path=places[0],
            proof=places if len(places) > 1 else (),
        )

    def _place(self, path: Path) -> int:
        chain = (path.domains, *(grant.statement_id for grant in path.grants))
        if chain not in self.places:
            self.places[chain] = len(self.paths)
            self.paths.append(path)
        return self.places[chain]

    # --- guarded prefixes -----------------------------------------------------------------

    def _guarded(self, topic_filter: str, actions: Action) -> tuple[Right, ...]:
        """Return the part of a right that was proven with the k of every prefix it reaches into."""
        asked = (topic_filter, actions)
        if asked not in self.guarded:
            self.guarded[asked] = ()
            self.guarded[asked] = tuple(self._prove(topic_filter, actions))
        return self.guarded[asked]

    def _prove(self, topic_filter: str, actions: Action) -> Iterator[Right]:
        guard = max(self.policy.guards_of(topic_filter), key=lambda one: one.k)
        paths = self._disjoint(topic_filter, actions, wanted=guard.k)
        if len(paths) >= guard.k:
            yield self._right(topic_filter, actions, paths)
            return
        if len(actions) > 1:
            for action in actions:
                yield from self._guarded(topic_filter, action)
            return
        self.withheld[
            Withheld(
                topic_filter=topic_filter,
                guard=guard.topic_filter,
                k=guard.k,
                found=len(paths),
            )
        ] = None
        for one in self.policy.guards_of(topic_filter):
            inside = meet(topic_filter, one.topic_filter)
            if inside is not None and inside != topic_filter:
                yield from self._guarded(inside, actions)

    def _disjoint(self, topic_filter: str, actions: Action, *, wanted: int) -> tuple[Path, ...]:
        ground = self.evaluation.ground
        if ground is None or self.questions_left <= 0:
            return ()
        self.questions_left -= 1
        return disjoint_paths(
            Formation(
                state=ground.state,
                policy=self.policy,
                freshness=self.freshness,
                now=self.now,
            ),
            ground.chains,
            ground.subject,
            Question(
                topic_filter=topic_filter,
                actions=actions,
                admits=self._admits,
                holds=lambda path: _unmet_condition(path, self.proof) is None,
            ),
            wanted=wanted,
        )

    def _admits(self, grant: Grant, last: bool) -> bool:  # noqa: FBT001 - a predicate of two
        return (
            (not last or self.proof.form in grant.forms)
            and _unmet_by_grant(grant, self.proof) is None
            and (
                grant.client_id is None
                or looks_like_key_id(self.proof.client_id)
                or grant.client_id.allows(self.proof.client_id)
            )
        )


def _ended(path: Path) -> Failure:
    topics = [entry for entry in path.scope if not entry.topic_filter.startswith(AUTHD_PREFIX)]
    if not any(entry.actions & (Action.PUB | Action.SUB) for entry in topics):
        return Failure(ReasonCode.NOT_GRANTED, "the grants name no topic to publish or subscribe")
    names = ", ".join(f"`{entry.topic_filter}`" for entry in topics)
    return Failure(
        ReasonCode.STALE,
        f"{names}: the news from the domain is older than the strictest prefix here allows",
    )


def _unmet_condition(path: Path, proof: VerifiedProof) -> Failure | None:
    leaf = path.leaf
    if proof.form not in leaf.forms:
        allowed = ", ".join(f"`{form.name.lower()}`" for form in sorted(leaf.forms))
        return Failure(
            ReasonCode.FORM_NOT_ALLOWED,
            f"the grant allows {allowed}, not `{proof.form.name.lower()}`",
        )
    if proof.form is Form.PASSWORD and len(path.domains) > 1:
        return Failure(
            ReasonCode.FORM_NOT_ALLOWED,
            "a device password does not count across domains",
        )
    if proof.form is Form.COUNTER and len(leaf.audiences) != 1:
        return Failure(
            ReasonCode.FORM_NOT_ALLOWED,
            "a counter counts only with a grant for exactly one audience",
        )
    for grant in path.grants:
        failure = _unmet_by_grant(grant, proof)
        if failure is not None:
            return failure
    return _unmet_client_id(path, proof)


def _unmet_by_grant(grant: Grant, proof: VerifiedProof) -> Failure | None:
    if grant.audiences and str(proof.audience) not in grant.audiences:
        names = ", ".join(f"`{audience}`" for audience in sorted(grant.audiences))
        return Failure(
            ReasonCode.WRONG_AUDIENCE,
            f"the grant is for {names}, this is `{proof.audience}`",
        )
    return None


def _unmet_client_id(path: Path, proof: VerifiedProof) -> Failure | None:
    own_id = key_id_text(proof.key)
    client_id = proof.client_id
    if looks_like_key_id(client_id):
        # A client id of this shape belongs to that key alone, whatever a rule says.
        if client_id == own_id:
            return None
        return Failure(
            ReasonCode.CLIENT_ID_REFUSED,
            f"client id `{client_id}` is the id of another key",
        )
    rules: list[ClientIdRule] = [
        grant.client_id
        for grant in path.grants
        # Whoever lets another domain in cannot have meant that it may use any client id here.
        if grant.client_id
        and (len(path.domains) == 1 or grant.client_id.match is not ClientIdMatch.ANY)
    ]
    if not rules:
        return Failure(
            ReasonCode.CLIENT_ID_REFUSED,
            f"the grant has no client-id rule that counts here, so only client id `{own_id}` is"
            f" allowed, not `{client_id}`",
        )
    refusing = next((rule for rule in rules if not rule.allows(client_id)), None)
    if refusing is None:
        return None
    return Failure(
        ReasonCode.CLIENT_ID_REFUSED,
        f"the grant allows client id `{refusing}`, not `{client_id}`",
    )

"""Decisions: from paths and a proof to rights, and the one place that says allow.

A session's rights are the union over the paths *whose conditions all hold for this CONNECT*: the
form (the leaf grant's), the client id (every grant's rule), the audience (every grant that has a
set). `conclude` is the only function that builds an allow; everything else ends in a deny with a
reason code and a sentence.
"""

import enum
from collections.abc import Iterable
from dataclasses import dataclass, field

from authd.core import limits
from authd.core.encoding import encode_base64url
from authd.core.grants import ClientIdMatch, ClientIdRule, Form, Grant, is_client_id
from authd.core.identity import DomainId, PublicKey, StatementId, key_id_text, looks_like_key_id
from authd.core.paths import Evaluation, Failure, Path
from authd.core.policy import Policy
from authd.core.proofs import VerifiedProof
from authd.core.topics import AUTHD_PREFIX, Action, covers, matches
from authd.core.trust import Freshness
from authd.errors import ReasonCode


class Effect(enum.StrEnum):
    """The verdict."""

    ALLOW = "allow"
    DENY = "deny"


class Operation(enum.StrEnum):
    """What a client wants to do with a topic."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    RECEIVE = "receive"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRequest:
    """One CONNECT packet, as an enforcement point passes it on; everything is untrusted.

    Attributes:
        broker: Name of the broker entry, as authenticated by the edge.
        client_id: As sent by the client.
        username: As sent.
        password: As sent; never printed.
        address: The client's address, or empty.
        boot: Which run of the broker this is, or empty.
        clean: Clean session / clean start.
        enforces: What the enforcement point can do.
    """

    broker: str
    client_id: str
    username: str
    password: str = field(repr=False)
    address: str = ""
    boot: str = ""
    clean: bool = True
    enforces: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """One entry of compiled rights.

    Attributes:
        topic_filter: What it is about.
        actions: What may be done.
        expires_at: The earliest end of its path; seconds since the Unix epoch.
        domains: The domains its path starts in and crosses.
        path: Index into `Rights.paths`.
    """

    topic_filter: str
    actions: Action
    expires_at: int
    domains: tuple[DomainId, ...]
    path: int

    def ends_at(self, *, policy: Policy, freshness: Freshness) -> int:
        """Say until when it may be used without further news."""
        fresh_until = min(freshness.get(domain, 0) for domain in self.domains)
        if not fresh_until:
            return 0
        return min(
            self.expires_at,
            fresh_until + policy.grace_s(self.domains, self.topic_filter),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rights:
    """Compiled rights of one key under the conditions of one CONNECT, and what they rest on."""

    entries: tuple[Right, ...] = ()
    paths: tuple[Path, ...] = ()

    @property
    def keys(self) -> frozenset[PublicKey]:
        """Every key they rest on."""
        return frozenset(key for path in self.paths for key in path.keys)

    @property
    def grants(self) -> frozenset[StatementId]:
        """Every grant they rest on."""
        return frozenset(grant.statement_id for path in self.paths for grant in path.grants)

    def find(self, operation: Operation, topic: str) -> Right | None:
        """Find an entry that allows an operation."""
        for entry in self.entries:
            if operation is Operation.PUBLISH:
                allowed = Action.PUB in entry.actions and matches(entry.topic_filter, topic)
            elif operation is Operation.SUBSCRIBE:
                allowed = Action.SUB in entry.actions and covers(entry.topic_filter, topic)
            else:
                allowed = Action.SUB in entry.actions and matches(entry.topic_filter, topic)
            if allowed:
                return entry
        return None

    def without_ended(self, *, policy: Policy, freshness: Freshness, now: int) -> "Rights":
        """Return what is left when entries that have ended go."""
        entries = tuple(
            entry
            for entry in self.entries
            if entry.ends_at(policy=policy, freshness=freshness) > now
        )
        return Rights(entries=entries, paths=self.paths)

    def lease_until(self, *, policy: Policy, freshness: Freshness) -> int:
        """Say when the first entry ends; 0 without entries."""
        ends = [entry.ends_at(policy=policy, freshness=freshness) for entry in self.entries]
        return min(ends, default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a decision rests on, in words a person and a program can read.

    Attributes:
        paths: One list of ids a path: domain, keys, grants, where each grant came from.
        matched: The filter that covered what was asked, if something was asked.
        form: How the key was proven.
        audience: Whom the proof was for.
    """

    paths: tuple[dict[str, object], ...] = ()
    matched: str = ""
    form: str = ""
    audience: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer to one request.

    Attributes:
        effect: Allow or deny.
        reason: `ReasonCode.OK`, or why not.
        detail: One sentence.
        key: The proven key, if one was proven.
        rights: What may be done until ``lease_until``; empty on a deny.
        lease_until: Seconds since the Unix epoch.
        session: Id of the session, set by the service.
        evidence: What the decision rests on.
    """

    effect: Effect
    reason: ReasonCode
    detail: str
    key: PublicKey | None = None
    rights: Rights = field(default_factory=Rights)
    lease_until: int = 0
    session: str = ""
    evidence: Evidence = field(default_factory=Evidence)

    @property
    def allowed(self) -> bool:
        """Whether the effect is allow."""
        return self.effect is Effect.ALLOW

    @property
    def temporary(self) -> bool:
        """Whether the same request may succeed shortly without any change by its sender."""
        return self.reason.temporary


def deny(reason: ReasonCode, detail: str, *, key: PublicKey | None = None) -> Decision:
    """Build a deny; with `ReasonCode.OK` by mistake it is an internal error, still a deny."""
    if reason is ReasonCode.OK:
        reason = ReasonCode.INTERNAL
    return Decision(effect=Effect.DENY, reason=reason, detail=detail, key=key)


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
    kept: list[Path] = []
    entries: list[Right] = []
    failures: list[Failure] = []
    for path in evaluation.paths:
        failure = _unmet_condition(path, proof)
        if failure is not None:
            failures.append(failure)
            continue
        found = tuple(_entries_of(path, len(kept), policy=policy, freshness=freshness, now=now))
        if not found:
            failures.append(_ended(path))
            continue
        kept.append(path)
        entries += found
    rights = Rights(entries=tuple(entries[: limits.MAX_COMPILED_FILTERS]), paths=tuple(kept))
    return rights, tuple(failures)


def _entries_of(
    path: Path,
    index: int,
    *,
    policy: Policy,
    freshness: Freshness,
    now: int,
) -> Iterable[Right]:
    for entry in path.scope:
        # Powers are not topics, and `serve` is not a right of a client.
        actions = entry.actions & (Action.PUB | Action.SUB)
        if entry.topic_filter.startswith(AUTHD_PREFIX) or not actions:
            continue
        right = Right(
            topic_filter=entry.topic_filter,
            actions=actions,
            expires_at=path.expires_at,
            domains=path.domains,
            path=index,
        )
        if right.ends_at(policy=policy, freshness=freshness) > now:
            yield right


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


def check_client_id(client_id: str) -> Decision | None:
    """Refuse a client id that no grant can allow; None if it may go on."""
    if is_client_id(client_id):
        return None
    return deny(
        ReasonCode.CLIENT_ID_REFUSED,
        "a client id is 1 to 128 printable ASCII characters without `+`, `#` and `/`",
    )


def decide_connect(
    evaluation: Evaluation,
    proof: VerifiedProof,
    *,
    policy: Policy,
    freshness: Freshness,
    now: int,
) -> Decision:
    """Decide a CONNECT whose proof holds.

    Args:
        evaluation: The proven key's paths.
        proof: What was proven.
        policy: Local policy.
        freshness: Until when each domain is fresh.
        now: Seconds since the Unix epoch.
    """
    rights, failures = compile_rights(
        evaluation,
        proof,
        policy=policy,
        freshness=freshness,
        now=now,
    )
    if not rights.entries:
        first = failures[0] if failures else evaluation.first_failure()
        return deny(first.reason, first.detail, key=proof.key)
    return conclude(
        rights,
        lease_until=rights.lease_until(policy=policy, freshness=freshness),
        now=now,
        key=proof.key,
        evidence=Evidence(
            paths=tuple(map(describe_path, rights.paths)),
            form=proof.form.name.lower(),
            audience=str(proof.audience),
        ),
    )


def conclude(
    rights: Rights,
    *,
    lease_until: int,
    now: int,
    key: PublicKey,
    evidence: Evidence,
    asked: tuple[Operation, str] | None = None,
    takeover: bool = False,
) -> Decision:
    """Say allow, if there is a right that has not ended and it covers what is asked.

    INVARIANT: no other function builds a `Decision` with `Effect.ALLOW`.

    Args:
        rights: Compiled rights.
        lease_until: When the first of them ends.
        now: Seconds since the Unix epoch.
        key: Whose rights they are.
        evidence: What they rest on.
        asked: An operation and its topic; None for a CONNECT.
        takeover: This is authd itself, taking over a client id to end its session; it needs no
            right and gets none.
    """
    if lease_until <= now:
        return deny(ReasonCode.LEASE_ENDED, "the lease of the rights has ended", key=key)
    if not rights.entries and not (takeover and asked is None):
        return deny(ReasonCode.NOT_GRANTED, "no right is left", key=key)
    matched = ""
    if asked is not None:
        entry = rights.find(*asked)
        if entry is None:
            return deny(
                ReasonCode.NOT_GRANTED,
                f"no grant of key `{key_id_text(key)}` covers {asked[0]} on `{asked[1]}`",
                key=key,
            )
        matched = entry.topic_filter
    return Decision(
        effect=Effect.ALLOW,
        reason=ReasonCode.OK,
        detail=f"key `{key_id_text(key)}` is granted this",
        key=key,
        rights=rights,
        lease_until=lease_until,
        evidence=Evidence(
            paths=evidence.paths,
            matched=matched,
            form=evidence.form,
            audience=evidence.audience,
        ),
    )


def describe_path(path: Path) -> dict[str, object]:
    """Write a path down for evidence."""
    return {
        "domains": [encode_base64url(domain) for domain in path.domains],
        "keys": [key_id_text(key) for key in path.keys],
        "grants": [encode_base64url(grant.statement_id) for grant in path.grants],
        "expires_at": path.expires_at,
        "depth": path.depth,
    }

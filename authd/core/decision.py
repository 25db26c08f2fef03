"""Decisions: from paths and a proof to a verdict, and the one place that says allow.

Which paths count for a CONNECT is said in `core.compilation`. `conclude` is the only function that
builds an allow; everything else ends in a deny with a reason code and a sentence.
"""

import enum
from dataclasses import dataclass, field
from typing import TypeAlias

from authd.core.compilation import compile_rights
from authd.core.encoding import encode_base64url
from authd.core.grants import is_client_id
from authd.core.identity import PublicKey, key_id_text
from authd.core.paths import Evaluation, Path
from authd.core.policy import Policy
from authd.core.proofs import VerifiedProof
from authd.core.rights import Operation, Right, Rights
from authd.core.trust import Freshness
from authd.errors import FormatError, ReasonCode

__all__ = [
    "ChallengeResponse",
    "ClientCertificate",
    "ConnectRequest",
    "Credential",
    "Decision",
    "Effect",
    "Evidence",
    "Operation",
    "PlainPassword",
    "Presented",
    "Right",
    "Rights",
    "SingleStep",
    "check_client_id",
    "compile_rights",
    "conclude",
    "decide_connect",
    "deny",
    "describe_path",
]


class Effect(enum.StrEnum):
    """The verdict."""

    ALLOW = "allow"
    DENY = "deny"


@dataclass(frozen=True, slots=True)
class PlainPassword:
    """User name and password of a CONNECT: a pop, a counter proof or a device password."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class SingleStep:
    """The AUTH data of a single step (`core.challenge`)."""

    data: bytes = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChallengeResponse:
    """What went over one connection: hello, the enforcement point's nonce, response.

    The enforcement point draws the nonce, sends it once and asks once; that is what makes the
    response fresh.
    """

    hello: bytes
    nonce: bytes
    response: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A TLS key that the enforcement point saw proven: SHA-256 of its SubjectPublicKeyInfo."""

    digest: bytes


Presented: TypeAlias = SingleStep | ChallengeResponse | ClientCertificate
Credential: TypeAlias = PlainPassword | Presented


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectRequest:
    """One CONNECT packet, as an enforcement point passes it on; everything is untrusted.

    Attributes:
        broker: Name of the broker entry, as authenticated by the edge.
        client_id: As sent by the client.
        username: As sent.
        password: As sent; never printed; empty with ``presented``.
        presented: What was shown outside of user name and password; None if nothing was.
        reauthenticates: Id of the session that is to go on with this proof; empty for a CONNECT.
        address: The client's address, or empty.
        boot: Which run of the broker this is, or empty.
        clean: Clean session / clean start.
        enforces: What the enforcement point can do.
    """

    broker: str
    client_id: str
    username: str
    password: str = field(default="", repr=False)
    presented: Presented | None = None
    reauthenticates: str = ""
    address: str = ""
    boot: str = ""
    clean: bool = True
    enforces: frozenset[str] = frozenset()

    def credential(self) -> Credential:
        """Return the one credential of the request.

        Raises:
            FormatError: There are two, or one that no session can go on with.
        """
        if self.presented is None:
            if self.reauthenticates:
                raise FormatError("a session goes on with AUTH data alone")
            return PlainPassword(self.username, self.password)
        if self.password:
            raise FormatError("a password, and something else that is to prove the key")
        if self.reauthenticates and isinstance(self.presented, ClientCertificate):
            raise FormatError("a session goes on with AUTH data alone")
        return self.presented


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a decision rests on, in words a person and a program can read.

    Attributes:
        proven: The paths.
        matched: The filter that covered what was asked, if something was asked.
        form: How the key was proven.
        audience: Whom the proof was for.
    """

    proven: tuple[Path, ...] = ()
    matched: str = ""
    form: str = ""
    audience: str = ""

    @property
    def paths(self) -> tuple[dict[str, object], ...]:
        """The paths in words; written when somebody asks, which is seldom."""
        return tuple(map(describe_path, self.proven))

    def described(self) -> dict[str, object]:
        """Write all of it down."""
        return {
            "paths": self.paths,
            "matched": self.matched,
            "form": self.form,
            "audience": self.audience,
        }


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
            proven=rights.paths,
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
    if asked is not None:
        entry = rights.find(*asked)
        if entry is None:
            return deny(
                ReasonCode.NOT_GRANTED,
                f"no grant of key `{key_id_text(key)}` covers {asked[0]} on `{asked[1]}`"
                + rights.why_not(asked[1]),
                key=key,
            )
        evidence = Evidence(
            proven=evidence.proven,
            matched=entry.topic_filter,
            form=evidence.form,
            audience=evidence.audience,
        )
    return Decision(
        effect=Effect.ALLOW,
        reason=ReasonCode.OK,
        detail="the key is granted this",
        key=key,
        rights=rights,
        lease_until=lease_until,
        evidence=evidence,
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

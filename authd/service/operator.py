"""What the operator asks a running daemon: status, revocations, sessions, explanations."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from authd.core.decision import Decision, Operation
from authd.core.encoding import encode_base64url
from authd.core.grants import Form, KeySubject
from authd.core.identity import (
    KEY_BYTES,
    PublicKey,
    StatementId,
    admit_key,
    key_id_text,
    looks_like_key_id,
    parse_id,
)
from authd.core.paths import Path
from authd.core.quotas import branch_name
from authd.core.statements import Revoke
from authd.core.topics import ACTION_NAMES, Scope
from authd.errors import FormatError, NotFoundError, ReasonCode
from authd.service.authority import Authority
from authd.service.brokers import Brokers
from authd.service.decider import Decider
from authd.service.issuing import Bundle, decode_bundle
from authd.service.neighbours import Neighbours
from authd.service.ports import Clock, Gossip, RecordNetwork
from authd.service.publisher import Publisher
from authd.service.renewal import Renewal
from authd.service.sessions import Cut, Sessions

Answer = dict[str, object]
_OPERATIONS: Final = {operation.value: operation for operation in Operation}
# Topics of one answer that are named; more are counted. Nobody clears more than that by hand.
_MAX_NAMED: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorParts:
    """What an operator works with."""

    authority: Authority
    brokers: Brokers
    neighbours: Neighbours
    decider: Decider
    publisher: Publisher
    sessions: Sessions
    gossip: Gossip
    network: RecordNetwork
    clock: Clock
    identity: Callable[[], Answer]
    renewal: Renewal


class Operator:
    """Implements the admin requests; each returns what is shown as JSON."""

    def __init__(self, parts: OperatorParts) -> None:
        """Wire the parts."""
        self._parts = parts

    async def submit(self, bundle: bytes) -> Answer:
        """Take in and publish a bundle.

        Raises:
            AuthdError: Something in it cannot be taken; nothing was applied.
        """
        decoded: Bundle = decode_bundle(bundle)
        accepted = await self._parts.publisher.submit(decoded)
        return {
            "accepted": [encode_base64url(one) for one in accepted],
            "known": len(decoded.statements) - len(accepted),
            "peers": len(self._parts.gossip.peers()),
        }

    def status(self) -> Answer:
        """Say who this daemon is, what it knows, and how fresh that is."""
        authority, now = self._parts.authority, self._parts.clock.now()
        grants = sum(len(held) for held in authority.state.grants.values())
        return {
            **self._parts.identity(),
            "domains": [self._domain(root.domain, now) for root in authority.state.roots.values()],
            "grants": grants,
            "revocations": len(authority.state.revocations),
            "sessions": len(self._parts.sessions.all()),
            "brokers": [
                {
                    "name": entry.name,
                    "kind": entry.kind,
                    "audiences": [str(one) for one in entry.audiences],
                    "attached": self._parts.sessions.events[entry.name].listening > 0,
                    "prefixes": list(entry.prefixes),
                    "announced": self._parts.neighbours.is_announced(entry),
                }
                for entry in self._parts.brokers.all()
            ],
            "peers": self._parts.gossip.peers(),
            "addresses": self._parts.network.neighbours(),
            "dht_nodes": self._parts.network.stats().peers,
            "unpublished_records": self._parts.publisher.unpublished,
            "alarms": list(authority.alarms),
            "quotas": {
                "fallen": sorted(map(branch_name, authority.state.fallen)),
                "too_fast": authority.quotas.limited,
                "no_room": authority.quotas.surplus,
            },
            "renewal": {
                "renewed": self._parts.renewal.renewed,
                "problem": self._parts.renewal.problem,
                "expiring": len(self._parts.renewal.expiring.ends),
                "first_end": self._parts.renewal.expiring.first_end,
            },
            "store_problem": authority.store_problem,
            "waits_for_peers": authority.heartbeats.waits_for_peers,
            "clock_behind_s": self._parts.clock.behind_s(),
        }

    def _domain(self, domain: bytes, now: int) -> Answer:
        authority = self._parts.authority
        root = next(one for one in authority.state.roots.values() if one.domain == domain)
        view = authority.heartbeats.domains[root.domain]
        fresh_until = authority.heartbeats.freshness().get(root.domain, 0)
        return {
            "id": encode_base64url(domain),
            "own": domain == authority.policy.own,
            "root_version": root.version,
            "fresh": fresh_until > now,
            "fresh_for_s": max(0, fresh_until - now),
            "stale_for_s": max(0, now - fresh_until) if fresh_until else None,
            "grace_s": authority.policy.domain(root.domain).grace_s,
            "heartbeat_keys": [
                {
                    "key": encode_base64url(key),
                    "live": view.view(key).live_until > now,
                    "revocations": len(view.view(key).chain.ids),
                    "ended": authority.heartbeats.ended(view.view(key)),
                    "equivocated": view.view(key).equivocated,
                }
                for key in root.heartbeat_keys
            ],
        }

    def revocations(self) -> Answer:
        """List revocations, each pending or in force."""
        room, listed = _MAX_NAMED, list[Answer]()
        for revoke in self._parts.authority.state.revocations.values():
            answer, named = self._revocation(revoke, room=room)
            listed.append(answer)
            room -= named
        return {"revocations": listed}

    def revocation(self, statement_id: bytes) -> Answer:
        """Say what became of one revocation, with the sessions that were cut.

        Raises:
            NotFoundError: It is not known here.
        """
        revoke = self._parts.authority.state.revocations.get(StatementId(statement_id))
        if revoke is None:
            raise NotFoundError(f"no revocation `{encode_base64url(statement_id)}` is known here")
        return self._revocation(revoke, room=_MAX_NAMED)[0]

    def _revocation(self, revoke: Revoke, *, room: int) -> tuple[Answer, int]:
        """Write a revocation down; also say how many of ``room`` topics it names."""
        cuts = [
            cut
            for cut in self._parts.sessions.cuts
            if cut.key == revoke.target
            or (cut.reason == ReasonCode.REVOKED and revoke.target in cut.rested_on)
        ]
        left, more = self._parts.sessions.leftovers.of(self._leavers(revoke, cuts), most=room)
        target = key_id_text(PublicKey(revoke.target)) if revoke.is_key else revoke.target
        answer: Answer = {
            "id": encode_base64url(revoke.statement_id),
            "target": target if isinstance(target, str) else encode_base64url(target),
            "kind": "key" if revoke.is_key else "grant",
            "by": key_id_text(revoke.issuer),
            "issued_at": revoke.issued_at,
            "reason": revoke.reason,
            "state": "in force"
            if self._parts.authority.in_force(revoke.statement_id)
            else "pending",
            "cut": [
                {
                    "broker": cut.broker,
                    "client_id": cut.client_id,
                    "outcome": cut.outcome,
                    "reason": str(cut.reason),
                }
                for cut in cuts
            ],
            "retained": [
                {"broker": one.broker, "client_id": one.client_id, "topic": one.topic}
                for one in left
            ],
            "retained_more": more,
        }
        return answer, len(left)

    def _leavers(self, revoke: Revoke, cuts: Iterable[Cut]) -> list[PublicKey]:
        """Return the keys that the revocation put out, also those that had left before.

        Whoever rested on its target and has a session all the same stands on something else.
        """
        sessions = self._parts.sessions
        keys = [PublicKey(revoke.target)] if revoke.is_key else []
        keys += [cut.key for cut in cuts]
        keys += [
            key for key in sessions.leftovers.resting_on(revoke.target) if not sessions.of_key(key)
        ]
        return list(dict.fromkeys(keys))

    def sessions(self) -> Answer:
        """List sessions."""
        return {
            "sessions": [
                {
                    "broker": one.broker,
                    "client_id": one.client_id,
                    "key": key_id_text(one.key),
                    "form": one.proof.form.name.lower(),
                    "live": one.live,
                    "durable": one.durable,
                    "since": one.created_at,
                    "lease_s": max(0, one.lease_until - self._parts.clock.now()),
                    "rights": [
                        {
                            "filter": entry.topic_filter,
                            "actions": action_names(int(entry.actions)),
                        }
                        for entry in one.rights.entries
                    ],
                }
                for one in self._parts.sessions.all()
            ],
        }

    def explain(
        self,
        *,
        key: bytes,
        broker: str,
        client_id: str,
        form: str,
        operation: str,
        topic: str,
    ) -> Answer:
        """Decide for whoever would prove a key.

        Raises:
            FormatError: An unknown form or operation.
            WeakKeyError: Not a key.
        """
        proven_by = parse_form(form)
        public = _digest(key) if proven_by is Form.TLS else admit_key(key)
        asked = None
        if operation:
            if operation not in _OPERATIONS:
                raise FormatError(f"`{operation}` is not one of {', '.join(_OPERATIONS)}")
            asked = (_OPERATIONS[operation], topic)
        decision = self._parts.decider.explain_key(
            public,
            broker=broker,
            client_id=client_id or key_id_text(public),
            form=proven_by,
            asked=asked,
        )
        return self.describe_decision(decision)

    def describe_decision(self, decision: Decision) -> Answer:
        """Write a decision down with its evidence."""
        return {
            "effect": decision.effect.value,
            "reason": decision.reason.value,
            "detail": decision.detail,
            "temporary": decision.temporary,
            "key": key_id_text(decision.key) if decision.key else None,
            "matched": decision.evidence.matched,
            "lease_s": max(0, decision.lease_until - self._parts.clock.now()),
            "rights": [
                {"filter": one.topic_filter, "actions": action_names(int(one.actions))}
                for one in decision.rights.entries
            ],
            "paths": [self._path(path) for path in decision.rights.paths],
        }

    def why(self, key: bytes, *, certificate: bool = False) -> Answer:
        """Show the paths to a key, or to the digest of a certificate's, or why there is none.

        Raises:
            FormatError: Not a digest.
            WeakKeyError: Not a key.
        """
        public = _digest(key) if certificate else admit_key(key)
        now = self._parts.clock.now()
        evaluation = self._parts.authority.evaluate(public, now=now, tls=certificate)
        return {
            "key": key_id_text(public),
            "paths": [self._path(path) for path in evaluation.paths],
            "failures": [
                {"reason": one.reason.value, "detail": one.detail} for one in evaluation.failures
            ],
        }

    def _path(self, path: Path) -> Answer:
        source = self._parts.authority.source
        return {
            "domains": [encode_base64url(one) for one in path.domains],
            "keys": [key_id_text(one) for one in path.keys],
            "grants": [
                {
                    "id": encode_base64url(grant.statement_id),
                    "from": key_id_text(grant.issuer),
                    "source": source(grant.statement_id) or "unknown",
                    "expires_at": grant.expires_at,
                }
                for grant in path.grants
            ],
            "scope": describe_scope(path.scope),
            "expires_at": path.expires_at,
            "depth": path.depth,
        }

    def find_key(self, text: str) -> Answer:
        """Find a key by its id among everything known here.

        Raises:
            NotFoundError: No grant names it.
        """
        wanted = parse_id(text) if looks_like_key_id(text) else b""
        for grant in self._parts.authority.state.grants_to(wanted):
            if isinstance(grant.subject, KeySubject):
                return {"key": encode_base64url(grant.subject.key)}
        raise NotFoundError(f"no grant for key `{text}` is known here")


def _digest(data: bytes) -> PublicKey:
    if len(data) != KEY_BYTES:
        raise FormatError("the digest of a TLS key is 32 bytes")
    return PublicKey(data)


def parse_form(text: str) -> Form:
    """Read the name of a proof form.

    Raises:
        FormatError: Not one.
    """
    for form in Form:
        if form.name.lower() == text:
            return form
    raise FormatError(
        f"`{text}` is not a proof form: {', '.join(one.name.lower() for one in Form)}"
    )


def action_names(actions: int) -> list[str]:
    """Name the actions of a bit set."""
    return [name for name, bit in ACTION_NAMES.items() if bit & actions]


def describe_scope(scope: Scope) -> list[Answer]:
    """Write a scope down."""
    return [
        {"filter": entry.topic_filter, "actions": action_names(int(entry.actions))}
        for entry in scope
    ]

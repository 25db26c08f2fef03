"""What a session may do, written down for enforcement points and compared."""

from collections.abc import Iterable
from typing import Final

from authd.core.decision import Right
from authd.core.identity import key_id_text
from authd.core.policy import Policy
from authd.core.topics import Action
from authd.core.trust import Freshness
from authd.service.sessions import Session

# A number: to put flags together takes longer than all else that is said of a right.
_TOLD: Final = int(Action.PUB | Action.SUB)


def describe(
    session: Session,
    *,
    policy: Policy,
    freshness: Freshness,
    now: int,
    will: str,
    verify: dict[str, str] | None,
) -> dict[str, object]:
    """Write rights and lease down as `docs/spec/broker-socket.md` has them.

    Args:
        session: Whose.
        policy: Which grace counts.
        freshness: Until when each domain is fresh.
        now: Seconds since the Unix epoch; what is left is counted from here.
        will: ``suppress`` or ``publish``.
        verify: What the plugin may verify further proofs with; None if it may not.
    """
    ends = [entry.ends_at(policy=policy, freshness=freshness) for entry in session.rights.entries]
    lease = max(ends, default=now)
    return {
        "client_id": session.client_id,
        "session": session.session_id,
        "key": key_id_text(session.key),
        "lease_ms": max(0, lease - now) * 1_000,
        "rights": [
            {
                "filter": entry.topic_filter,
                "actions": int(entry.actions) & _TOLD,
                **({"ms": max(0, end - now) * 1_000} if end < lease else {}),
            }
            for entry, end in zip(session.rights.entries, ends, strict=True)
        ],
        "will": will,
        **({"verify": verify} if verify else {}),
    }


def shape(entries: Iterable[Right]) -> set[tuple[str, int]]:
    """Return what entries allow, without until when."""
    return {(entry.topic_filter, int(entry.actions)) for entry in entries}


def ends(entries: Iterable[Right]) -> set[tuple[str, int, int]]:
    """Return what entries allow and until when."""
    return {(entry.topic_filter, int(entry.actions), entry.expires_at) for entry in entries}

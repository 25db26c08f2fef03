"""Who is vouched for: which statements are taken in, and which of them travel.

Only what somebody in the local web of trust vouches for is taken: grants and revocations whose
signer is an authority or holds a grant of depth of at least 1, a key's revocation of itself if a
grant to that key is known.
"""

from collections.abc import Iterable

from authd.core.grants import DomainSubject, Form, Grant, KeySubject
from authd.core.identity import PublicKey, key_id
from authd.core.statements import Revoke, Statement
from authd.core.topics import AUTHD_PREFIX
from authd.core.trust import TrustState
from authd.service.waiting import WaitingRoom


def is_welcome(statement: Statement, *, state: TrustState, batch: Iterable[Grant]) -> bool:
    """Say whether somebody here vouches for a statement.

    Args:
        statement: Verified; heartbeats and announcements of brokers are judged elsewhere and are
            not welcome here.
        state: What is known.
        batch: Grants that came with it and are welcome.
    """
    match statement:
        case Grant():
            return _is_vouched(statement.issuer, state, batch)
        case Revoke():
            return _is_revocation_welcome(statement, state, tuple(batch))
        case _:
            return False


def _is_vouched(key: PublicKey, state: TrustState, batch: Iterable[Grant]) -> bool:
    if any(True for _ in state.authorities_with(key)):
        return True
    return any(
        grant.depth > 0 and grant.subject == KeySubject(key)
        for grant in (*state.grants_to(key_id(key)), *batch)
    )


def _is_revocation_welcome(revoke: Revoke, state: TrustState, batch: tuple[Grant, ...]) -> bool:
    if _is_vouched(revoke.issuer, state, batch):
        return True
    if revoke.revoker_grant and _is_vouched(revoke.revoker_grant.issuer, state, batch):
        return True
    if revoke.target == revoke.issuer:
        return bool(state.grants_to(key_id(revoke.issuer)))
    return False


def travels(
    grant: Grant,
    *,
    state: TrustState,
    waiting: WaitingRoom,
    replicate_devices: bool,
) -> bool:
    """Say whether a grant goes to every daemon by gossip.

    Args:
        grant: Verified.
        state: What is known.
        waiting: What waits for somebody to vouch for it.
        replicate_devices: Whether those of devices do, that a lookup would find too.
    """
    if grant.depth > 0 or Form.PASSWORD in grant.forms:
        return True
    if isinstance(grant.subject, DomainSubject):
        return True
    if any(entry.topic_filter.startswith(AUTHD_PREFIX) for entry in grant.scope):
        return True
    return replicate_devices or _is_evidence(grant, state, waiting)


def _is_evidence(grant: Grant, state: TrustState, waiting: WaitingRoom) -> bool:
    named: set[bytes] = {grant.statement_id}
    if isinstance(grant.subject, KeySubject):
        named.add(grant.subject.key)
    return any(target in state.by_target for target in named) or waiting.names_in_revocation(named)

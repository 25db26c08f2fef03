"""The edge's one error table, and the way every question becomes a decision in time.

A refusal is an answer, with status OK. What is listed here is no answer: the caller must not
cache it, and its client may try again.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import grpc
import structlog

from authd.core.decision import Decision, deny
from authd.errors import AuthdError, ReasonCode

_log = structlog.get_logger(__name__)

STATUS: Final = {
    ReasonCode.UNKNOWN_BROKER: grpc.StatusCode.UNAUTHENTICATED,
    ReasonCode.PREDATES_RESTART: grpc.StatusCode.UNAVAILABLE,
    ReasonCode.LOOKUP_IN_PROGRESS: grpc.StatusCode.UNAVAILABLE,
    ReasonCode.STALE: grpc.StatusCode.UNAVAILABLE,
    ReasonCode.OVERLOADED: grpc.StatusCode.UNAVAILABLE,
    ReasonCode.NO_PEERS: grpc.StatusCode.UNAVAILABLE,
    ReasonCode.NO_RESPONSE: grpc.StatusCode.UNAVAILABLE,
    ReasonCode.STORE_FAILED: grpc.StatusCode.UNAVAILABLE,
    ReasonCode.INTERNAL: grpc.StatusCode.UNAVAILABLE,
}
"""Reason → status, where the reason is not a refusal; any other reason goes with status OK."""


def status_of(reason: ReasonCode) -> grpc.StatusCode:
    """Look up the status that goes with a reason."""
    return STATUS.get(reason, grpc.StatusCode.OK)


Asked: TypeAlias = Callable[[], Decision | Awaitable[Decision]]
"""A question: answered from memory at once, or to be waited for."""


async def decide_in_time(ask: Asked, *, deadline_s: float) -> Decision:
    """Ask, and turn whatever happens into a decision: nothing but an answer can be an allow.

    Callers of these services may set no deadline of their own and wait for ever, so this one
    holds whenever there is anything to wait for.
    """
    try:
        answer = ask()
        if isinstance(answer, Decision):
            return answer
        async with asyncio.timeout(deadline_s):
            return await answer
    except TimeoutError:
        return deny(ReasonCode.OVERLOADED, f"no decision within {deadline_s} s")
    except AuthdError as error:
        return deny(error.reason, str(error))
    except Exception:  # noqa: BLE001 -- the edge's last resort: anything unforeseen is a refusal
        _log.exception("decision_failed")
        return deny(ReasonCode.INTERNAL, "the decision failed; the daemon's log has the cause")

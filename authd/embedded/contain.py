"""The edge's last resort: what goes wrong with one client ends with that client."""

from collections.abc import Awaitable

import structlog

from authd.errors import AuthdError

_log = structlog.get_logger(__name__)


async def contained(work: Awaitable[None]) -> None:
    """Await work for one client; a failure is logged and goes no further."""
    try:
        await work
    except (AuthdError, EOFError, OSError, TimeoutError) as error:
        _log.info("client_dropped", detail=str(error))
    except Exception:  # noqa: BLE001 -- one client must not end the others
        _log.exception("client_failed")

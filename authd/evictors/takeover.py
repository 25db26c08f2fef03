"""The takeover evictor: the last resort for brokers with no way to kick.

authd connects with the victim's client id: the broker must then drop the older connection
(MQTT 3.1.1 §3.1.4-2). It shows the reserved user name and a single-use secret, asks for a clean
session, holds no right, and leaves at once. The dropped connection's will cannot be suppressed.
"""

from collections.abc import Callable, Iterable
from typing import Final

import aiomqtt

from authd.core.identity import PublicKey
from authd.core.proofs import EVICT_USERNAME

_TIMEOUT_S: Final = 3.0


class TakeoverEvictor:
    """Ends sessions on one broker by taking over their client ids."""

    def __init__(self, *, address: str, secret: Callable[[str, PublicKey], str]) -> None:
        """Keep where to connect, and how to get the secret for a client id."""
        host, _, port = address.rpartition(":")
        self._host = host.strip("[]")
        self._port = int(port)
        self._secret = secret

    async def evict(
        self,
        *,
        client_ids: Iterable[str],
        key: PublicKey,
        reason: str,  # noqa: ARG002 - MQTT 3.1.1 has no way to say it
    ) -> dict[str, str]:
        """Take over each client id; ``taken_over`` or ``failed``."""
        return {client_id: await self._take_over(client_id, key) for client_id in client_ids}

    async def _take_over(self, client_id: str, key: PublicKey) -> str:
        client = aiomqtt.Client(
            hostname=self._host,
            port=self._port,
            identifier=client_id,
            username=EVICT_USERNAME,
            password=self._secret(client_id, key),
            clean_session=True,
            timeout=_TIMEOUT_S,
        )
        try:
            async with client:
                return "taken_over"
        except aiomqtt.MqttError:
            return "failed"

"""Cookies and write tokens: short keyed hashes that bind an address without any state.

Both are BLAKE2b keyed with a secret of this node, 8 bytes, valid for 5 to 10 minutes. A cookie
proves that its holder receives at an address; a token also that it asked about a target first.
"""

import hashlib
import hmac
from typing import Final

from authd.core.encoding import encode
from authd.dht.messages import SEAL_BYTES, Address

SECRET_BYTES: Final = 32
_PERIOD_S: Final = 300


class Seals:
    """Makes and checks cookies and tokens."""

    def __init__(self, *, secret: bytes) -> None:
        """Use ``SECRET_BYTES`` unpredictable bytes that nobody else has."""
        self._secret = secret

    def cookie(self, address: Address, *, now: float) -> bytes:
        """Make a cookie for an address; ``now`` is monotonic seconds."""
        return self._seal(b"", address, int(now / _PERIOD_S))

    def token(self, address: Address, target: bytes, *, now: float) -> bytes:
        """Make a write token for an address and target."""
        return self._seal(target, address, int(now / _PERIOD_S))

    def is_cookie(self, cookie: bytes, address: Address, *, now: float) -> bool:
        """Say whether a cookie is ours, for this address, and of this or the last period."""
        return self._matches(cookie, b"", address, now)

    def is_token(self, token: bytes, address: Address, target: bytes, *, now: float) -> bool:
        """Say whether a token is ours, for this address and target, and recent."""
        return self._matches(token, target, address, now)

    def _matches(self, seal: bytes, about: bytes, address: Address, now: float) -> bool:
        period = int(now / _PERIOD_S)
        return any(
            hmac.compare_digest(seal, self._seal(about, address, at)) for at in (period, period - 1)
        )

    def _seal(self, about: bytes, address: Address, period: int) -> bytes:
        host, port = address
        data = encode([about, host, port, period])
        return hashlib.blake2b(data, key=self._secret, digest_size=SEAL_BYTES).digest()

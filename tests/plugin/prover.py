"""A device whose signatures are real: what it shows, in every form, for one audience."""

import time
from dataclasses import dataclass, field

from authd.clock import SystemEntropy
from authd.core.challenge import make_hello, make_response, make_single
from authd.core.counter import make_counter
from authd.core.identity import DomainId, KeyId, SigningKey, key_id_text
from authd.core.proofs import Audience, make_pop
from tests.plugin.fake_authd import Json, text

AUDIENCE = Audience(DomainId(bytes(range(16))), "broker.example:1883")


def _key() -> SigningKey:
    return SigningKey.from_seed(SystemEntropy().token(32))


@dataclass(frozen=True, kw_only=True)
class Prover:
    """A key and what it can show."""

    key: SigningKey = field(default_factory=_key)
    audience: Audience = AUDIENCE

    @property
    def id(self) -> str:
        """The key id: the user name."""
        return key_id_text(self.key.public)

    @property
    def verify(self) -> Json:
        """What the daemon tells the plugin about it."""
        return {
            "public": text(self.key.public),
            "domain": text(AUDIENCE.domain),
            "endpoint": AUDIENCE.endpoint,
        }

    def pop(self, client_id: str, *, ahead_s: int = 0, hint: bool = False) -> str:
        """Make the password of one CONNECT."""
        return make_pop(
            self.key,
            audience=self.audience,
            client_id=client_id,
            time=int(time.time()) + ahead_s,
            nonce=SystemEntropy().token(8),
            issuer_hint=KeyId(SystemEntropy().token(16)) if hint else None,
        )

    def counter(self, client_id: str, count: int) -> str:
        """Make the password of a device without a clock."""
        return make_counter(self.key, audience=self.audience, client_id=client_id, counter=count)

    def single(self, client_id: str, *, ahead_s: int = 0) -> bytes:
        """Make the AUTH data of a single step."""
        return make_single(
            self.key,
            audience=self.audience,
            client_id=client_id,
            time=int(time.time()) + ahead_s,
            nonce=SystemEntropy().token(8),
        )

    def hello(self, nonce: bytes = bytes(16)) -> bytes:
        """Make the AUTH data that asks for a challenge."""
        return make_hello(self.key.public, nonce=nonce)

    def response(self, client_id: str, challenge: bytes, nonce: bytes = bytes(16)) -> bytes:
        """Make the AUTH data that answers one."""
        return make_response(
            self.key, challenge, audience=self.audience, client_id=client_id, nonce=nonce
        )

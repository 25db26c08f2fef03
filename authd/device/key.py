"""A device's key file: its seed, its domain, and the path of grants it may have to show."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from authd.clock import SystemClock, SystemEntropy
from authd.core.challenge import make_hello, make_response, make_single
from authd.core.counter import make_counter
from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.grants import Grant, verify_grant
from authd.core.identity import DomainId, KeyId, SigningKey, key_id, key_id_text, parse_id
from authd.core.proofs import NONCE_BYTES, Audience, make_pop
from authd.errors import AuthdError, ConfigError

FORMAT: Final = "authd/device/1"


class MqttClient(Protocol):
    """The part of ``paho.mqtt.client.Client`` that is used."""

    def username_pw_set(self, username: str | None, password: str | None = None) -> None:
        """Set what the next CONNECT carries."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceKey:
    """A device's key and what it needs to prove it.

    Attributes:
        key: The private key; never printed.
        domain: The broker's domain, part of every proof's audience.
        client_id: The client id the grants allow; by default the key id.
        path: The grants that lead to the key, root side first.
        staple: Whether proofs carry the path: for keys that no daemon has met yet.
    """

    key: SigningKey
    domain: DomainId
    client_id: str
    path: tuple[Grant, ...] = field(default=(), repr=False)
    staple: bool = False

    @classmethod
    def load(cls, path: str | Path) -> "DeviceKey":
        """Read a key file.

        Raises:
            ConfigError: It cannot be read or is not a device's key file.
        """
        try:
            content = json.loads(Path(path).read_text("utf-8"))
            if content["format"] != FORMAT:
                raise ConfigError(f"`{path}`: not a device's key file")
            return cls(
                key=SigningKey.from_seed(decode_base64url(content["seed"])),
                domain=DomainId(parse_id(content["domain"])),
                client_id=str(content["client_id"]),
                path=tuple(verify_grant(decode_base64url(one)) for one in content["path"]),
                staple=content["staple"] is True,
            )
        except OSError as error:
            raise ConfigError(f"`{path}`: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ConfigError(f"`{path}`: not a device's key file") from error
        except AuthdError as error:
            raise ConfigError(f"`{path}`: {error}") from error

    def dump(self) -> str:
        """Write the file's content; it holds the private key."""
        content = {
            "format": FORMAT,
            "key_id": self.username,
            "public": encode_base64url(self.key.public),
            "seed": encode_base64url(self.key.seed),
            "domain": encode_base64url(self.domain),
            "client_id": self.client_id,
            "path": [encode_base64url(grant.encoded) for grant in self.path],
            "staple": self.staple,
        }
        return json.dumps(content, indent=1) + "\n"

    @property
    def username(self) -> str:
        """The MQTT user name: the key id."""
        return key_id_text(self.key.public)

    def password(
        self,
        endpoint: str,
        *,
        client_id: str | None = None,
        now: int | None = None,
        staple: bool | None = None,
    ) -> str:
        """Make the password of one CONNECT; each is good once, within 60 s.

        Args:
            endpoint: ``host:port`` as it is dialled.
            client_id: As the CONNECT will carry it; by default the file's.
            now: Seconds since the Unix epoch; by default this host's clock.
            staple: Whether to carry the path; by default what the file says.

        Raises:
            FormatError: An odd client id.
        """
        carried = self.path if (self.staple if staple is None else staple) else ()
        return make_pop(
            self.key,
            audience=Audience(self.domain, endpoint.lower()),
            client_id=self.client_id if client_id is None else client_id,
            time=SystemClock().now() if now is None else now,
            nonce=SystemEntropy().token(NONCE_BYTES),
            issuer_hint=self._issuer_hint,
            path=carried,
        )

    def counter_password(
        self,
        endpoint: str,
        counter: int,
        *,
        client_id: str | None = None,
    ) -> str:
        """Make the password of one CONNECT without a clock.

        Args:
            endpoint: ``host:port`` as it is dialled.
            counter: Higher than in every CONNECT before; the caller keeps it over restarts.
            client_id: As the CONNECT will carry it; by default the file's.

        Raises:
            FormatError: An odd client id, or a counter outside ``[0, 2**63 - 1]``.
        """
        return make_counter(
            self.key,
            audience=Audience(self.domain, endpoint.lower()),
            client_id=self.client_id if client_id is None else client_id,
            counter=counter,
            issuer_hint=self._issuer_hint,
        )

    def auth_data(
        self,
        endpoint: str,
        *,
        client_id: str | None = None,
        now: int | None = None,
    ) -> bytes:
        """Make the AUTH data of one MQTT 5 CONNECT or re-authentication, method ``authd-1``.

        Good once, within 60 s; arguments as for `password`.

        Raises:
            FormatError: An odd client id.
        """
        return make_single(
            self.key,
            audience=Audience(self.domain, endpoint.lower()),
            client_id=self.client_id if client_id is None else client_id,
            time=SystemClock().now() if now is None else now,
            nonce=SystemEntropy().token(NONCE_BYTES),
            issuer_hint=self._issuer_hint,
        )

    def hello(self, nonce: bytes) -> bytes:
        """Make the AUTH data that asks for a challenge: needs no clock.

        Args:
            nonce: 16 random bytes, to be kept for `respond`.

        Raises:
            FormatError: A nonce of another length.
        """
        return make_hello(self.key.public, nonce=nonce, issuer_hint=self._issuer_hint)

    def respond(
        self,
        challenge: bytes,
        endpoint: str,
        nonce: bytes,
        *,
        client_id: str | None = None,
    ) -> bytes:
        """Make the AUTH data that answers a challenge.

        Args:
            challenge: AUTH data from the broker; untrusted.
            endpoint: ``host:port`` as it was dialled.
            nonce: The same as in `hello`.
            client_id: As the CONNECT carried it; by default the file's.

        Raises:
            FormatError: Not a challenge.
        """
        return make_response(
            self.key,
            challenge,
            audience=Audience(self.domain, endpoint.lower()),
            client_id=self.client_id if client_id is None else client_id,
            nonce=nonce,
        )

    @property
    def _issuer_hint(self) -> KeyId | None:
        return key_id(self.path[-1].issuer) if self.path else None

    def on_pre_connect(self, endpoint: str) -> Callable[[MqttClient, object], None]:
        """Return paho's ``on_pre_connect``: a fresh proof before each CONNECT, also reconnects."""

        def set_password(client: MqttClient, _userdata: object) -> None:
            client.username_pw_set(self.username, self.password(endpoint))

        return set_password

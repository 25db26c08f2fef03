"""A device's key file: its seed, its domain, and the path of grants it may have to show."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from authd.clock import SystemClock, SystemEntropy
from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.grants import Grant, verify_grant
from authd.core.identity import DomainId, SigningKey, key_id, key_id_text, parse_id
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
        except (ValueError, KeyError, TypeError, AttributeError) as error:
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
        issuer = self.path[-1].issuer if self.path else None
        return make_pop(
            self.key,
            audience=Audience(self.domain, endpoint.lower()),
            client_id=self.client_id if client_id is None else client_id,
            time=SystemClock().now() if now is None else now,
            nonce=SystemEntropy().token(NONCE_BYTES),
            issuer_hint=key_id(issuer) if issuer else None,
            path=carried,
        )

    def on_pre_connect(self, endpoint: str) -> Callable[[MqttClient, object], None]:
        """Return paho's ``on_pre_connect``: a fresh proof before each CONNECT, also reconnects."""

        def set_password(client: MqttClient, _userdata: object) -> None:
            client.username_pw_set(self.username, self.password(endpoint))

        return set_password

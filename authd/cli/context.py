"""What every command shares: where the state is, how to reach the daemon, how to publish."""

import base64
import http.client
import json
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from authd.cli.output import Output
from authd.clock import SystemClock, SystemEntropy
from authd.config import Settings, default_state_dir, load_settings
from authd.core.encoding import decode_base64url
from authd.core.identity import (
    PublicKey,
    SigningKey,
    admit_key,
    key_id_text,
    looks_like_key_id,
)
from authd.errors import (
    AuthdError,
    ConfigError,
    FormatError,
    NoResponseError,
    NotFoundError,
    ReasonCode,
    RejectedError,
)
from authd.node_file import NodeFile, load_node_file
from authd.outbox import Outbox
from authd.service.issuing import Bundle, encode_bundle
from authd.store.keystore import AUTHORITY, Keystore, Subject

_TIMEOUT_S: Final = 15.0
_KEY_CHARS: Final = 43
_REASONS: Final = {reason.value: reason for reason in ReasonCode}
# struct ucred: pid, uid, gid.
_UCRED: Final = struct.Struct("3i")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
StateOption = Annotated[
    Path | None,
    typer.Option("--state", help="State directory.", envvar="AUTHD_STATE", show_default=False),
]


class Context:
    """One invocation."""

    def __init__(self, output: Output, state_dir: Path) -> None:
        """Prepare what is cheap."""
        self.output = output
        self.state_dir = state_dir
        self.keystore = Keystore(state_dir)
        self.clock = SystemClock()
        self.entropy = SystemEntropy()

    @property
    def config_path(self) -> Path:
        """Where the configuration is."""
        return Path(os.environ.get("AUTHD_CONFIG") or self.state_dir / "authd.toml")

    def settings(self) -> Settings:
        """Read the configuration.

        Raises:
            ConfigError: It cannot be used.
        """
        return load_settings(self.config_path)

    def node(self) -> NodeFile:
        """Read the node file.

        Raises:
            ConfigError: This is not the state directory of a daemon.
        """
        return load_node_file(self.state_dir)

    def authority_key(self) -> SigningKey:
        """Load the key that issues.

        Raises:
            ConfigError: This host has none.
        """
        if not self.keystore.has(AUTHORITY):
            raise ConfigError(
                f"`{self.state_dir}` holds no authority key: run this where `authd init` was run",
            )
        return self.keystore.load(AUTHORITY)

    # --- the daemon -----------------------------------------------------------------------

    def ask(self, verb: str, body: dict[str, object] | None = None) -> dict[str, object]:
        """Ask the running daemon.

        Raises:
            NoResponseError: It is not running.
            RejectedError: It refused; carries its reason.
        """
        path = self.settings().run_dir / "admin.sock"
        connection = _UnixConnection(path, owners=self._owners())
        try:
            payload = json.dumps(body or {})
            connection.request(
                "POST",
                f"/v1/admin/{verb}",
                body=payload,
                headers={"Content-Type": "application/json"},
            )
            response = connection.getresponse()
            answer = json.loads(response.read())
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise NoResponseError(
                f"no daemon answers on `{path}`: start it with `authd up`",
            ) from error
        finally:
            connection.close()
        if not isinstance(answer, dict):
            raise RejectedError(f"what answers on `{path}` is no authd")
        if response.status != http.client.OK:
            sentence = str(answer.get("error", "the daemon refused"))
            raise RejectedError(sentence, reason=_REASONS.get(str(answer.get("reason"))))
        return answer

    def _owners(self) -> frozenset[int]:
        owners = {0, os.geteuid()}
        if self.state_dir.exists():
            owners.add(self.state_dir.stat().st_uid)
        return frozenset(owners)

    def is_up(self) -> bool:
        """Say whether a daemon answers."""
        try:
            self.ask("status")
        except NoResponseError:
            return False
        return True

    def publish(self, bundle: Bundle) -> bool:
        """Hand a bundle to the daemon, or leave it in the outbox; True if the daemon has it.

        Raises:
            AuthdError: The daemon refused it, or the outbox cannot be written.
        """
        data = encode_bundle(bundle)
        try:
            self.ask("submit", {"bundle": base64.b64encode(data).decode("ascii")})
        except NoResponseError:
            Outbox(self.state_dir).add(data, now_us=self.clock.now_us())
            return False
        return True

    def published_line(self, *, online: bool) -> str:
        """Say where a bundle went."""
        if online:
            return "published by the running daemon"
        return "no daemon is running: it will be published when `authd up` starts"

    # --- subjects -------------------------------------------------------------------------

    def find_key(self, text: str) -> PublicKey:
        """Find a public key by a subject's name, its id, or the key itself in base64url.

        Raises:
            FormatError: It is the name of a certificate.
            NotFoundError: Nothing here is called so.
        """
        subject = self._subject(text)
        if subject is not None and subject.form == "tls":
            raise FormatError(f"`{text}` is a TLS certificate: it has one grant and is no key")
        if subject is not None:
            return admit_key(decode_base64url(subject.key))
        if len(text) == _KEY_CHARS:
            return admit_key(decode_base64url(text))
        if looks_like_key_id(text):
            answer = self.ask("find-key", {"id": text})
            return admit_key(decode_base64url(str(answer["key"])))
        raise NotFoundError(
            f"`{text}` is not a name, key id or key known here: names stay on the host that made"
            " them; use the key id",
        )

    def find_proven(self, text: str) -> tuple[PublicKey, bool]:
        """Find a key as `find_key` does, or the digest of a certificate's, which is marked so.

        Raises:
            NotFoundError: Nothing here is called so.
        """
        subject = self._subject(text)
        if subject is not None and subject.form == "tls":
            return PublicKey(decode_base64url(subject.key)), True
        return self.find_key(text), False

    def _subject(self, text: str) -> Subject | None:
        for subject in self.keystore.subjects():
            if subject.name == text or _key_id_of(subject) == text:
                return subject
        return None

    def subject(self, text: str) -> Subject | None:
        """Find what was issued here, by name or key id."""
        return self._subject(text)


def _key_id_of(subject: Subject) -> str:
    try:
        return key_id_text(admit_key(decode_base64url(subject.key)))
    except AuthdError:
        return ""


def make_context(state: Path | None, *, as_json: bool) -> Context:
    """Build the context of a command."""
    return Context(Output(as_json=as_json), state or default_state_dir())


def read_secret(path: Path) -> bytes:
    """Read a secret from a file, without the final line break.

    Raises:
        ConfigError: It cannot be read, or is empty.
    """
    try:
        secret = path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise ConfigError(f"`{path}`: {error.strerror}") from error
    if not secret:
        raise ConfigError(f"`{path}`: empty")
    return secret


def ask_passphrase(path: Path | None, *, prompt: str, confirm: bool) -> bytes:
    """Get a passphrase from a file or from the person at the terminal, a new one twice.

    Raises:
        ConfigError: There is no terminal to ask at.
        FormatError: It is empty.
    """
    if path is not None:
        return read_secret(path)
    if not _has_terminal():
        otherwise = ", or `--unencrypted-root`" if confirm else ""
        raise ConfigError(
            f"no terminal to ask for the passphrase: name `--passphrase-file`{otherwise}"
        )
    text: str = typer.prompt(prompt, hide_input=True, confirmation_prompt=confirm)
    if not text:
        raise FormatError("an empty passphrase protects nothing")
    return text.encode()


def _has_terminal() -> bool:
    # As the prompt does it: the process's own terminal, whatever standard input is.
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return sys.stdin.isatty()
    return True


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket, with nobody but those who may be the daemon."""

    def __init__(self, path: Path, *, owners: frozenset[int]) -> None:
        super().__init__("authd", timeout=_TIMEOUT_S)
        self._path = path
        self._owners = owners

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_TIMEOUT_S)
        self.sock.connect(str(self._path))
        credentials = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
        uid = _UCRED.unpack(credentials)[1]
        if uid not in self._owners:
            raise RejectedError(f"user {uid} answers on `{self._path}`: that is not the daemon")

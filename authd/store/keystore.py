"""Keys and what was issued, as files that only their owner can read.

``keys/<name>.key`` holds one seed; a root key may be encrypted under a passphrase (argon2id and
XSalsa20-Poly1305 of libsodium). ``subjects/<name>.json`` holds what this issuer knows of a subject:
its name, key, grants and pre-signed revocation of itself; names never leave this directory.
Nothing is ever overwritten but a subject by its own newer self.
"""

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from nacl.exceptions import CryptoError
from nacl.pwhash import argon2id
from nacl.secret import SecretBox
from nacl.utils import random as random_bytes

from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.identity import SigningKey
from authd.errors import ConfigError, ConflictError, FormatError, StoreError

_FORMAT: Final = "authd/key/1"
ROOT: Final = "root"
AUTHORITY: Final = "authority"
NODE: Final = "node"
HEARTBEAT: Final = "heartbeat"
PUBLISHER: Final = "publisher"
OPERATOR: Final = "operator"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an issuer knows of a subject; byte strings as base64url.

    Attributes:
        name: As the operator calls it.
        key: Its public key, or the SHA-256 of a TLS key's SubjectPublicKeyInfo.
        kind: ``device``, ``gateway``, ``node`` or ``domain``.
        form: ``pop``, ``password``, ``counter`` or ``tls``.
        grants: Encoded grants, newest last.
        self_revocation: The key's pre-signed revocation of itself; empty if it made none.
    """

    name: str
    key: str
    kind: str = "device"
    form: str = "pop"
    grants: list[str] = field(default_factory=list)
    self_revocation: str = ""


class Keystore:
    """The keys and subjects of one state directory."""

    def __init__(self, state_dir: Path) -> None:
        """Use ``state_dir``, which `create` makes."""
        self._keys = state_dir / "keys"
        self._subjects = state_dir / "subjects"

    def create(self) -> None:
        """Make the directories, readable by their owner alone.

        Raises:
            StoreError: They cannot be made.
        """
        try:
            for directory in (self._keys.parent, self._keys, self._subjects):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make `{self._keys.parent}`: {error.strerror}") from error

    # --- keys -----------------------------------------------------------------------------

    def has(self, name: str) -> bool:
        """Say whether a key is there."""
        return self._path(name).exists()

    def names(self) -> list[str]:
        """Return the names of all keys."""
        return sorted(path.stem for path in self._keys.glob("*.key"))

    def save(self, name: str, seed: bytes, *, passphrase: bytes | None = None) -> SigningKey:
        """Write a new key; an existing one is never overwritten.

        Raises:
            ConflictError: It exists already.
            StoreError: It cannot be written.
        """
        key = SigningKey.from_seed(seed)
        content: dict[str, str] = {"format": _FORMAT, "public": encode_base64url(key.public)}
        if passphrase is None:
            content["seed"] = encode_base64url(seed)
        else:
            salt = random_bytes(argon2id.SALTBYTES)
            box = SecretBox(_stretch(passphrase, salt))
            content["salt"] = encode_base64url(salt)
            content["encrypted_seed"] = encode_base64url(bytes(box.encrypt(seed)))
        write_private(self._path(name), json.dumps(content, indent=1) + "\n", overwrite=False)
        return key

    def load(self, name: str, *, passphrase: bytes | None = None) -> SigningKey:
        """Read a key.

        Raises:
            ConfigError: There is none of that name, it is damaged, readable by others, or
                encrypted and ``passphrase`` is missing or wrong.
        """
        return read_key(self._path(name), passphrase=passphrase)

    def is_encrypted(self, name: str) -> bool:
        """Say whether a key needs a passphrase.

        Raises:
            ConfigError: It cannot be read.
        """
        return "encrypted_seed" in _read_json(self._path(name))

    def _path(self, name: str) -> Path:
        return self._keys / f"{name}.key"

    # --- subjects -------------------------------------------------------------------------

    def subject(self, name: str) -> Subject | None:
        """Return a subject by its name.

        Raises:
            ConfigError: Its file is damaged.
        """
        path = self._subject_path(name)
        return _read_subject(path) if path.exists() else None

    def subjects(self) -> list[Subject]:
        """Return every subject, by name.

        Raises:
            ConfigError: A file is damaged.
        """
        return [_read_subject(path) for path in sorted(self._subjects.glob("*.json"))]

    def save_subject(self, subject: Subject) -> None:
        """Write a subject, in the place of its older self.

        Raises:
            StoreError: It cannot be written.
        """
        text = json.dumps(asdict(subject), indent=1) + "\n"
        write_private(self._subject_path(subject.name), text, overwrite=True)

    def _subject_path(self, name: str) -> Path:
        if not name or not all(char.isalnum() or char in "-_." for char in name) or name[0] == ".":
            raise FormatError(f"`{name}` is not a name: letters, digits, `-`, `_` and `.` are")
        return self._subjects / f"{name}.json"


def read_key(path: Path, *, passphrase: bytes | None = None) -> SigningKey:
    """Read a key file.

    Raises:
        ConfigError: As in `Keystore.load`.
    """
    content = _read_json(path)
    if content.get("format") != _FORMAT:
        raise ConfigError(f"`{path}`: not a key file of authd")
    try:
        if "encrypted_seed" not in content:
            return SigningKey.from_seed(decode_base64url(content["seed"]))
        if passphrase is None:
            raise ConfigError(f"`{path}`: the key is encrypted, a passphrase is needed")
        box = SecretBox(_stretch(passphrase, decode_base64url(content["salt"])))
        return SigningKey.from_seed(box.decrypt(decode_base64url(content["encrypted_seed"])))
    except CryptoError as error:
        raise ConfigError(f"`{path}`: wrong passphrase") from error
    except (KeyError, TypeError, AttributeError, FormatError) as error:
        raise ConfigError(f"`{path}`: damaged key file") from error


def _stretch(passphrase: bytes, salt: bytes) -> bytes:
    return argon2id.kdf(
        SecretBox.KEY_SIZE,
        passphrase,
        salt,
        opslimit=argon2id.OPSLIMIT_MODERATE,
        memlimit=argon2id.MEMLIMIT_MODERATE,
    )


def _read_json(path: Path) -> dict[str, str]:
    try:
        if path.stat().st_mode & 0o077:
            raise ConfigError(f"`{path}`: readable by others; run `chmod 600` on it")
        content = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"`{path}`: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"`{path}`: damaged") from error
    if not isinstance(content, dict):
        raise ConfigError(f"`{path}`: damaged")
    return content


def _read_subject(path: Path) -> Subject:
    try:
        return Subject(**_read_json(path))  # type: ignore[arg-type]  # checked by the next line
    except TypeError as error:
        raise ConfigError(f"`{path}`: damaged") from error


def write_private(path: Path, text: str, *, overwrite: bool) -> None:
    """Write a file that only its owner can read, whole or not at all.

    Raises:
        ConflictError: It exists and ``overwrite`` is false.
        StoreError: It cannot be written.
    """
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    except OSError as error:
        raise StoreError(f"cannot write `{path}`: {error.strerror}") from error
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        if overwrite:
            _keep_owner(temporary, path)
            temporary.replace(path)
        else:
            os.link(temporary, path)
    except FileExistsError as error:
        raise ConflictError(f"`{path}` exists already and is never overwritten") from error
    except OSError as error:
        raise StoreError(f"cannot write `{path}`: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _keep_owner(new: Path, old: Path) -> None:
    # Root may run a command on the state of a daemon that is not root, and must not lock it out.
    if os.geteuid() == 0 and old.exists():
        status = old.stat()
        os.chown(new, status.st_uid, status.st_gid)

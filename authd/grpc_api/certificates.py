"""The daemon's own small certificate authority: one server, and one client per broker entry.

A certificate here says only "this connection is that broker entry of this daemon"; it never says
anything about a device, a key or a right. The server tells brokers apart by the SHA-256 of the
client certificate's DER, so a certificate that is not listed counts for nothing, even if the
authority signed it.

Files, each 0600 in a directory that is 0700::

    ca.crt ca.key                 ten years
    server.crt server.key         one year; SAN: localhost, 127.0.0.1, ::1 and the given names
    broker-<name>.crt .key        one year
    broker-<name>.previous.crt    what was renewed: a broker that still runs with it is recognised

Keys are EC P-256, which every TLS library in use speaks (RFC 8446 §9.1).
"""

import contextlib
import hashlib
import ipaddress
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authd.errors import ConfigError, StoreError

CA_LIFE: Final = timedelta(days=3_650)
LEAF_LIFE: Final = timedelta(days=365)
# Leaves end with their authority, so it is replaced while it can still give a whole year.
CA_RENEW_BEFORE: Final = LEAF_LIFE
LEAF_RENEW_BEFORE: Final = timedelta(days=30)
# A broker on a host whose clock is a little behind must not refuse a new certificate.
BACKDATED_BY: Final = timedelta(minutes=5)
LOCAL_NAMES: Final = ("localhost", "127.0.0.1", "::1")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateFiles:
    """Where a certificate and its private key lie, both PEM."""

    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificates:
    """What a server and its brokers need to recognise each other.

    Attributes:
        authority: The authority's certificate, PEM.
        server: The server's pair.
        brokers: Broker entry name → its client pair.
        fingerprints: SHA-256 of a client certificate's DER → broker entry name.
    """

    authority: Path
    server: CertificateFiles
    brokers: Mapping[str, CertificateFiles]
    fingerprints: Mapping[bytes, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure_certificates(
    directory: Path,
    *,
    host_names: Iterable[str],
    brokers: Iterable[str],
    now: int,
) -> Certificates:
    """Make what is missing, renew what is about to end, and say where everything lies.

    Args:
        directory: Made with mode 0700 if it does not exist.
        host_names: Names and addresses, besides the local ones, that brokers dial.
        brokers: Names of broker entries: 1 to 63 of ``[a-z0-9_-]``.
        now: Seconds since the Unix epoch, UTC.

    Raises:
        ConfigError: A broker's name cannot be a file's name.
        StoreError: The directory cannot be read or written, or holds something else.
    """
    moment = datetime.fromtimestamp(now, tz=UTC)
    names = [_check_name(name) for name in brokers]
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority = _ensure_authority(directory, moment)
        server = _ensure_server(directory, authority, host_names, moment)
        clients = {name: _ensure_client(directory, authority, name, moment) for name in names}
        fingerprints = {
            mark: name for name in names for mark in _fingerprints_of(directory, name, moment)
        }
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"cannot use the certificates in `{directory}`: {error}") from error
    return Certificates(
        authority=directory / "ca.crt",
        server=server,
        brokers=clients,
        fingerprints=fingerprints,
    )


def fingerprint(pem: bytes) -> bytes:
    """Compute the SHA-256 of a certificate's DER.

    Raises:
        ValueError: Not a PEM certificate.
    """
    certificate = x509.load_pem_x509_certificate(pem)
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).digest()


def _check_name(name: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise ConfigError(f"broker name `{name}` must be 1 to 63 of `[a-z0-9_-]`")
    return name


def _ensure_authority(directory: Path, now: datetime) -> _Authority:
    files = _files(directory, "ca")
    current = _load(files)
    if current is not None and current.certificate.not_valid_after_utc - now >= CA_RENEW_BEFORE:
        return current
    key = ec.generate_private_key(ec.SECP256R1())
    name = _subject("authd broker authority")
    certificate = (
        _builder(name, name, key.public_key(), now, now + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_authority=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    _save(files, certificate, key)
    return _Authority(certificate=certificate, key=key)


def _ensure_server(
    directory: Path,
    authority: _Authority,
    host_names: Iterable[str],
    now: datetime,
) -> CertificateFiles:
    files = _files(directory, "server")
    names = x509.SubjectAlternativeName(
        [_general_name(name) for name in dict.fromkeys([*LOCAL_NAMES, *host_names])],
    )
    current = _load(files)
    if current is None or not _is_good(current, authority, now) or _names_of(current) != names:
        usage = ExtendedKeyUsageOID.SERVER_AUTH
        _issue(files, authority, common_name="authd", usage=usage, now=now, names=names)
    return files


def _ensure_client(
    directory: Path,
    authority: _Authority,
    name: str,
    now: datetime,
) -> CertificateFiles:
    files = _files(directory, f"broker-{name}")
    current = _load(files)
    if current is not None and _is_good(current, authority, now):
        return files
    if current is not None:
        pem = current.certificate.public_bytes(serialization.Encoding.PEM)
        _write_private(_previous(directory, name), pem)
    _issue(files, authority, common_name=name, usage=ExtendedKeyUsageOID.CLIENT_AUTH, now=now)
    return files


def _fingerprints_of(directory: Path, name: str, now: datetime) -> list[bytes]:
    paths = (_files(directory, f"broker-{name}").certificate, _previous(directory, name))
    marks: list[bytes] = []
    for path in paths:
        if path.exists():
            pem = path.read_bytes()
            if x509.load_pem_x509_certificate(pem).not_valid_after_utc > now:
                marks.append(fingerprint(pem))
    return marks


def _is_good(current: _Authority, authority: _Authority, now: datetime) -> bool:
    if current.certificate.not_valid_after_utc - now < LEAF_RENEW_BEFORE:
        return False
    issued = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    extension = current.certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier)
    return extension.value == issued


def _issue(
    files: CertificateFiles,
    authority: _Authority,
    *,
    common_name: str,
    usage: x509.ObjectIdentifier,
    now: datetime,
    names: x509.SubjectAlternativeName | None = None,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    end = min(now + LEAF_LIFE, authority.certificate.not_valid_after_utc)
    builder = (
        _builder(
            _subject(common_name),
            authority.certificate.subject,
            key.public_key(),
            now,
            end,
        )
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()),
            critical=False,
        )
    )
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    _save(files, builder.sign(authority.key, hashes.SHA256()), key)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    now: datetime,
    end: datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED_BY)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )


def _subject(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _names_of(current: _Authority) -> x509.SubjectAlternativeName:
    return current.certificate.extensions.get_extension_for_class(
        x509.SubjectAlternativeName,
    ).value


def _files(directory: Path, stem: str) -> CertificateFiles:
    return CertificateFiles(
        certificate=directory / f"{stem}.crt",
        key=directory / f"{stem}.key",
    )


def _previous(directory: Path, name: str) -> Path:
    return directory / f"broker-{name}.previous.crt"


def _load(files: CertificateFiles) -> _Authority | None:
    if not files.certificate.exists() or not files.key.exists():
        return None
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
    # A stop between the two writes leaves a pair that does not fit: made again.
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != (
        certificate.public_key()
    ):
        return None
    return _Authority(certificate=certificate, key=key)


def _save(
    files: CertificateFiles,
    certificate: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
) -> None:
    _write_private(
        files.key,
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        ),
    )
    _write_private(files.certificate, certificate.public_bytes(serialization.Encoding.PEM))


def _write_private(path: Path, data: bytes) -> None:
    """Replace a file whole; mkstemp gives it mode 0600 from the start."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            Path(temporary).unlink()
        raise

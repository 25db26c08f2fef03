"""Client certificates: made here or taken as they are, and what is granted to their keys.

A certificate counts by its public key alone: authd compares the SHA-256 of its
SubjectPublicKeyInfo (RFC 5280 §4.1.2.7) with the grant's subject, and reads no name in it. That
the client holds the private key is proven to the broker by the TLS handshake.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, TypeAlias

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from authd.cli import issue, known
from authd.cli.context import Context
from authd.core.encoding import encode_base64url
from authd.core.grants import Form, Grant, TlsSubject, tls_subject
from authd.core.identity import key_id_text
from authd.core.topics import Action
from authd.errors import ConfigError, ConflictError, FormatError
from authd.service.issuing import parse_topic_scope
from authd.store.keystore import Subject, write_private

_PrivateKey: TypeAlias = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
# What ends is the grant; the certificate only must not end before it.
_LIFE: Final = timedelta(days=3_650)
# A broker on a host whose clock is a little behind must not refuse a new certificate.
_BACKDATED_BY: Final = timedelta(minutes=5)
_KEY_TYPES: Final[dict[str, Callable[[], _PrivateKey]]] = {
    "p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(public_exponent=65_537, key_size=3_072),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificateOptions:
    """What the command line asks for.

    Attributes:
        certificate: PEM of a certificate or public key that exists; None makes both.
        key_type: ``p256``, ``ed25519`` or ``rsa``, for one that is made.
        out: Stem of the files that are written; None uses the name, here.
    """

    name: str
    publish: list[str]
    subscribe: list[str]
    client_id: str
    life: str
    certificate: Path | None
    key_type: str
    out: Path | None
    bundle: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Files:
    certificate: Path
    key: Path


def grant_to_certificate(context: Context, options: CertificateOptions) -> None:
    """Make or take a certificate, grant its key topics, publish that and say what comes next.

    Raises:
        ConflictError: The name or a file exists already.
        ConfigError: The certificate cannot be read, or this host cannot grant.
        FormatError: An option that is not one.
    """
    who = issue.choose_issuer(context, None)
    issue.check_filters(options.publish, options.subscribe)
    replaced = known.holder_to_set_aside(context, options.name, ": choose another name")
    subject, files = _subject(context, options)
    grant = issue.issue(
        context,
        who,
        subject=subject,
        scope=parse_topic_scope(
            options.publish,
            options.subscribe,
            names={"name": options.name, "key": key_id_text(subject.key)},
        ),
        life=options.life,
        depth=0,
        client_id=issue.parse_client_id(options.client_id),
        forms=[Form.TLS],
    )
    bundle = issue.bundle_of(context, who, grant, None)
    remembered = Subject(name=options.name, key=encode_base64url(subject.key), form="tls")
    if replaced is not None:
        known.set_aside(context, replaced)
    grants = [encode_base64url(grant.encoded)]
    context.keystore.save_subject(replace(remembered, grants=grants))
    published, where = issue.hand_out(context, bundle, options.bundle)
    _report(context, options.name, subject, grant, files, where, published=published)


# --- the certificate --------------------------------------------------------------------------


def _subject(context: Context, options: CertificateOptions) -> tuple[TlsSubject, _Files | None]:
    if options.certificate is not None:
        return tls_subject(read_public_key_info(options.certificate)), None
    return _make(context, options.out or Path(options.name), options.key_type)


def read_public_key_info(path: Path) -> bytes:
    """Read the SubjectPublicKeyInfo, in DER, of a certificate or public key in PEM.

    Raises:
        ConfigError: The file cannot be read, or holds neither.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"`{path}`: {error.strerror}") from error
    try:
        if b"-----BEGIN CERTIFICATE-----" in data:
            return _public_key_info(x509.load_pem_x509_certificate(data).public_key())
        key = serialization.load_pem_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"`{path}`: neither a certificate nor a public key in PEM") from error
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _public_key_info(key: CertificatePublicKeyTypes) -> bytes:
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def _make(context: Context, stem: Path, key_type: str) -> tuple[TlsSubject, _Files]:
    make_key = _KEY_TYPES.get(key_type)
    if make_key is None:
        raise FormatError(f"`{key_type}` is not a type of key: {', '.join(_KEY_TYPES)}")
    files = _Files(
        certificate=stem.with_name(f"{stem.name}.crt"), key=stem.with_name(f"{stem.name}.key")
    )
    for path in (files.certificate, files.key):
        if path.exists():
            raise ConflictError(f"`{path}` exists already and is never overwritten")
    key = make_key()
    subject = tls_subject(_public_key_info(key.public_key()))
    certificate = _self_signed(key, key_id_text(subject.key), now=context.clock.now())
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_private(files.key, private.decode("ascii"), overwrite=False)
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    write_private(files.certificate, pem.decode("ascii"), overwrite=False)
    return subject, files


def _self_signed(key: _PrivateKey, name: str, *, now: int) -> x509.Certificate:
    # The name is the id of the key: what the operator calls it never leaves this host.
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    moment = datetime.fromtimestamp(now, tz=UTC)
    # No key usage: a leaf that may not sign is not taken for its own issuer by OpenSSL.
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - _BACKDATED_BY)
        .not_valid_after(moment + _LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
    )
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm)


# --- what comes next --------------------------------------------------------------------------


def _report(
    context: Context,
    name: str,
    subject: TlsSubject,
    grant: Grant,
    files: _Files | None,
    where: str,
    *,
    published: bool,
) -> None:
    rule, text = grant.client_id, key_id_text(subject.key)
    client_id = rule.value if rule and rule.match == 0 else text
    data: dict[str, object] = {
        "name": name,
        "key_id": text,
        "digest": encode_base64url(subject.key),
        "client_id": client_id,
        "grant": encode_base64url(grant.statement_id),
        "grant_bytes": len(grant.encoded),
        "expires_at": grant.expires_at,
        "certificate_file": str(files.certificate) if files else None,
        "key_file": str(files.key) if files else None,
        "published": published,
    }
    context.output.result(
        data,
        [
            f"{name} is TLS key {text}",
            f"grant of {len(grant.encoded)} bytes, {where}",
            *_file_lines(files),
            "",
            *_next_steps(grant, client_id, files),
        ],
    )


def _file_lines(files: _Files | None) -> list[str]:
    if files is None:
        return []
    return [
        f"certificate {files.certificate}",
        f"key file    {files.key} (move it to the device)",
    ]


def _next_steps(grant: Grant, client_id: str, files: _Files | None) -> list[str]:
    certificate = files.certificate if files else "CLIENT.crt"
    key = files.key if files else "CLIENT.key"
    published = [entry for entry in grant.scope if entry.actions & Action.PUB]
    verb, topic = (
        ("mosquitto_pub", f"-t '{published[0].topic_filter}' -m hello")
        if published
        else ("mosquitto_sub", f"-t '{grant.scope[0].topic_filter}'")
    )
    command = f"{verb} -h BROKER -p 8883 --cafile SERVER-CA.crt --cert {certificate} --key {key}"
    return [
        "Mosquitto (`mosquitto.conf`), with authd's plugin; a self-signed certificate is its own",
        f"authority, so append `{certificate}` to the file of `cafile` and send SIGHUP:",
        "  listener 8883",
        "  certfile /etc/mosquitto/certs/server.crt",
        "  keyfile /etc/mosquitto/certs/server.key",
        "  cafile /etc/mosquitto/certs/clients.crt",
        "  require_certificate true",
        "",
        "the client, without user name and password:",
        f"  {command} -i {client_id} {topic}",
    ]

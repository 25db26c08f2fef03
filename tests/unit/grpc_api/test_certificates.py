import hashlib
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from authd.errors import ConfigError, StoreError
from authd.grpc_api.certificates import (
    Certificates,
    ensure_certificates,
    fingerprint,
)

NOW = 1_800_000_000
DAY = 86_400


def ensure(
    directory: Path,
    *,
    now: int = NOW,
    host_names: tuple[str, ...] = ("broker.example",),
    brokers: tuple[str, ...] = ("hall", "yard"),
) -> Certificates:
    return ensure_certificates(directory, host_names=host_names, brokers=brokers, now=now)


def load(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_every_file_and_the_directory_are_private(tmp_path: Path) -> None:
    directory = tmp_path / "tls"
    ensure(directory)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert modes == dict.fromkeys(
        [
            "ca.crt",
            "ca.key",
            "server.crt",
            "server.key",
            "broker-hall.crt",
            "broker-hall.key",
            "broker-yard.crt",
            "broker-yard.key",
        ],
        0o600,
    )


def test_a_fingerprint_is_the_sha256_of_the_der_and_names_its_broker(tmp_path: Path) -> None:
    made = ensure(tmp_path)
    pem = made.brokers["hall"].certificate.read_text()
    der = ssl.PEM_cert_to_DER_cert(pem)
    assert made.fingerprints[hashlib.sha256(der).digest()] == "hall"
    assert fingerprint(pem.encode()) == hashlib.sha256(der).digest()
    assert sorted(made.fingerprints.values()) == ["hall", "yard"]


def test_the_server_answers_to_local_and_given_names(tmp_path: Path) -> None:
    made = ensure(tmp_path, host_names=("broker.example", "10.1.2.3", "localhost"))
    names = load(made.server.certificate).extensions.get_extension_for_class(
        x509.SubjectAlternativeName,
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["localhost", "broker.example"]
    assert [str(ip) for ip in names.value.get_values_for_type(x509.IPAddress)] == [
        "127.0.0.1",
        "::1",
        "10.1.2.3",
    ]


def test_a_second_start_changes_nothing(tmp_path: Path) -> None:
    ensure(tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    ensure(tmp_path, now=NOW + 300 * DAY)
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_renewed_broker_is_known_by_its_old_certificate_until_that_ends(tmp_path: Path) -> None:
    old = ensure(tmp_path).fingerprints
    renewed = ensure(tmp_path, now=NOW + 340 * DAY).fingerprints
    assert len(renewed) == 4
    assert old.items() < renewed.items()
    later = ensure(tmp_path, now=NOW + 366 * DAY).fingerprints
    assert later.items() == renewed.items() - old.items()


def test_new_host_names_make_a_new_server_certificate(tmp_path: Path) -> None:
    first = load(ensure(tmp_path).server.certificate)
    second = load(ensure(tmp_path, host_names=("other.example",)).server.certificate)
    assert first.serial_number != second.serial_number


def test_an_authority_in_its_last_year_is_replaced_with_all_it_signed(tmp_path: Path) -> None:
    first = ensure(tmp_path)
    serials = {path.name: load(path).serial_number for path in tmp_path.glob("*.crt")}
    last_year = NOW + (3_650 - 364) * DAY
    second = ensure(tmp_path, now=last_year)
    for path in tmp_path.glob("*.crt"):
        if not path.name.endswith(".previous.crt"):
            assert load(path).serial_number != serials[path.name], path.name
    assert not first.fingerprints.keys() & second.fingerprints.keys()
    load(second.server.certificate).verify_directly_issued_by(load(second.authority))


def test_a_key_that_does_not_fit_its_certificate_is_replaced(tmp_path: Path) -> None:
    made = ensure(tmp_path)
    made.brokers["hall"].key.write_bytes(made.server.key.read_bytes())
    again = ensure(tmp_path)
    context = ssl.create_default_context()
    context.load_cert_chain(again.brokers["hall"].certificate, again.brokers["hall"].key)


@pytest.mark.parametrize("name", ["", "Hall", "../x", "a b", "-x", "x" * 64, "ä", "hall\n"])
def test_a_broker_name_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="broker name"):
        ensure(tmp_path, brokers=(name,))
    assert not list(tmp_path.iterdir())


def test_something_else_in_a_certificate_file_is_an_error_of_the_store(tmp_path: Path) -> None:
    ensure(tmp_path)
    (tmp_path / "ca.crt").write_text("not a certificate")
    with pytest.raises(StoreError, match="cannot use the certificates"):
        ensure(tmp_path)


def test_a_directory_that_cannot_be_made_is_an_error_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        ensure(tmp_path / "file" / "tls")

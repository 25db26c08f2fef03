"""Ends on the command line: what is renewed, what is not, and what revoking takes along."""

import base64
from pathlib import Path

import pytest

from authd.cli.issue import parse_life
from authd.clock import SystemClock
from authd.core.claims import Kind
from authd.core.encoding import decode_base64url
from authd.core.grants import Grant, sign_grant, verify_grant
from authd.core.statements import verify_revoke
from authd.errors import FormatError
from authd.service.issuing import DEVICE_LIFE_S, decode_bundle
from authd.service.ports import StoredStatement
from authd.service.renewal import renew, stands
from authd.store.keystore import AUTHORITY, Keystore
from authd.store.sqlite import SqliteStore
from tests.unit.cli.conftest import Run

NOON = 1_800_000_000  # 2027-01-15T08:00:00Z


def issued(domain: Path, name: str) -> Grant:
    subject = Keystore(domain).subject(name)
    assert subject is not None
    return verify_grant(decode_base64url(subject.grants[-1]))


def test_a_grant_without_an_end_stands_and_one_with_any_end_does_not(
    run: Run, domain: Path
) -> None:
    for name, option in (
        ("stands", ()),
        ("days", ("--for=90d",)),
        ("year", ("--for=365d",)),
        ("short", ("--for=12h",)),
        ("until", ("--until=2h",)),
    ):
        assert run("device", "new", name, "--pub=home/x", *option).code == 0
        assert stands(issued(domain, name)) is (name == "stands")
    over = run("device", "new", "over", "--pub=home/x", "--until=2020-01-01")
    assert over.code == 2
    assert "is over" in over.json["error"]


@pytest.mark.parametrize(
    ("text", "life_s"),
    [
        ("12h", 43_200),
        ("2027-01-15", 16 * 3_600),
        ("2027-01-16", 40 * 3_600),
        ("90d", DEVICE_LIFE_S - 1),
    ],
)
def test_an_end_is_a_duration_or_the_end_of_a_day(text: str, life_s: int) -> None:
    assert parse_life(text, now=NOON) == life_s


@pytest.mark.parametrize("text", ["", "2027-02-30", "2027-1-1", "2027-01-14", "tomorrow", "0s"])
def test_odd_ends_are_refused(text: str) -> None:
    with pytest.raises(FormatError):
        parse_life(text, now=NOON)


@pytest.mark.parametrize("by", ["grant", "name"])
def test_revoking_a_grant_takes_its_renewals_along(run: Run, domain: Path, by: str) -> None:
    if by == "name":
        assert run("device", "cert", "lamp", "--pub=home/x").code == 0
    else:
        assert run("device", "new", "lamp", "--pub=home/x").code == 0
        assert run("device", "new", "other", "--pub=home/x").code == 0
    grant = issued(domain, "lamp")
    successor = renew(Keystore(domain).load(AUTHORITY), grant)
    with SqliteStore(domain / "authd.db") as store:
        store.save_statements(
            [
                StoredStatement(
                    kind=Kind.GRANT,
                    statement_id=one.statement_id,
                    data=one.encoded,
                    source="local",
                    received_at=SystemClock().now(),
                )
                for one in (grant, successor)
            ],
            durable=True,
        )
    target = f"grant:{encoded(grant.statement_id)}" if by == "grant" else "lamp"
    assert run("revoke", target).json["state"] == "outbox"
    newest = max((domain / "outbox").glob("*.bundle"))
    items = decode_bundle(newest.read_bytes()).statements
    targets = [verify_revoke(one.data).target for one in items]
    assert targets == [grant.statement_id, successor.statement_id]


def test_revoking_a_grant_takes_along_what_another_host_may_have_renewed_it_by(
    run: Run, domain: Path
) -> None:
    assert run("device", "new", "lamp", "--pub=home/x").code == 0
    key, now = Keystore(domain).load(AUTHORITY), SystemClock().now()
    fresh = issued(domain, "lamp")
    old = sign_grant(
        key,
        subject=fresh.subject,
        scope=fresh.scope,
        issued_at=now - DEVICE_LIFE_S * 3 // 4,
        expires_at=now + DEVICE_LIFE_S // 4,
    )
    with SqliteStore(domain / "authd.db") as store:
        store.save_statements(
            [
                StoredStatement(
                    kind=Kind.GRANT,
                    statement_id=old.statement_id,
                    data=old.encoded,
                    source="local",
                    received_at=now,
                )
            ],
            durable=True,
        )
    assert run("revoke", f"grant:{encoded(old.statement_id)}").json["state"] == "outbox"
    newest = max((domain / "outbox").glob("*.bundle"))
    items = decode_bundle(newest.read_bytes()).statements
    targets = [verify_revoke(one.data).target for one in items]
    assert targets == [old.statement_id, renew(key, old).statement_id]


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")

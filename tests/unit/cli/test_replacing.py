"""A name whose key is revoked: nothing is granted to that key, and a new key takes the name."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from authd.cli.context import make_context
from authd.cli.known import revoked_targets
from authd.core.claims import Kind
from authd.core.encoding import decode_base64url, encode_base64url
from authd.core.grants import verify_grant
from authd.core.identity import SigningKey, key_id_text
from authd.core.statements import sign_revoke
from authd.demo.clients import Client
from authd.demo.stage import Site, wait_until
from authd.device import DeviceKey
from authd.service.ports import StoredStatement
from authd.store.keystore import AUTHORITY, Keystore
from authd.store.sqlite import SqliteStore
from tests.unit.cli.conftest import Run


@pytest.mark.parametrize("reason", ["", "--reason=lost"], ids=["own word", "the authority's"])
def test_a_revoked_key_is_granted_nothing_and_its_name_goes_to_a_new_one(
    run: Run, domain: Path, tmp_path: Path, reason: str
) -> None:
    old = run("device", "new", "watch", "--pub=home/watch").json
    before = Keystore(domain).subject("watch")
    assert before is not None
    assert run("revoke", "watch", *([reason] if reason else [])).code == 1, "in the outbox"
    for called in ("watch", old["key_id"], old["key"]):
        refused = run("grant", called, "--sub=home/x")
        assert (refused.code, refused.json["reason"]) == (2, "revoked")
        assert "never comes back" in refused.json["error"]
    assert len(list((domain / "outbox").glob("*.bundle"))) == 2, "nothing was issued"
    (tmp_path / "watch.key").unlink()
    new = run("device", "new", "watch", "--pub=home/watch", as_json=False)
    assert new.code == 0, new.err
    assert "the revoked key of that name is kept as watch.1" in new.out
    keystore = Keystore(domain)
    kept, now = keystore.subject("watch.1"), keystore.subject("watch")
    assert kept is not None
    assert now is not None
    assert (kept.key, kept.self_revocation) == (before.key, before.self_revocation)
    assert (now.key == kept.key, len(now.grants)) == (False, 1)
    assert run("grant", "watch", "--sub=home/x").code == 0
    listed = {one["name"]: one["state"] for one in run("device", "list").json["devices"]}
    assert listed == {"watch": "valid", "watch.1": "revoked"}


def test_a_name_that_is_not_revoked_is_kept_and_so_is_its_key_file(run: Run, domain: Path) -> None:
    assert run("device", "new", "watch", "--pub=home/watch").code == 0
    again = run("device", "new", "watch", "--pub=home/watch", "--out=other.key")
    assert (again.code, again.json["reason"]) == (2, "conflict")
    assert run("revoke", "watch").code == 1
    # The key file lies there still: nothing is overwritten, and nothing was set aside for it.
    assert run("device", "new", "watch", "--pub=home/watch").json["reason"] == "conflict"
    assert Keystore(domain).subject("watch.1") is None


def test_a_certificate_whose_grant_is_revoked_leaves_its_name(run: Run, domain: Path) -> None:
    assert run("device", "cert", "bridge", "--pub=site/#").code == 0
    assert run("device", "cert", "bridge", "--pub=site/#", "--out=b2").json["reason"] == "conflict"
    assert run("revoke", "bridge").code == 1
    assert run("device", "cert", "bridge", "--pub=site/#", "--out=b2").code == 0
    states = {one["name"]: one["state"] for one in run("device", "list").json["devices"]}
    assert states == {"bridge": "valid", "bridge.1": "revoked"}


def test_a_strangers_revocation_bars_nothing(run: Run, domain: Path, tmp_path: Path) -> None:
    key = DeviceKey.load(
        Path(run("device", "new", "watch", "--pub=home/watch").json["key_file"])
    ).key.public
    stranger = SigningKey.from_seed(bytes(31) + b"\x07")
    revoke = sign_revoke(stranger, target=key, issued_at=int(time.time()))
    with SqliteStore(domain / "authd.db") as store:
        stored = StoredStatement(
            kind=Kind.REVOKE,
            statement_id=revoke.statement_id,
            data=revoke.encoded,
            source="peer",
            received_at=0,
        )
        store.save_statements([stored], durable=True)
    context = make_context(domain, as_json=True)
    assert revoked_targets(context, [key]) == frozenset()
    assert run("grant", "watch", "--sub=home/x").code == 0
    own = Keystore(domain).load(AUTHORITY)
    revoke = sign_revoke(own, target=key, issued_at=int(time.time()))
    with SqliteStore(domain / "authd.db") as store:
        stored = StoredStatement(
            kind=Kind.REVOKE,
            statement_id=revoke.statement_id,
            data=revoke.encoded,
            source="peer",
            received_at=0,
        )
        store.save_statements([stored], durable=True)
    assert revoked_targets(context, [key]) == {key}
    assert run("grant", "watch", "--sub=home/x").json["reason"] == "revoked"


# --- names ------------------------------------------------------------------------------------


def test_devices_are_listed_with_form_state_and_end(run: Run, domain: Path) -> None:
    assert run("device", "list", as_json=False).out == "no devices\n"
    plug = run("device", "new", "plug", "--pub=home/plug", "--password").json
    lamp = run("device", "new", "lamp", "--pub=home/lamp", "--for=1s").json
    run("invite", "--name=second")
    time.sleep(max(0.0, lamp["expires_at"] - time.time()) + 0.1)
    listed = run("device", "list").json["devices"]
    assert [(one["name"], one["key_id"], one["form"], one["state"]) for one in listed] == [
        ("lamp", lamp["key_id"], "pop", "expired"),
        ("plug", plug["key_id"], "password", "valid"),
    ]
    assert listed[1]["until"] == plug["expires_at"]
    head, *_, row = run("device", "list", as_json=False).out.splitlines()
    assert head.split() == ["NAME", "KEY", "FORM", "STATE", "UNTIL"]
    day = datetime.fromtimestamp(plug["expires_at"], UTC).date().isoformat()
    assert row.split() == ["plug", plug["key_id"], "password", "valid", day]


def test_a_revoked_grant_does_not_revoke_what_is_left(run: Run, domain: Path) -> None:
    made = run("device", "new", "lamp", "--pub=home/lamp").json
    more = run("grant", "lamp", "--sub=home/x", "--for=1h").json["grant"]
    assert run("revoke", f"grant:{made['grant']}").code == 1
    (lamp,) = run("device", "list").json["devices"]
    subject = Keystore(domain).subject("lamp")
    assert subject is not None
    ends = {
        encode_base64url(grant.statement_id): grant.expires_at
        for grant in (verify_grant(decode_base64url(one)) for one in subject.grants)
    }
    assert (lamp["state"], lamp["until"]) == ("valid", ends[more])
    assert run("revoke", f"grant:{more}").code == 1
    (lamp,) = run("device", "list").json["devices"]
    assert lamp["state"] == "revoked"


def test_a_name_of_another_host_is_answered_with_what_to_use(run: Run, domain: Path) -> None:
    for command in ("revoke", "explain", "grant"):
        pub = ["--pub=a"] if command == "grant" else []
        done = run(command, "nobody", *pub)
        assert done.code == 2
        assert "names stay on the host that made them; use the key id" in done.json["error"]


def test_sessions_and_revocations_carry_the_names_of_this_host(
    run: Run, site: Site, tmp_path: Path
) -> None:
    run("device", "new", "named", "--pub=site/named", site=site)
    device = DeviceKey.load(tmp_path / "named.key")
    with Client(
        site.mqtt_port,
        client_id=device.client_id,
        username=device.username,
        password=device.password(site.endpoint),
    ):
        (one,) = run("sessions", "list", site=site).json["sessions"]
        assert (one["name"], one["key"]) == ("named", key_id_text(device.key.public))
        head, row, rest = run("sessions", "list", site=site, as_json=False).out.splitlines()
        assert head.split() == ["BROKER", "NAME", "KEY", "FORM", "STATE", "LEASE"]
        assert "named" in row.split()
        assert rest == "  pub site/named"
        assert max(map(len, (head, row, rest))) < 80
    (tmp_path / "named.key").unlink()
    grant = run("grant", "named", "--sub=site/x", site=site).json["grant"]
    run("revoke", f"grant:{grant}", site=site)
    run("revoke", "named", site=site)
    listed = run("revocations", site=site).json["revocations"]
    assert {one["name"] for one in listed} == {"named"}
    assert "named" in run("revocations", site=site, as_json=False).out
    assert run("grant", "named", "--sub=site/y", site=site).json["reason"] == "revoked"
    assert run("device", "new", "named", "--pub=site/named", site=site).code == 0
    wait_until(
        lambda: run("explain", "named", site=site).code == 0, timeout_s=5, what="the new key counts"
    )
    why = run("explain", "named.1", site=site).json
    assert (why["reason"], "is revoked by its own statement" in why["detail"]) == ("revoked", True)

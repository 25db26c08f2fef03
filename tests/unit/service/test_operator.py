"""What the operator asks a daemon, and what it answers."""

from pathlib import Path
from typing import Any

import pytest

from authd.core.encoding import encode_base64url
from authd.core.identity import key_id, key_id_text
from authd.core.records import encode_record, make_record
from authd.core.statements import sign_revoke
from authd.errors import AuthdError, FormatError, NotFoundError, WeakKeyError
from authd.service.issuing import (
    Bundle,
    Ticket,
    decode_bundle,
    decode_ticket,
    encode_bundle,
    encode_ticket,
    grant_bundle,
    parse_topic_scope,
)
from tests.unit.service.scenes import (
    DEVICE,
    DEVICE_ID,
    OTHER,
    TEMP,
    gossip,
    item,
    revoke,
    site_with_device,
)
from tests.world import START, Domain, Ether, Site


async def test_a_bundle_is_applied_published_and_pushed(tmp_path: Path) -> None:
    ether = Ether()
    site = Site(tmp_path, Domain(), ether=ether)
    grant = site.domain.grant(DEVICE.public, TEMP)
    bundle = grant_bundle(site.domain.authority, grant, earlier=[], now_us=START * 1_000_000)
    answer = await site.service.operator.submit(encode_bundle(bundle))
    assert answer["accepted"] == [encode_base64url(grant.statement_id)]
    again = await site.service.operator.submit(encode_bundle(bundle))
    assert (again["accepted"], again["known"]) == ([], 1)
    assert site.service.publisher.unpublished == 1
    assert len(site.store.load_records()) == 1


async def test_a_bundle_with_a_bad_record_is_refused_whole(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    grant = site.domain.grant(DEVICE.public, TEMP)
    stale = make_record(
        OTHER,
        salt=bytes(20),
        seq=1,
        content=b"",
        expires_at=START,
    )
    bundle = Bundle(statements=(item(grant),), records=(encode_record(stale),))
    with pytest.raises(AuthdError):
        await site.service.operator.submit(encode_bundle(bundle))
    assert site.service.authority.state.grants_to(key_id(DEVICE.public)) == ()
    assert grant.statement_id not in {one.statement_id for one in site.store.load_statements()}


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x83\x02\x80\x80", b"\x83\x01\x81\x00\x80"])
async def test_what_is_no_bundle_is_refused(tmp_path: Path, data: bytes) -> None:
    site = Site(tmp_path, Domain())
    with pytest.raises(FormatError):
        await site.service.operator.submit(data)


async def test_a_revocation_is_shown_with_state_and_what_was_cut(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    signed = revoke(site, DEVICE.public, reason="lost")
    answer = site.service.operator.revocation(signed.statement_id)
    assert answer["state"] == "pending"
    assert answer["cut"] == [
        {"broker": "m", "client_id": DEVICE_ID, "outcome": "sent", "reason": "revoked"},
    ]
    site.service.authority.beat()
    listed: Any = site.service.operator.revocations()["revocations"]
    assert [one["state"] for one in listed] == ["in force"]
    assert (listed[0]["reason"], listed[0]["target"]) == ("lost", DEVICE_ID)
    with pytest.raises(NotFoundError):
        site.service.operator.revocation(bytes(16))


async def test_status_and_sessions_name_everything_that_counts(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    assert (await site.connect(DEVICE)).allowed
    status: Any = site.service.operator.status()
    assert (status["node"], status["grants"], status["sessions"]) == ("A", 1, 1)
    assert [one["attached"] for one in status["brokers"]] == [False, False, False]
    domain = status["domains"][0]
    assert (domain["own"], domain["fresh"], domain["root_version"]) == (True, True, 1)
    assert "s" * 22 not in repr(status), "broker secrets are not shown"
    sessions: Any = site.service.operator.sessions()["sessions"]
    assert sessions[0]["client_id"] == DEVICE_ID
    assert sessions[0]["rights"] == [{"filter": "site/temp", "actions": ["pub"]}]
    site.clock.advance(120)
    stale: Any = site.service.operator.status()
    assert stale["domains"][0]["stale_for_s"] == 60


def test_why_shows_paths_or_what_is_wrong_with_them(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    why = site.service.operator.why
    paths: Any = why(DEVICE.public)["paths"]
    assert paths[0]["grants"][0]["source"] == "local"
    failures: Any = why(OTHER.public)["failures"]
    assert failures[0]["reason"] == "unknown_key"
    with pytest.raises(WeakKeyError):
        why(bytes(32))
    with pytest.raises(FormatError):
        why(b"short")


def test_a_key_is_found_by_its_id(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    assert site.service.operator.find_key(DEVICE_ID) == {"key": encode_base64url(DEVICE.public)}
    with pytest.raises(NotFoundError):
        site.service.operator.find_key(key_id_text(OTHER.public))


def test_explain_refuses_an_unknown_operation_or_form(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)

    def explain(form: str, operation: str) -> object:
        return site.service.operator.explain(
            key=DEVICE.public,
            broker="m",
            client_id="",
            form=form,
            operation=operation,
            topic="site/temp",
        )["effect"]

    assert explain("pop", "publish") == "allow"
    assert explain("pop", "receive") == "deny"
    with pytest.raises(FormatError, match="proof form"):
        explain("bearer", "publish")
    with pytest.raises(FormatError, match="not one of"):
        explain("pop", "delete")


# --- publishing -------------------------------------------------------------------------------


async def test_records_are_put_until_the_network_has_them_also_after_a_restart(
    tmp_path: Path,
) -> None:
    ether = Ether()
    ether.down = True
    site = Site(tmp_path, Domain(), ether=ether)
    grant = site.domain.grant(DEVICE.public, TEMP)
    bundle = grant_bundle(site.domain.authority, grant, earlier=[], now_us=START * 1_000_000)
    await site.service.publisher.submit(bundle)
    assert not await site.service.publisher._put(decode_first(bundle, site))
    site.close()
    site.open()
    assert site.service.publisher.unpublished == 1
    ether.down = False
    assert await site.service.publisher._put(decode_first(bundle, site))
    assert len(ether.records) == 1


def decode_first(bundle: Bundle, site: Site) -> Any:
    assert decode_bundle(encode_bundle(bundle)) == bundle
    return next(iter(site.service.publisher._unpublished.values()))


async def test_a_pushed_revocation_reaches_the_other_sites_with_its_evidence(
    tmp_path: Path,
) -> None:
    ether, domain = Ether(), Domain()
    sites = [
        Site(tmp_path, domain, name=name, ether=ether, replicate=False, heartbeat=heartbeat)
        for name, heartbeat in (("A", "hb-1"), ("B", None))
    ]
    sites[0].learn(domain.grant(DEVICE.public, TEMP))
    signed = sign_revoke(DEVICE, target=DEVICE.public, issued_at=START)
    await sites[0].service.operator.submit(encode_bundle(Bundle(statements=(item(signed),))))
    assert signed.statement_id in sites[1].service.authority.state.revocations
    assert gossip(sites[1], signed) == []


# --- tickets and scopes -----------------------------------------------------------------------


def test_a54_a_ticket_does_not_print_its_seed() -> None:
    ticket = Ticket(
        domain=Domain().id,
        seed=b"\x07" * 32,
        operator=True,
        roots=(),
        grants=(),
        publisher=b"\x08" * 32,
        peers=("a:1",),
    )
    assert decode_ticket(encode_ticket(ticket)) == ticket
    assert repr(ticket.seed) not in repr(ticket)
    for data in (b"", b"\x80", encode_bundle(Bundle())):
        with pytest.raises(FormatError):
            decode_ticket(data)


@pytest.mark.parametrize(
    "template",
    ["{unknown}", "{", "{0}", "{name.__class__}", "{name!r}x{", "a/#/b", "$share/g/a", ""],
)
def test_only_known_placeholders_and_real_filters_become_a_scope(template: str) -> None:
    with pytest.raises(FormatError):
        parse_topic_scope([template], [], names={"name": "lamp"})


def test_placeholders_are_expanded_and_never_signed() -> None:
    found = parse_topic_scope(["home/{name}/#"], ["home/{name}/#"], names={"name": "lamp"})
    assert [(one.topic_filter, int(one.actions)) for one in found] == [("home/lamp/#", 3)]
    with pytest.raises(FormatError, match="nothing is granted"):
        parse_topic_scope([], [], names={})

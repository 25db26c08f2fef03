"""The proof forms beside the pop: counter, challenge, TLS certificate; each once, none instead."""

import asyncio
from pathlib import Path

import pytest

from authd.core.challenge import (
    begin_exchange,
    make_hello,
    make_response,
    make_single,
    parse_first,
)
from authd.core.counter import make_counter
from authd.core.decision import (
    ChallengeResponse,
    ClientCertificate,
    ConnectRequest,
    Decision,
    Presented,
    SingleStep,
)
from authd.core.grants import (
    ClientIdMatch,
    ClientIdRule,
    Form,
    Grant,
    TlsSubject,
    sign_grant,
    tls_subject,
)
from authd.core.identity import SigningKey, key_id, key_id_text
from authd.core.proofs import Audience
from authd.core.records import verify_record
from authd.errors import ReasonCode
from authd.service.issuing import grant_bundle
from tests.unit.service.scenes import (
    DEVICE,
    DEVICE_ID,
    OTHER,
    TEMP,
    can_publish,
    revoke,
    site_with_device,
)
from tests.world import START, Domain, Ether, Site

ANY = ClientIdRule(ClientIdMatch.ANY)
PUMP = ClientIdRule(ClientIdMatch.EXACT, "pump")
CERTIFICATE = tls_subject(b"the SubjectPublicKeyInfo of some certificate")
CERTIFICATE_ID = key_id_text(CERTIFICATE.key)


async def ask(
    site: Site,
    *,
    client_id: str = DEVICE_ID,
    password: str = "",
    presented: Presented | None = None,
    reauthenticates: str = "",
    broker: str = "m",
    clean: bool = True,
) -> Decision:
    return await site.service.decider.connect(
        ConnectRequest(
            broker=broker,
            client_id=client_id,
            username=DEVICE_ID,
            password=password,
            presented=presented,
            reauthenticates=reauthenticates,
            boot="0" * 16,
            clean=clean,
        ),
    )


# --- counter ----------------------------------------------------------------------------------


def counter_site(directory: Path, **options: object) -> Site:
    site = Site(directory, Domain(), **options)  # type: ignore[arg-type]  # handed on as they are
    site.learn(counter_grant(site))
    return site


def counter_grant(site: Site, *endpoints: str) -> Grant:
    return site.domain.grant(
        DEVICE.public,
        TEMP,
        forms=[Form.COUNTER],
        audiences=[str(Audience(site.domain.id, one)) for one in (endpoints or ("broker:1883",))],
    )


def counter(site: Site, number: int, *, endpoint: str = "broker:1883") -> str:
    return make_counter(
        DEVICE,
        audience=Audience(site.domain.id, endpoint),
        client_id=DEVICE_ID,
        counter=number,
    )


async def test_a4_a_counter_must_rise_and_may_jump(tmp_path: Path) -> None:
    site = counter_site(tmp_path)
    reasons = [
        (await ask(site, password=counter(site, number))).reason
        for number in (0, 0, 1, 7, 7, 6, 2**63 - 1, 2**63 - 1)
    ]
    ok, replayed = ReasonCode.OK, ReasonCode.REPLAYED
    assert reasons == [ok, replayed, ok, ok, replayed, replayed, ok, replayed]


async def test_a4_of_two_connects_with_one_counter_at_once_one_is_allowed(tmp_path: Path) -> None:
    site = counter_site(tmp_path)
    proof = counter(site, 5)
    decisions = await asyncio.gather(*(ask(site, password=proof) for _ in range(5)))
    assert sorted(one.reason.value for one in decisions) == ["ok", *["replayed"] * 4]


async def test_a4_a_counter_stays_used_after_the_daemon_was_killed(tmp_path: Path) -> None:
    site = counter_site(tmp_path)
    assert (await ask(site, password=counter(site, 5))).allowed
    site.close()
    site.open()
    assert (await ask(site, password=counter(site, 5))).reason is ReasonCode.REPLAYED
    assert (await ask(site, password=counter(site, 6))).allowed


async def test_a_counter_needs_no_clock(tmp_path: Path) -> None:
    site = counter_site(tmp_path, not_before=START + 1_000)
    assert (await ask(site, password=counter(site, 1))).allowed


async def test_a_temporary_no_does_not_use_a_counter_up_and_a_verdict_does(tmp_path: Path) -> None:
    site = counter_site(tmp_path, heartbeat=None)
    for _ in range(2):
        assert (await ask(site, password=counter(site, 5))).reason is ReasonCode.STALE
    directory = tmp_path / "second"
    directory.mkdir()
    refused = counter_site(directory)
    revoke(refused, DEVICE.public)
    assert (await ask(refused, password=counter(refused, 5))).reason is ReasonCode.REVOKED
    assert (await ask(refused, password=counter(refused, 5))).reason is ReasonCode.REPLAYED


async def test_a_counter_that_cannot_be_kept_is_no_verdict(tmp_path: Path) -> None:
    site = counter_site(tmp_path)
    site.store._durable.execute("ALTER TABLE counters RENAME TO broken")
    decision = await ask(site, password=counter(site, 5))
    assert decision.reason is ReasonCode.STORE_FAILED
    site.store._durable.execute("ALTER TABLE broken RENAME TO counters")
    assert (await ask(site, password=counter(site, 5))).allowed


@pytest.mark.parametrize("endpoints", [("broker:1883", "broker:1884"), ("none",)])
async def test_a_counter_counts_only_with_a_grant_for_exactly_this_audience(
    tmp_path: Path,
    endpoints: tuple[str, ...],
) -> None:
    site = Site(tmp_path, Domain())
    site.learn(counter_grant(site, *endpoints))
    decision = await ask(site, password=counter(site, 1))
    wrong = ReasonCode.WRONG_AUDIENCE if "none" in endpoints else ReasonCode.FORM_NOT_ALLOWED
    assert decision.reason is wrong


async def test_a5_a_counter_for_another_broker_is_refused_and_explained(tmp_path: Path) -> None:
    site = counter_site(tmp_path)
    proof = counter(site, 1, endpoint="broker:1884")
    decision = await ask(site, password=proof)
    assert decision.reason is ReasonCode.WRONG_AUDIENCE
    assert "broker:1884" in decision.detail
    unknown = await ask(site, password=counter(site, 1, endpoint="elsewhere:1"))
    assert unknown.reason is ReasonCode.BAD_SIGNATURE


async def test_a7_a_grant_for_proofs_does_not_allow_a_counter(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    decision = await ask(site, password=counter(site, 1))
    assert decision.reason is ReasonCode.FORM_NOT_ALLOWED


# --- challenge --------------------------------------------------------------------------------


def single(
    site: Site,
    *,
    key: SigningKey = DEVICE,
    client_id: str = DEVICE_ID,
    nonce: bytes = b"a nonce!",
    time: int = START,
    hint: SigningKey | None = None,
) -> SingleStep:
    data = make_single(
        key,
        audience=site.audience,
        client_id=client_id,
        time=time,
        nonce=nonce,
        issuer_hint=key_id(hint.public) if hint else None,
    )
    return SingleStep(data)


def exchange(
    site: Site,
    *,
    key: SigningKey = DEVICE,
    client_id: str = DEVICE_ID,
    named: SigningKey | None = None,
    nonce: bytes = b"the server nonce",
    answered: bytes | None = None,
    hint: SigningKey | None = None,
) -> ChallengeResponse:
    """Go through a challenge as client and plugin; each part can be another than it should be."""
    client_nonce = b"the client nonce"
    hello = make_hello(
        (named or key).public,
        nonce=client_nonce,
        issuer_hint=key_id(hint.public) if hint else None,
    )
    parsed = parse_first(hello)
    assert not hasattr(parsed, "signature")
    challenge = begin_exchange(parsed, nonce=answered or nonce).challenge
    response = make_response(
        key, challenge, audience=site.audience, client_id=client_id, nonce=client_nonce
    )
    return ChallengeResponse(hello=hello, nonce=nonce, response=response)


async def test_a4_a_single_step_is_good_once(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    decision = await ask(site, presented=single(site))
    assert decision.allowed
    assert decision.evidence.form == "challenge"
    assert (await ask(site, presented=single(site))).reason is ReasonCode.REPLAYED
    assert (await ask(site, presented=single(site, nonce=b"another!"))).allowed


async def test_a_single_step_and_a_pop_share_their_nonces(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    pop = site.pop(DEVICE)
    assert (await ask(site, password=pop)).allowed
    same = single(site, nonce=site._counter.to_bytes(8, "big"))
    assert (await ask(site, presented=same)).reason is ReasonCode.REPLAYED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"time": START - 61}, ReasonCode.CLOCK_SKEW),
        ({"time": START}, ReasonCode.PREDATES_RESTART),
        ({"client_id": "pump"}, ReasonCode.BAD_SIGNATURE),
    ],
)
async def test_a_single_step_is_judged_like_a_pop(
    tmp_path: Path,
    change: dict[str, object],
    reason: ReasonCode,
) -> None:
    site = site_with_device(tmp_path, not_before=START)
    decision = await ask(site, presented=single(site, **change))  # type: ignore[arg-type]  # one dict for all
    assert decision.reason is reason


async def test_a_response_to_the_challenge_is_allowed_and_needs_no_clock(tmp_path: Path) -> None:
    site = site_with_device(tmp_path, not_before=START + 1_000)
    for number in range(2):
        nonce = bytes([number]) * 16
        assert (await ask(site, presented=exchange(site, nonce=nonce))).allowed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"key": OTHER, "named": DEVICE}, ReasonCode.BAD_SIGNATURE),
        ({"answered": b"an older nonce!!"}, ReasonCode.BAD_SIGNATURE),
        ({"client_id": "pump"}, ReasonCode.BAD_SIGNATURE),
        ({"key": OTHER}, ReasonCode.UNKNOWN_KEY),
    ],
)
async def test_a3_a_response_of_another_is_refused(
    tmp_path: Path,
    change: dict[str, object],
    reason: ReasonCode,
) -> None:
    site = site_with_device(tmp_path)
    decision = await ask(site, presented=exchange(site, **change))  # type: ignore[arg-type]  # one dict for all
    assert decision.reason is reason


async def test_what_is_no_auth_data_is_malformed(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    step, went = single(site), exchange(site)
    for presented in (
        SingleStep(b""),
        SingleStep(went.hello),
        SingleStep(step.data[:-1]),
        ChallengeResponse(hello=step.data, nonce=went.nonce, response=went.response),
        ChallengeResponse(hello=went.hello, nonce=went.nonce[:-1], response=went.response),
        ChallengeResponse(hello=went.hello, nonce=went.nonce, response=went.response + b"\0"),
    ):
        assert (await ask(site, presented=presented)).reason is ReasonCode.MALFORMED


async def test_two_credentials_are_none(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    decision = await ask(site, password=site.pop(DEVICE), presented=single(site))
    assert decision.reason is ReasonCode.MALFORMED


@pytest.mark.parametrize("form", ["single", "exchange", "counter", "certificate"])
async def test_an_unknown_key_is_looked_up_whatever_form_it_comes_in(
    tmp_path: Path,
    form: str,
) -> None:
    ether = Ether()
    site = Site(tmp_path, Domain(), replicate=False, ether=ether)
    grant = {"counter": counter_grant(site), "certificate": certificate_grant(site)}.get(
        form, site.domain.grant(DEVICE.public, TEMP)
    )
    await publish(site, ether, grant)
    asked = {
        "single": {"presented": single(site, hint=site.domain.authority)},
        "exchange": {"presented": exchange(site)},
        "counter": {"password": counter(site, 1)},
        "certificate": {
            "presented": ClientCertificate(CERTIFICATE.key),
            "client_id": CERTIFICATE_ID,
        },
    }[form]
    assert (await ask(site, **asked)).allowed  # type: ignore[arg-type]  # one dict for all
    assert site.service.finder.lookups == 1


async def publish(site: Site, ether: Ether, grant: Grant) -> None:
    bundle = grant_bundle(site.domain.authority, grant, earlier=[], now_us=START * 1_000_000)
    for record in bundle.records:
        await ether.put(verify_record(record, now=START))


# --- re-authentication ------------------------------------------------------------------------


async def test_a_reauthentication_keeps_the_session_and_brings_new_rights(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    first = await ask(site, presented=single(site), clean=False)
    for presented in (single(site, nonce=b"another!"), exchange(site)):
        again = await ask(site, presented=presented, reauthenticates=first.session)
        assert again.allowed
        assert again.session == first.session
    (session,) = site.service.sessions.all()
    assert session.durable, "the session is the same one"
    assert can_publish(site, DEVICE, "site/temp").allowed
    assert site.store.load_sessions()[0].session_id == first.session


async def test_a_reauthentication_is_newer_than_every_event_before_it(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    first = await ask(site, presented=exchange(site))
    site.service.sessions.events["m"].emit("beat", {})
    assert (await ask(site, presented=exchange(site), reauthenticates=first.session)).allowed
    described = site.service.enforcement.describe("m", DEVICE_ID)
    assert described is not None
    assert described["n"] == 1


async def test_a_reauthentication_that_cannot_be_kept_changes_nothing(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    first = await site.connect(DEVICE)
    site.store._fast.execute("ALTER TABLE sessions RENAME TO broken")
    again = await ask(site, presented=exchange(site), reauthenticates=first.session)
    assert again.reason is ReasonCode.STORE_FAILED
    session = site.service.sessions.get("m", DEVICE_ID)
    assert session is not None
    assert session.proof.form is Form.POP


async def test_a_reauthentication_moves_a_session_to_the_form_that_was_used(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    first = await site.connect(DEVICE)
    described = site.service.enforcement.describe("m", DEVICE_ID)
    assert described is not None
    assert "verify" in described
    again = await ask(site, presented=exchange(site), reauthenticates=first.session)
    assert again.allowed
    described = site.service.enforcement.describe("m", DEVICE_ID)
    assert described is not None
    assert "verify" not in described, "its pops are not the last proof of it any more"


async def test_a_reauthentication_is_for_the_same_key_and_client_id_alone(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    site.learn(
        site.domain.grant(DEVICE.public, TEMP, client_id=ANY),
        site.domain.grant(OTHER.public, TEMP, client_id=ANY),
    )
    first = await ask(site, presented=exchange(site, client_id="pump"), client_id="pump")
    assert first.allowed
    for key, client_id in ((OTHER, "pump"), (DEVICE, "lamp"), (OTHER, "lamp")):
        decision = await ask(
            site,
            presented=exchange(site, key=key, client_id=client_id),
            client_id=client_id,
            reauthenticates=first.session,
        )
        assert decision.reason is ReasonCode.CLIENT_ID_TAKEN
    (session,) = site.service.sessions.all()
    assert (session.session_id, session.key) == (first.session, DEVICE.public)


async def test_a_session_that_is_gone_cannot_go_on(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    first = await ask(site, presented=exchange(site))
    for broker, session in (("m", "nothing"), ("e", first.session)):
        presented = exchange(site)
        decision = await ask(site, presented=presented, reauthenticates=session, broker=broker)
        wrong = ReasonCode.NO_SESSION if broker == "m" else ReasonCode.WRONG_AUDIENCE
        assert decision.reason is wrong
    revoke(site, DEVICE.public)
    decision = await ask(site, presented=exchange(site), reauthenticates=first.session)
    assert decision.reason is ReasonCode.REVOKED
    assert site.service.sessions.all() == []


async def test_a_session_does_not_go_on_with_a_password_or_a_certificate(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    first = await site.connect(DEVICE)
    for asked in (
        {"password": site.pop(DEVICE)},
        {"presented": ClientCertificate(CERTIFICATE.key)},
    ):
        decision = await ask(site, reauthenticates=first.session, **asked)
        assert decision.reason is ReasonCode.MALFORMED


# --- TLS certificates -------------------------------------------------------------------------


def certificate_grant(
    site: Site,
    subject: TlsSubject = CERTIFICATE,
    client_id: ClientIdRule | None = None,
) -> Grant:
    return sign_grant(
        site.domain.authority,
        subject=subject,
        scope=TEMP,
        issued_at=START - 10,
        expires_at=START + 86_400,
        client_id=client_id,
        forms=[Form.TLS],
    )


async def show(site: Site, digest: bytes = CERTIFICATE.key, **change: object) -> Decision:
    asked = {"client_id": CERTIFICATE_ID, "presented": ClientCertificate(digest), **change}
    return await ask(site, **asked)  # type: ignore[arg-type]  # one dict for all


async def test_a_certificate_is_known_by_its_key_alone_and_connects_again(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    site.learn(certificate_grant(site))
    for _ in range(2):
        decision = await show(site)
        assert decision.allowed
        assert decision.evidence.form == "tls"
    described = site.service.enforcement.describe("m", CERTIFICATE_ID)
    assert described is not None
    assert described["key"] == CERTIFICATE_ID
    assert "verify" not in described
    assert (await show(site, bytes(32))).reason is ReasonCode.UNKNOWN_KEY
    assert (await show(site, bytes(31))).reason is ReasonCode.MALFORMED


async def test_a7_a_digest_is_no_key_and_a_key_no_digest(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    decision = await show(site, DEVICE.public, client_id=DEVICE_ID)
    assert decision.reason is not ReasonCode.OK


async def test_a_certificate_session_ends_with_the_revocation_of_its_grant(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    grant = certificate_grant(site)
    site.learn(grant)
    assert (await show(site)).allowed
    site.close()
    site.open()
    assert len(site.service.sessions.all()) == 1, "its rights are compiled anew as a TLS key's"
    revoke(site, grant.statement_id)
    assert site.service.sessions.all() == []
    assert (await show(site)).reason is ReasonCode.REVOKED


async def test_a_certificate_holds_its_client_id_like_any_key(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    site.learn(
        certificate_grant(site, client_id=PUMP),
        site.domain.grant(OTHER.public, TEMP, client_id=PUMP),
    )
    assert (await show(site, client_id="pump")).allowed
    decision = await site.connect(OTHER, client_id="pump")
    assert decision.reason is ReasonCode.CLIENT_ID_TAKEN
    assert CERTIFICATE_ID in decision.detail

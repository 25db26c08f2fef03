"""Announcements of brokers, and two daemons that list one audience."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from authd.core.challenge import make_hello, make_response, make_single
from authd.core.claims import Kind
from authd.core.counter import make_counter
from authd.core.decision import ChallengeResponse, ConnectRequest, Decision, SingleStep
from authd.core.grants import Form, Grant
from authd.core.identity import SigningKey, key_id_text
from authd.core.proofs import Audience
from authd.core.statements import Broker, sign_broker
from authd.core.topics import Action, make_scope
from authd.errors import LimitError, ReasonCode, StaleRecordError
from authd.service.announcements import LIFE_S, MAX_OF_A_KEY, is_loopback
from authd.service.ports import Item
from tests.unit.service.scenes import DEVICE, DEVICE_ID, TEMP, revoke, site_with_device
from tests.world import START, Domain, FakeClock, Site, make_key

HERE, THERE = make_key("node here"), make_key("node there")
SERVE = make_scope({"site/#": Action.SERVE})
ENDPOINT = "broker:1883"


def may_serve(site: Site, key: SigningKey) -> Grant:
    grant = site.domain.grant(key.public, SERVE)
    site.learn(grant)
    return grant


def announced(
    site: Site,
    key: SigningKey = THERE,
    *,
    name: str = "hall",
    endpoints: Iterable[str] = (ENDPOINT,),
    prefixes: Iterable[str] = ("site/a/#",),
    issued_at: int = START - 10,
    expires_at: int = START + 600,
) -> Broker:
    return sign_broker(
        key,
        domain=site.domain.id,
        broker_id=name,
        endpoints=endpoints,
        prefixes=prefixes,
        issued_at=issued_at,
        expires_at=expires_at,
    )


def hear(site: Site, broker: Broker) -> bool:
    items = [Item(Kind.BROKER, broker.encoded)]
    return bool(site.service.authority.receive(items, source="gossip"))


def own(site: Site, key: SigningKey = HERE) -> None:
    """Make a daemon that announces its broker `m`, if its key may serve."""
    site.service.neighbours._key = key
    entries = [
        replace(entry, prefixes=("site/a/#",) if entry.name == "m" else ())
        for entry in site.service.brokers.all()
    ]
    site.service.brokers.replace(entries)


def announce(site: Site) -> list[Item]:
    site.service.neighbours._next_try = 0
    return site.service.neighbours.announce()


# --- who may ----------------------------------------------------------------------------------


def test_an_announcement_is_kept_and_travels_if_its_key_may_serve_what_it_names(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    broker = announced(site)
    assert not hear(site, broker)
    may_serve(site, THERE)
    assert broker.statement_id in site.service.authority.held(), "it waited for that"
    assert not hear(site, announced(site, name="b", prefixes=["elsewhere/#"]))
    assert not hear(site, announced(site, name="c", expires_at=START))
    site.close()
    site.open()
    assert site.service.authority.held()[broker.statement_id] is Kind.BROKER


def test_to_publish_is_not_to_serve(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    site.learn(site.domain.grant(THERE.public, make_scope({"#": Action.PUB | Action.SUB})))
    assert not hear(site, announced(site))


def test_of_one_broker_the_announcement_that_lasts_longer_is_held(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    may_serve(site, THERE)
    first, second = announced(site), announced(site, expires_at=START + 700)
    assert hear(site, first)
    assert hear(site, second)
    assert not hear(site, first), "it does not come back"
    held = {one for one, kind in site.service.authority.held().items() if kind is Kind.BROKER}
    assert held == {second.statement_id}
    kinds = [one.kind for one in site.store.load_statements()]
    assert kinds.count(Kind.BROKER) == 1
    with pytest.raises(StaleRecordError):
        site.service.authority.submit([Item(Kind.BROKER, first.encoded)])


def test_a_key_announces_a_bounded_number_of_brokers(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    may_serve(site, THERE)
    for number in range(MAX_OF_A_KEY):
        assert hear(site, announced(site, name=f"b{number}"))
    one_more = announced(site, name="one more")
    assert not hear(site, one_more)
    with pytest.raises(LimitError):
        site.service.authority.submit([Item(Kind.BROKER, one_more.encoded)])


def test_what_has_ended_long_ago_is_forgotten(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    may_serve(site, THERE)
    own(site)
    hear(site, announced(site))
    site.clock.advance(600 + LIFE_S)
    announce(site)
    assert Kind.BROKER not in site.service.authority.held().values()
    assert Kind.BROKER not in {one.kind for one in site.store.load_statements()}


# --- announcing -------------------------------------------------------------------------------


def test_a_daemon_announces_what_its_key_may_serve_and_renews_it_under_the_same_beginning(
    tmp_path: Path,
) -> None:
    site = Site(tmp_path, Domain())
    own(site)
    assert announce(site) == []
    may_serve(site, HERE)
    assert len(announce(site)) == 1
    assert announce(site) == [], "not before half of its life"
    site.clock.advance(LIFE_S)
    site.service.authority.beat()
    assert len(announce(site)) == 1
    held = site.service.authority.announcements.get(HERE.public, "m")
    assert held is not None
    assert (held.issued_at, held.expires_at) == (START, START + 2 * LIFE_S)


def test_a_new_endpoint_is_a_new_beginning_and_a_lost_one_is_not(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    may_serve(site, HERE)
    own(site)
    announce(site)
    entry = site.service.brokers.get("m")
    assert entry is not None
    for endpoints, beginning in (
        ([ENDPOINT, "more:1"], START + 5),
        ([ENDPOINT], START + 5),
        (["other:1"], START + 15),
    ):
        site.clock.advance(5)
        audiences = tuple(Audience(site.domain.id, one) for one in endpoints)
        site.service.brokers.replace([replace(entry, audiences=audiences)])
        assert len(announce(site)) == 1
        held = site.service.authority.announcements.get(HERE.public, "m")
        assert held is not None
        assert (set(held.endpoints), held.issued_at) == (set(endpoints), beginning)


def test_a_daemon_that_shall_not_or_cannot_announces_nothing(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    may_serve(site, HERE)
    assert site.service.neighbours.announce() == [], "no key"
    site.service.neighbours._key = HERE
    assert announce(site) == [], "no prefixes"
    own(site)
    entry = site.service.brokers.get("m")
    assert entry is not None
    loopback = (Audience(site.domain.id, "127.0.0.1:1883"),)
    site.service.brokers.replace([replace(entry, audiences=loopback)])
    assert announce(site) == [], "nobody else can dial it"


# --- two daemons ------------------------------------------------------------------------------


def shown(site: Site, form: str) -> ConnectRequest:
    base = ConnectRequest(broker="m", client_id=DEVICE_ID, username=DEVICE_ID, boot="0" * 16)
    about = {"audience": site.audience, "client_id": DEVICE_ID}
    match form:
        case "pop":
            return replace(base, password=site.pop(DEVICE))
        case "counter":
            password = make_counter(DEVICE, counter=1, **about)  # type: ignore[arg-type]  # for all
            return replace(base, password=password)
        case "single":
            data = make_single(DEVICE, time=START, nonce=b"a nonce!", **about)  # type: ignore[arg-type]  # for all
            return replace(base, presented=SingleStep(data))
        case _:
            nonce, server = bytes(16), b"the server nonce"
            response = make_response(DEVICE, b"\x03" + server, nonce=nonce, **about)  # type: ignore[arg-type]  # for all
            hello = make_hello(DEVICE.public, nonce=nonce)
            return replace(
                base, presented=ChallengeResponse(hello=hello, nonce=server, response=response)
            )


async def ask(site: Site, form: str = "pop") -> Decision:
    return await site.service.decider.connect(shown(site, form))


def two_sites(directory: Path) -> tuple[Site, Site]:
    clock, domain = FakeClock(), Domain()
    sites = (
        Site(directory, domain, name="A", clock=clock),
        Site(directory, domain, name="B", clock=clock),
    )
    for site, key in zip(sites, (HERE, THERE), strict=True):
        site.learn(
            site.domain.grant(DEVICE.public, TEMP),
            site.domain.grant(HERE.public, SERVE),
            site.domain.grant(THERE.public, SERVE),
        )
        own(site, key)
    return sites


def tell(said: list[Item], site: Site) -> None:
    site.service.authority.receive(said, source="gossip")


@pytest.mark.parametrize("form", ["pop", "single", "counter"])
async def test_a4_of_two_daemons_with_one_audience_the_later_refuses_what_could_be_used_twice(
    tmp_path: Path,
    form: str,
) -> None:
    first, second = two_sites(tmp_path)
    if form == "counter":
        for site in (first, second):
            grant = site.domain.grant(
                DEVICE.public,
                TEMP,
                forms=[Form.COUNTER],
                audiences=[str(site.audience)],
                issued_at=START - 5,
            )
            site.learn(grant)
    earlier = announce(first)
    first.clock.advance(1)
    later = announce(second)
    tell(later, first)
    tell(earlier, second)
    assert (await ask(first, form)).allowed
    decision = await ask(second, form)
    assert decision.reason is ReasonCode.WRONG_AUDIENCE
    assert key_id_text(HERE.public) in decision.detail
    assert "a name of its own" in decision.detail


async def test_what_cannot_be_used_twice_is_taken_by_both(tmp_path: Path) -> None:
    first, second = two_sites(tmp_path)
    tell(announce(first), second)
    assert (await ask(second, "exchange")).allowed


async def test_of_two_at_the_same_moment_the_lower_id_is_first_at_both(tmp_path: Path) -> None:
    first, second = two_sites(tmp_path)
    said, also_said = announce(first), announce(second)
    tell(also_said, first)
    tell(said, second)
    allowed = [(await ask(site)).allowed for site in (first, second)]
    assert sorted(allowed) == [False, True]


async def test_a_daemon_that_does_not_announce_gives_way_to_one_that_does(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    may_serve(site, THERE)
    assert (await ask(site)).allowed
    assert hear(site, announced(site))
    assert (await ask(site)).reason is ReasonCode.WRONG_AUDIENCE


async def test_an_announcement_that_ended_or_whose_grant_is_revoked_stops_nobody(
    tmp_path: Path,
) -> None:
    site = site_with_device(tmp_path)
    grant = may_serve(site, THERE)
    assert hear(site, announced(site, expires_at=START + 5))
    assert (await ask(site)).reason is ReasonCode.WRONG_AUDIENCE
    site.clock.advance(5)
    site.service.authority.beat()
    assert (await ask(site)).allowed
    assert hear(site, announced(site, expires_at=START + 700))
    assert (await ask(site)).reason is ReasonCode.WRONG_AUDIENCE
    revoke(site, grant.statement_id)
    assert (await ask(site)).allowed


@pytest.mark.parametrize("change", [{"endpoints": ["other:1"]}, {"endpoints": ["localhost:1883"]}])
async def test_another_name_stops_nobody(tmp_path: Path, change: dict[str, list[str]]) -> None:
    site = site_with_device(tmp_path)
    may_serve(site, THERE)
    assert hear(site, announced(site, **change))  # type: ignore[arg-type]  # one dict for all
    assert (await ask(site)).allowed


async def test_loopback_names_are_never_compared(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    may_serve(site, THERE)
    entry = site.service.brokers.get("m")
    assert entry is not None
    site.audience = Audience(site.domain.id, "localhost:1883")
    site.service.brokers.replace([replace(entry, audiences=(site.audience,))])
    assert hear(site, announced(site, endpoints=["localhost:1883"]))
    request = ConnectRequest(
        broker="m",
        client_id=DEVICE_ID,
        username=DEVICE_ID,
        password=site.pop(DEVICE, endpoint="localhost:1883"),
    )
    assert (await site.service.decider.connect(request)).allowed


@pytest.mark.parametrize(
    ("endpoint", "loopback"),
    [
        ("localhost:1883", True),
        ("a.localhost:1", True),
        ("127.0.0.1:1", True),
        ("127.9.9.9:1", True),
        ("[::1]:1", True),
        ("192.0.2.1:1", False),
        ("[2001:db8::1]:1", False),
        ("localhost.example:1", False),
        ("hall:1883", False),
    ],
)
def test_a_loopback_name_is_each_hosts_own(endpoint: str, *, loopback: bool) -> None:
    assert is_loopback(endpoint) is loopback


async def test_a_plugin_hears_that_it_is_not_alone_any_more(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    may_serve(site, THERE)
    assert (await site.connect(DEVICE)).allowed
    stream = site.service.decider.watch("m", boot="0" * 16)
    await anext(stream)
    assert hear(site, announced(site))
    told = await anext(stream)
    assert (told.kind, told.body["client_id"]) == ("set", DEVICE_ID)
    assert "verify" not in told.body


def test_a_new_announcement_of_this_daemon_is_not_its_own_neighbour(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    may_serve(site, HERE)
    own(site)
    assert announce(site)
    assert site.service.neighbours.is_alone(site.audience)

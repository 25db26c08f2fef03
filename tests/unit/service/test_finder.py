"""Looking a key's grants up: with a hint, without one, misses, and who is asked."""

import asyncio
from pathlib import Path

import pytest

from authd.core.identity import KeyId, PublicKey, key_id
from authd.core.records import Record, RecordKind, make_record, record_salt, seal
from authd.errors import ReasonCode
from authd.service import proving
from authd.service.finder import Outcome
from authd.service.issuing import grants_record
from tests.unit.service.scenes import DEVICE, GATEWAY, OTHER, SENSOR, TEMP, revoke
from tests.world import START, Domain, Ether, Site, SiteGossip, scope


class CountingEther(Ether):
    """Counts questions; answers are held back while `gate` is clear."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[PublicKey] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def get(self, publisher: PublicKey, salt: bytes) -> Record:
        self.asked.append(publisher)
        await self.gate.wait()
        return await super().get(publisher, salt)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no pause of a busy host turn an answer into "in progress"."""
    monkeypatch.setattr(proving, "LOOKUP_PATIENCE_S", 0.5)


def lookup_site(directory: Path, *, replicate: bool = False) -> tuple[CountingEther, Site]:
    ether = CountingEther()
    site = Site(directory, Domain(), ether=ether, replicate=replicate)
    return ether, site


async def put(ether: Ether, site: Site, key: PublicKey) -> None:
    grant = site.domain.grant(key, TEMP)
    await ether.put(grants_record(site.domain.authority, [grant], now_us=START * 1_000_000))


async def test_a_key_is_found_with_and_without_a_hint(tmp_path: Path) -> None:
    for number, hint in enumerate((None, "authority")):
        directory = tmp_path / str(number)
        directory.mkdir()
        ether, site = lookup_site(directory)
        await put(ether, site, DEVICE.public)
        decision = await site.connect(DEVICE, hint=site.domain.authority if hint else None)
        assert decision.allowed
        grant = decision.rights.paths[0].grants[-1].statement_id
        assert site.service.authority.source(grant) == "dht"
        assert ether.asked == [site.domain.authority.public]


async def test_where_device_grants_are_gossiped_only_a_hint_starts_a_lookup(
    tmp_path: Path,
) -> None:
    ether, site = lookup_site(tmp_path, replicate=True)
    assert (await site.connect(DEVICE)).reason is ReasonCode.UNKNOWN_KEY
    assert ether.asked == []
    await put(ether, site, DEVICE.public)
    assert (await site.connect(DEVICE, hint=site.domain.authority)).allowed


async def test_a_hint_at_a_key_nobody_here_knows_asks_nobody(tmp_path: Path) -> None:
    ether, site = lookup_site(tmp_path)
    assert (await site.connect(DEVICE, hint=OTHER)).reason is ReasonCode.UNKNOWN_KEY
    assert ether.asked == []


async def test_a_hint_at_a_known_gateway_finds_what_it_granted(tmp_path: Path) -> None:
    ether, site = lookup_site(tmp_path)
    site.learn(site.domain.grant(GATEWAY.public, scope(pub="site/#"), depth=1))
    grant = site.domain.grant(SENSOR.public, TEMP, by=GATEWAY)
    await ether.put(grants_record(GATEWAY, [grant], now_us=START * 1_000_000))
    assert (await site.connect(SENSOR, hint=GATEWAY)).allowed


async def test_a_miss_is_remembered_for_30_s_and_then_asked_again(tmp_path: Path) -> None:
    ether, site = lookup_site(tmp_path)
    for _ in range(3):
        assert (await site.connect(DEVICE)).reason is ReasonCode.UNKNOWN_KEY
    assert len(ether.asked) == 1
    site.clock.advance(31)
    site.service.authority.beat()
    await put(ether, site, DEVICE.public)
    assert (await site.connect(DEVICE)).allowed


async def test_news_of_a_key_drops_its_miss(tmp_path: Path) -> None:
    ether, site = lookup_site(tmp_path)
    assert (await site.connect(DEVICE)).reason is ReasonCode.UNKNOWN_KEY
    revoke(site, DEVICE.public)
    await put(ether, site, DEVICE.public)
    assert (await site.connect(DEVICE)).reason is ReasonCode.REVOKED
    assert len(ether.asked) == 2


async def test_an_unreachable_network_is_a_temporary_no_and_asked_again_soon(
    tmp_path: Path,
) -> None:
    ether, site = lookup_site(tmp_path)
    ether.down = True
    decision = await site.connect(DEVICE)
    assert decision.reason is ReasonCode.NO_RESPONSE
    assert decision.temporary
    ether.down = False
    await put(ether, site, DEVICE.public)
    site.clock.advance(3)
    assert (await site.connect(DEVICE)).allowed


async def test_a53_a_slow_lookup_answers_in_progress_and_the_next_attempt_finds_it(
    tmp_path: Path,
) -> None:
    ether, site = lookup_site(tmp_path)
    await put(ether, site, DEVICE.public)
    ether.gate.clear()
    proof = site.pop(DEVICE)
    decision = await site.connect(DEVICE, password=proof)
    assert decision.reason is ReasonCode.LOOKUP_IN_PROGRESS
    assert (await site.connect(DEVICE)).reason is ReasonCode.LOOKUP_IN_PROGRESS
    assert len(ether.asked) == 1, "one lookup at a time for a key"
    ether.gate.set()
    await asyncio.sleep(0.02)
    assert (await site.connect(DEVICE, password=proof)).allowed, "the nonce was not consumed"


async def test_a_newer_grant_is_looked_for_when_the_known_one_has_expired(tmp_path: Path) -> None:
    ether, site = lookup_site(tmp_path)
    site.learn(site.domain.grant(DEVICE.public, TEMP, expires_at=START))
    await put(ether, site, DEVICE.public)
    assert (await site.connect(DEVICE)).allowed
    revoke(site, DEVICE.public)
    ether.asked.clear()
    assert (await site.connect(DEVICE)).reason is ReasonCode.REVOKED
    assert ether.asked == [], "nothing newer helps a revoked key"


async def test_a32_a_record_sealed_for_others_or_full_of_junk_is_a_miss(tmp_path: Path) -> None:
    ether, site = lookup_site(tmp_path)
    issuer = site.domain.authority
    wanted = key_id(DEVICE.public)
    salt = record_salt(RecordKind.GRANTS, issuer.public, wanted)
    contents = [
        b"not sealed at all" * 3,
        seal(b"\x01", issuer=issuer.public, subject_id=wanted),
        seal(b"\x81\x43abc", issuer=issuer.public, subject_id=wanted),
        seal(b"\xff", issuer=issuer.public, subject_id=wanted),
    ]
    for seq, content in enumerate(contents, 1):
        expires_at = START + 1_000
        await ether.put(
            make_record(issuer, salt=salt, seq=seq, content=content, expires_at=expires_at),
        )
        assert (await site.connect(DEVICE)).reason is ReasonCode.UNKNOWN_KEY
        site.clock.advance(31)
        site.service.authority.beat()


async def test_a_store_that_fails_during_a_lookup_is_not_remembered_as_a_miss(
    tmp_path: Path,
) -> None:
    ether, site = lookup_site(tmp_path)
    await put(ether, site, DEVICE.public)
    site.store._fast.execute("ALTER TABLE statements RENAME TO broken")
    assert (await site.connect(DEVICE)).temporary
    while site.service.finder._running:  # it may go on behind the answer
        await asyncio.sleep(0.01)
    site.store._fast.execute("ALTER TABLE broken RENAME TO statements")
    site.clock.advance(3)
    assert (await site.connect(DEVICE)).allowed


async def test_misses_are_bounded(tmp_path: Path) -> None:
    _, site = lookup_site(tmp_path)
    finder = site.service.finder
    for number in range(10_050):
        finder._misses[KeyId(number.to_bytes(16, "big"))] = (0.0, Outcome.ABSENT)
    await finder.find(key_id(DEVICE.public), None, patience_s=1, source="a")
    assert len(finder._misses) <= 10_000


async def test_a_detached_daemon_says_that_it_cannot_ask(tmp_path: Path) -> None:
    ether, site = lookup_site(tmp_path)
    site.service.attachment.detach()
    assert (await site.connect(DEVICE)).reason is ReasonCode.NO_RESPONSE
    assert await site.service.attachment.push([]) == 0
    assert site.service.attachment.peers() == []
    assert site.service.attachment.neighbours() == []
    site.service.attachment.attach(ether, SiteGossip(ether, site))
    assert site.service.attachment.peers() == ["A"]


async def test_a53_a_flood_of_made_up_keys_from_one_address_turns_nobody_else_away(
    tmp_path: Path,
) -> None:
    ether, site = lookup_site(tmp_path)
    await put(ether, site, DEVICE.public)
    ether.gate.clear()
    finder = site.service.finder
    flood = [
        await finder.find(KeyId(number.to_bytes(16, "big")), None, patience_s=0, source="attacker")
        for number in range(40)
    ]
    assert flood.count(Outcome.IN_PROGRESS) == 16
    assert flood.count(Outcome.OVERLOADED) == 24
    assert (await site.connect(DEVICE)).reason is ReasonCode.LOOKUP_IN_PROGRESS
    ether.gate.set()
    assert (
        await finder.find(key_id(DEVICE.public), None, patience_s=5, source="m")
    ) is Outcome.FOUND
    assert (await site.connect(DEVICE)).allowed
    # The share is given back.
    again = await finder.find(KeyId(bytes(16)), None, patience_s=5, source="attacker")
    assert again is Outcome.ABSENT
    await finder.close()


async def test_lookups_below_one_gateway_leave_half_of_all_to_others(tmp_path: Path) -> None:
    ether, site = lookup_site(tmp_path)
    site.learn(
        site.domain.grant(GATEWAY.public, scope(pub="site/#"), depth=2),
        site.domain.grant(SENSOR.public, scope(pub="site/#"), by=GATEWAY, depth=1),
    )
    ether.gate.clear()
    finder = site.service.finder
    flood = [
        await finder.find(
            KeyId(number.to_bytes(16, "big")),
            key_id((GATEWAY, SENSOR)[number % 2].public),
            patience_s=0,
            source=f"address {number}",
        )
        for number in range(50)
    ]
    assert flood.count(Outcome.IN_PROGRESS) == 32
    assert flood.count(Outcome.OVERLOADED) == 18
    authority = key_id(site.domain.authority.public)
    other = await finder.find(key_id(DEVICE.public), authority, patience_s=0, source="m")
    assert other is Outcome.IN_PROGRESS
    ether.gate.set()
    await finder.close()
    await asyncio.sleep(0)
    assert not finder._below

"""Every reason code is reached by a real situation, and listed for people."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from authd.core.claims import Kind
from authd.core.decision import Operation, deny
from authd.core.encoding import CborValue, encode, encode_base64url
from authd.core.envelope import seal_envelope
from authd.core.grants import ClientIdMatch, ClientIdRule
from authd.core.identity import KeyId, PublicKey, key_id_text
from authd.core.proofs import password_key
from authd.core.records import Record, make_record, newest
from authd.core.statements import sign_revoke
from authd.errors import AuthdError, ReasonCode
from authd.gossip.handshake import Introducer
from authd.node_file import load_node_file
from authd.service.ports import Item
from authd.store.keystore import Keystore
from tests.world import START, Domain, Ether, FakeEntropy, Site, make_key, scope

ROOT = Path(__file__).parents[3]
DEVICE = make_key("device")
OTHER = make_key("other")
TEMP = scope(pub="site/temp")
Scenario = Callable[[Path], Awaitable[ReasonCode]]
SCENARIOS: dict[ReasonCode, Scenario] = {}


def reaches(reason: ReasonCode) -> Callable[[Scenario], Scenario]:
    def register(scenario: Scenario) -> Scenario:
        assert reason not in SCENARIOS
        SCENARIOS[reason] = scenario
        return scenario

    return register


def site_with_device(
    directory: Path,
    *,
    heartbeat: str | None = "hb-1",
    ether: Ether | None = None,
    replicate: bool = True,
    not_before: int = 0,
) -> Site:
    site = Site(
        directory,
        Domain(),
        heartbeat=heartbeat,
        ether=ether,
        replicate=replicate,
        not_before=not_before,
    )
    site.learn(site.domain.grant(DEVICE.public, TEMP))
    return site


@reaches(ReasonCode.OK)
async def _(tmp: Path) -> ReasonCode:
    return (await site_with_device(tmp).connect(DEVICE)).reason


@reaches(ReasonCode.MALFORMED)
async def _(tmp: Path) -> ReasonCode:
    return (await site_with_device(tmp).connect(DEVICE, password="hunter2")).reason


@reaches(ReasonCode.LIMIT_EXCEEDED)
async def _(tmp: Path) -> ReasonCode:
    return (await site_with_device(tmp).connect(DEVICE, password="A" * 4_000)).reason


@reaches(ReasonCode.WEAK_KEY)
async def _(tmp: Path) -> ReasonCode:
    site = site_with_device(tmp)
    claims: dict[int, CborValue] = {
        1: OTHER.public,
        4: START + 9,
        6: START,
        8: {1: {1: 1, -1: 6, -2: bytes(32)}},  # a point of order 4
        9: [["a", ["pub"]]],
    }
    forged = seal_envelope("authd/grant/1", encode(claims), OTHER)
    password = site.pop(DEVICE) + "." + encode_base64url(encode([forged]))
    return (await site.connect(DEVICE, password=password)).reason


@reaches(ReasonCode.BAD_SIGNATURE)
async def _(tmp: Path) -> ReasonCode:
    site = site_with_device(tmp)
    stolen_name = key_id_text(DEVICE.public)
    forged = site.pop(OTHER, client_id=stolen_name)
    return (
        await site.connect(OTHER, username=stolen_name, client_id=stolen_name, password=forged)
    ).reason


@reaches(ReasonCode.CLOCK_SKEW)
async def _(tmp: Path) -> ReasonCode:
    site = site_with_device(tmp)
    return (await site.connect(DEVICE, password=site.pop(DEVICE, time=START + 61))).reason


@reaches(ReasonCode.REPLAYED)
async def _(tmp: Path) -> ReasonCode:
    site = site_with_device(tmp)
    password = site.pop(DEVICE)
    assert (await site.connect(DEVICE, password=password)).allowed
    return (await site.connect(DEVICE, password=password)).reason


@reaches(ReasonCode.PREDATES_RESTART)
async def _(tmp: Path) -> ReasonCode:
    return (await site_with_device(tmp, not_before=START).connect(DEVICE)).reason


@reaches(ReasonCode.WRONG_AUDIENCE)
async def _(tmp: Path) -> ReasonCode:
    site = site_with_device(tmp)
    password = site.pop(DEVICE, endpoint="broker:1884")
    return (await site.connect(DEVICE, password=password)).reason


@reaches(ReasonCode.WRONG_CLIENT_ID)
async def _(tmp: Path) -> ReasonCode:
    site = site_with_device(tmp)
    return (await site.connect(DEVICE, client_id="pump", password=site.pop(DEVICE))).reason


@reaches(ReasonCode.FORM_NOT_ALLOWED)
async def _(tmp: Path) -> ReasonCode:
    site = Site(tmp, Domain())
    secret = encode_base64url(bytes(16))
    key = password_key(secret)
    site.learn(site.domain.grant(key.public, TEMP))
    return (await site.connect(key, password=secret)).reason


@reaches(ReasonCode.CLIENT_ID_REFUSED)
async def _(tmp: Path) -> ReasonCode:
    return (await site_with_device(tmp).connect(DEVICE, client_id="pump")).reason


@reaches(ReasonCode.CLIENT_ID_TAKEN)
async def _(tmp: Path) -> ReasonCode:
    site = Site(tmp, Domain())
    rule = ClientIdRule(ClientIdMatch.EXACT, "pump")
    for key in (DEVICE, OTHER):
        site.learn(site.domain.grant(key.public, TEMP, client_id=rule))
    assert (await site.connect(DEVICE, client_id="pump")).allowed
    return (await site.connect(OTHER, client_id="pump")).reason


@reaches(ReasonCode.UNKNOWN_KEY)
async def _(tmp: Path) -> ReasonCode:
    return (await site_with_device(tmp).connect(OTHER)).reason


class NeverAnswers(Ether):
    """A network that takes every question and answers none."""

    async def get(self, publisher: PublicKey, salt: bytes) -> Record:
        await asyncio.Event().wait()
        raise AssertionError(publisher, salt)


class NoGossip:
    """Nobody to push to."""

    async def push(self, items: Iterable[Item]) -> int:
        return len(list(items)) * 0

    def peers(self) -> list[str]:
        return []


@reaches(ReasonCode.LOOKUP_IN_PROGRESS)
async def _(tmp: Path) -> ReasonCode:
    site = site_with_device(tmp, replicate=False)
    site.service.attachment.attach(NeverAnswers(), NoGossip())
    decision = await site.connect(OTHER)
    await site.service.finder.close()
    return decision.reason


@reaches(ReasonCode.EXPIRED)
async def _(tmp: Path) -> ReasonCode:
    site = Site(tmp, Domain())
    site.learn(site.domain.grant(DEVICE.public, TEMP, expires_at=START))
    return (await site.connect(DEVICE)).reason


@reaches(ReasonCode.NOT_YET_VALID)
async def _(tmp: Path) -> ReasonCode:
    site = Site(tmp, Domain())
    site.learn(site.domain.grant(DEVICE.public, TEMP, issued_at=START + 61))
    return (await site.connect(DEVICE)).reason


@reaches(ReasonCode.REVOKED)
async def _(tmp: Path) -> ReasonCode:
    site = site_with_device(tmp)
    revoke = sign_revoke(site.domain.authority, target=DEVICE.public, issued_at=START)
    site.service.authority.submit([Item(Kind.REVOKE, revoke.encoded)])
    return (await site.connect(DEVICE)).reason


@reaches(ReasonCode.UNTRUSTED)
async def _(tmp: Path) -> ReasonCode:
    site = Site(tmp, Domain())
    site.learn(site.domain.grant(DEVICE.public, TEMP, by=OTHER))
    return (await site.connect(DEVICE)).reason


@reaches(ReasonCode.DEPTH_EXCEEDED)
async def _(tmp: Path) -> ReasonCode:
    site = Site(tmp, Domain())
    site.learn(
        site.domain.grant(OTHER.public, TEMP, depth=0),
        site.domain.grant(DEVICE.public, TEMP, by=OTHER),
    )
    return (await site.connect(DEVICE)).reason


@reaches(ReasonCode.NOT_GRANTED)
async def _(tmp: Path) -> ReasonCode:
    site = site_with_device(tmp)
    assert (await site.connect(DEVICE)).allowed
    return site.service.decider.authorize(
        broker="m",
        client_id=key_id_text(DEVICE.public),
        operation=Operation.PUBLISH,
        topic="site/door",
    ).reason


@reaches(ReasonCode.STALE)
async def _(tmp: Path) -> ReasonCode:
    return (await site_with_device(tmp, heartbeat=None).connect(DEVICE)).reason


@reaches(ReasonCode.NO_SESSION)
async def _(tmp: Path) -> ReasonCode:
    return (
        site_with_device(tmp)
        .service.decider.authorize(
            broker="m",
            client_id="ghost",
            operation=Operation.PUBLISH,
            topic="site/temp",
        )
        .reason
    )


@reaches(ReasonCode.LEASE_ENDED)
async def _(tmp: Path) -> ReasonCode:
    site = Site(tmp, Domain())
    site.learn(site.domain.grant(DEVICE.public, TEMP, expires_at=START + 5))
    assert (await site.connect(DEVICE)).allowed
    site.clock.advance(5)
    return site.service.decider.authorize(
        broker="m",
        client_id=key_id_text(DEVICE.public),
        operation=Operation.PUBLISH,
        topic="site/temp",
    ).reason


@reaches(ReasonCode.UNKNOWN_BROKER)
async def _(tmp: Path) -> ReasonCode:
    return (await site_with_device(tmp).connect(DEVICE, broker="nowhere", password="x")).reason


@reaches(ReasonCode.OVERLOADED)
async def _(tmp: Path) -> ReasonCode:
    site = site_with_device(tmp, replicate=False)
    site.service.attachment.attach(NeverAnswers(), NoGossip())
    for count in range(64):
        wanted, source = KeyId(count.to_bytes(16, "big")), str(count)
        await site.service.finder.find(wanted, None, patience_s=0, source=source)
    decision = await site.connect(OTHER)
    await site.service.finder.close()
    return decision.reason


@reaches(ReasonCode.STALE_RECORD)
async def _(tmp: Path) -> ReasonCode:
    newer, older = (
        make_record(DEVICE, salt=bytes(20), seq=seq, content=b"", expires_at=START)
        for seq in (2, 1)
    )
    return _raised(lambda: newest(newer, older))


@reaches(ReasonCode.EQUIVOCATION)
async def _(tmp: Path) -> ReasonCode:
    one, other = (
        make_record(DEVICE, salt=bytes(20), seq=1, content=content, expires_at=START)
        for content in (b"1", b"2")
    )
    return _raised(lambda: newest(one, other))


@reaches(ReasonCode.NO_PEERS)
async def _(tmp: Path) -> ReasonCode:
    site = site_with_device(tmp)
    try:
        await site.service.attachment.get(DEVICE.public, bytes(20))
    except AuthdError as error:
        return error.reason
    return ReasonCode.OK


@reaches(ReasonCode.NO_RESPONSE)
async def _(tmp: Path) -> ReasonCode:
    ether = Ether()
    site = site_with_device(tmp, ether=ether, replicate=False)
    ether.down = True
    return (await site.connect(OTHER)).reason


@reaches(ReasonCode.NOT_FOUND)
async def _(tmp: Path) -> ReasonCode:
    site = site_with_device(tmp)
    return _raised(lambda: site.service.operator.revocation(bytes(16)))


class QueueLink:
    """One end of a stream between two introducers."""

    def __init__(self, reads: asyncio.Queue[bytes], writes: asyncio.Queue[bytes]) -> None:
        self._reads, self._writes = reads, writes

    async def read(self) -> bytes:
        return await self._reads.get()

    async def write(self, frame: bytes) -> None:
        await self._writes.put(frame)

    def keep(self) -> None:
        """Nothing ends this one."""


@reaches(ReasonCode.REJECTED)
async def _(tmp: Path) -> ReasonCode:
    site = Site(tmp, Domain())
    there: asyncio.Queue[bytes] = asyncio.Queue()
    back: asyncio.Queue[bytes] = asyncio.Queue()
    meetings = [
        Introducer(
            key=make_key(name),
            run=bytes(16),
            entropy=FakeEntropy(name),
            admission=site.admission(make_key(name)),
        ).introduce(link, we_dialled=name == "stranger")
        for name, link in (
            ("stranger", QueueLink(back, there)),
            ("host", QueueLink(there, back)),
        )
    ]
    outcomes = await asyncio.gather(*meetings, return_exceptions=True)
    assert isinstance(outcomes[1], AuthdError)
    return outcomes[1].reason


@reaches(ReasonCode.STORE_FAILED)
async def _(tmp: Path) -> ReasonCode:
    site = site_with_device(tmp)
    site.store._fast.execute("DROP TABLE nonces")
    decision = await site.connect(DEVICE)
    assert decision.temporary
    return decision.reason


@reaches(ReasonCode.CONFLICT)
async def _(tmp: Path) -> ReasonCode:
    keystore = Keystore(tmp)
    keystore.create()
    keystore.save("node", bytes(32))
    return _raised(lambda: keystore.save("node", bytes(32)))


@reaches(ReasonCode.BAD_CONFIG)
async def _(tmp: Path) -> ReasonCode:
    return _raised(lambda: load_node_file(tmp))


@reaches(ReasonCode.INTERNAL)
async def _(tmp: Path) -> ReasonCode:
    # A deny that was given no reason of its own is still a deny.
    decision = deny(ReasonCode.OK, "a mistake")
    assert not decision.allowed
    return decision.reason


def _raised(action: Callable[[], object]) -> ReasonCode:
    with pytest.raises(AuthdError) as caught:
        action()
    return caught.value.reason


@pytest.mark.parametrize("reason", list(ReasonCode), ids=str)
async def test_every_reason_code_is_reached(reason: ReasonCode, tmp_path: Path) -> None:
    assert await SCENARIOS[reason](tmp_path) is reason


def test_the_documentation_lists_exactly_the_reason_codes() -> None:
    text = (ROOT / "docs" / "reason-codes.md").read_text("utf-8")
    listed = re.findall(r"^\| `([a-z_]+)` \|", text, re.MULTILINE)
    assert listed == [reason.value for reason in ReasonCode]

"""Rendezvous: each node says in the DHT where its gossip listens, and looks others up when alone.

A daemon that reaches the DHT and has too few gossip peers asks for the records of nodes of its own
domain whose admission grants it holds. What they say is handed to gossip as a candidate and is
believed no further: the handshake settles who is there and whether it is let in.
"""

import asyncio
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final, TypeAlias

import structlog

from authd.core.grants import KeySubject, recall_grant
from authd.core.identity import DomainId, PublicKey, SigningKey
from authd.core.topics import POWER_NODE
from authd.core.trust import TrustState
from authd.discovery.slots import (
    LIFE_S,
    SLOTS,
    make_rendezvous,
    read_rendezvous,
    rendezvous_salt,
    slot_of,
)
from authd.errors import FormatError, LimitError, NetworkError, StoreError
from authd.service.ports import Clock, Entropy, RecordNetwork

Suggest: TypeAlias = Callable[[str, PublicKey | None], bool]
"""Takes a hint where a node may listen, and who is said to be there; says whether it is news."""

# With as many streams a statement reaches a node even if all but one of them are mute.
ENOUGH_PEERS: Final = 3
# A round asks for so many nodes at most, so many of them at once.
MAX_ASKED: Final = 16
_AT_ONCE: Final = 4
_ASK_S: Final = 10.0
_FIRST_LOOK_S: Final = 1.0
_LAST_LOOK_S: Final = 300.0
_FIRST_RETRY_S: Final = 1.0
_LAST_RETRY_S: Final = 60.0
_CHECK_S: Final = 5.0
# Half of a life, and up to a tenth of it less, so that a record is there without a gap.
_RENEW_SHARE: Final = 0.5
_RENEW_SPREAD: Final = 0.1
_SLICE: Final = 2_000
_MARK: Final = POWER_NODE.encode()
_log = structlog.get_logger("authd.discovery")


class Members:
    """Keys of nodes, as far as their admission grants are held here."""

    def __init__(self, *, state: Callable[[], TrustState], own: PublicKey) -> None:
        """Read them off ``state``, leaving out the ``own`` key."""
        self._state = state
        self._own = own
        self._seen: object = None
        self._keys: list[PublicKey] = []

    async def find(self) -> list[PublicKey]:
        """Return the keys that some grant names with ``$authd/node``, whether it counts or not.

        A large state is gone through in slices, so that decisions do not wait for it.
        """
        grants = self._state().grants
        if grants is self._seen:
            return self._keys
        found: dict[PublicKey, None] = {}
        for number, held in enumerate(grants.values()):
            if number % _SLICE == _SLICE - 1:
                await asyncio.sleep(0)
            # Most grants are of devices; those that do not name the power are not even parsed.
            for grant in (recall_grant(one) for one in held if one.find(_MARK) >= 0):
                if type(grant.subject) is KeySubject and grant.subject.key != self._own:
                    found[grant.subject.key] = None
        self._keys, self._seen = list(found), grants
        return self._keys


class Rendezvous:
    """Keeps this node's record published, and looks for others while there are too few peers."""

    def __init__(
        self,
        *,
        key: SigningKey,
        domain: DomainId,
        address: Callable[[], str],
        network: RecordNetwork,
        members: Members,
        admits: Callable[[PublicKey], bool],
        connected: Callable[[], AbstractSet[PublicKey]],
        suggest: Suggest,
        clock: Clock,
        entropy: Entropy,
    ) -> None:
        """Wire the parts.

        Args:
            key: The node key.
            domain: The own domain.
            address: Where this node's gossip can be dialled; empty if nowhere.
            network: The DHT.
            members: Whose records may be looked for.
            admits: Whether a node key may be a peer as things stand.
            connected: The gossip peers there are.
            suggest: Takes what is found.
            clock: The time.
            entropy: Jitter, and where a round begins.
        """
        self._key = key
        self._domain = domain
        self._address = address
        self._network = network
        self._members = members
        self._admits = admits
        self._connected = connected
        self._suggest = suggest
        self._clock = clock
        self._entropy = entropy
        self.published_until = 0
        self.asked = 0
        self.found = 0
        self.refused = 0

    async def run(self) -> None:
        """Publish and look; returns only when cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_published(), name="rendezvous-publish")
            group.create_task(self._keep_looking(), name="rendezvous-look")

    # --- this node ------------------------------------------------------------------------

    async def _keep_published(self) -> None:
        said, due_at, retry_s = "", 0.0, _FIRST_RETRY_S
        while True:
            address, wait_s = self._address(), _CHECK_S
            if address and (address != said or self._clock.monotonic() >= due_at):
                if await self._publish(address):
                    renew_s = LIFE_S * (_RENEW_SHARE - _RENEW_SPREAD * self._chance())
                    said, due_at = address, self._clock.monotonic() + renew_s
                    retry_s = _FIRST_RETRY_S
                else:
                    wait_s = retry_s * (0.5 + 0.5 * self._chance())
                    retry_s = min(_LAST_RETRY_S, 2 * retry_s)
            await asyncio.sleep(wait_s)

    async def _publish(self, address: str) -> bool:
        record = make_rendezvous(
            self._key, domain=self._domain, addresses=[address], now_us=self._clock.now_us()
        )
        try:
            await self._network.put(record)
        except (NetworkError, StoreError) as error:
            _log.debug("rendezvous.not_published", reason=error.reason)
            return False
        self.published_until = record.expires_at
        return True

    # --- other nodes ----------------------------------------------------------------------

    async def _keep_looking(self) -> None:
        wait_s, had = _FIRST_LOOK_S, 0
        while True:
            await asyncio.sleep(wait_s * (0.5 + 0.5 * self._chance()))
            has = len(self._connected())
            if has < had or has >= ENOUGH_PEERS:
                wait_s = _FIRST_LOOK_S
            had = has
            if has >= ENOUGH_PEERS:
                await asyncio.sleep(_CHECK_S)
                continue
            await self.look()
            wait_s = min(_LAST_LOOK_S, 2 * wait_s)

    async def look(self) -> int:
        """Ask for the records of up to ``MAX_ASKED`` nodes; return how many addresses are news."""
        keys = await self._choose()
        news = 0
        for start in range(0, len(keys), _AT_ONCE):
            asked = keys[start : start + _AT_ONCE]
            news += sum(await asyncio.gather(*map(self._ask, asked)))
        return news

    async def _choose(self) -> list[PublicKey]:
        """Choose nodes slot by slot from a random slot on: each round and each reader others."""
        connected, start = self._connected(), int(self._chance() * SLOTS)
        members = await self._members.find()
        members = sorted(members, key=lambda node: ((slot_of(node) - start) % SLOTS, node))
        chosen: list[PublicKey] = []
        for node in members:
            if len(chosen) == MAX_ASKED:
                break
            if node not in connected and self._admits(node):
                chosen.append(node)
        return chosen

    async def _ask(self, node: PublicKey) -> int:
        self.asked += 1
        salt = rendezvous_salt(self._domain, node)
        try:
            async with asyncio.timeout(_ASK_S):
                record = await self._network.get(node, salt)
            addresses = read_rendezvous(record, domain=self._domain)
        except (NetworkError, TimeoutError):
            return 0
        except (FormatError, LimitError) as error:
            self.refused += 1
            _log.debug("rendezvous.refused", reason=error.reason, detail=str(error))
            return 0
        self.found += 1
        return sum(self._suggest(address, node) for address in addresses)

    def _chance(self) -> float:
        return int.from_bytes(self._entropy.token(4), "big") / 2**32

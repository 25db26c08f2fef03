"""Plays a scenario on a swarm that has formed, and measures."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Final

from authd.core.claims import Kind
from authd.core.identity import StatementId
from authd.core.statements import sign_revoke
from authd.service.ports import Item
from tests.simulation.network import Wires
from tests.simulation.scenario import Expectation, Scenario, Step
from tests.simulation.swarm import Swarm, address_of, verified
from tests.simulation.virtual import START
from tests.unit.dht.nodes import make_key

_FLOOD_EVERY_S: Final = 0.5
_FLOOD_ITEMS: Final = 32
_SETTLES_S: Final = 5


@dataclass
class Outcome:
    """What came of a scenario.

    Attributes:
        rows: Expectation, what was measured, and whether it was reached.
        spread: Seconds after the first revocation, and the share of pairs of live node and
            revocation that were reached by then.
    """

    name: str
    seed: int
    rows: list[tuple[str, float, bool]]
    trace: str
    spread: list[tuple[float, float]] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every expectation was met."""
        return all(met for _, _, met in self.rows)


class Play:
    """One scenario on one swarm."""

    def __init__(self, swarm: Swarm, scenario: Scenario, *, seed: int) -> None:
        self._swarm = swarm
        self._scenario = scenario
        self._seed = seed
        self._wires = swarm.wires
        self._wires.rng.seed(seed)
        self._began = asyncio.get_running_loop().time()
        self._revoked: dict[StatementId, float] = {}
        self._count = 0
        self._measured: dict[str, float] = {}
        self._idle_from = self._wires.sent_bytes.total()
        self._healed_at = 0.0
        self._side: dict[str, int] = {}
        self._changes_until_s = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> Outcome:
        """Let everything happen; return what was measured."""
        for step in sorted(self._scenario.steps, key=lambda one: one.at_s):
            await self._sleep_until(step.at_s)
            _VERBS[step.what](self, step)
        await self._end()
        for task in self._tasks:
            task.cancel()
        rows = [self._judge(one) for one in self._scenario.expectations]
        return Outcome(self._scenario.name, self._seed, rows, self._wires.trace, self._spread())

    async def _end(self) -> None:
        """Wait for the scenario's end, or until all know all and what follows has settled."""
        quiet_s = max((one.at_s for one in self._scenario.steps), default=self._scenario.until_s)
        for at_s in range(math.ceil(max(quiet_s, self._changes_until_s)), self._end_s):
            await self._sleep_until(at_s)
            if self._all_know():
                await self._sleep_until(min(at_s + _SETTLES_S, self._end_s))
                return
        await self._sleep_until(self._end_s)

    @property
    def _end_s(self) -> int:
        return math.ceil(self._scenario.until_s)

    def _all_know(self) -> bool:
        shelves = [self._swarm.shelves[number].came_at for number in self._swarm.live()]
        return bool(self._revoked) and all(self._revoked.keys() <= one.keys() for one in shelves)

    def _judge(self, one: Expectation) -> tuple[str, float, bool]:
        value = self._measure(one)
        return one.text, value, value <= one.threshold

    async def _sleep_until(self, at_s: float) -> None:
        await asyncio.sleep(max(0.0, self._began + at_s - asyncio.get_running_loop().time()))

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.add(asyncio.ensure_future(work))

    # --- what can happen ------------------------------------------------------------------

    def _some(self, share: float) -> list[int]:
        live = self._swarm.live()
        return self._wires.rng.sample(live, int(share * len(self._swarm.nodes)))

    def _loss(self, step: Step) -> None:
        self._wires.conditions.loss = step.numbers[0]

    def _reset(self, step: Step) -> None:
        self._wires.conditions.reset = step.numbers[0]

    def _dead(self, step: Step) -> None:
        self._wires.dead |= {address_of(one) for one in self._some(step.numbers[0])}

    def _mute(self, step: Step) -> None:
        self._wires.mute |= {address_of(one) for one in self._some(step.numbers[0])}

    def _churn(self, step: Step) -> None:
        share, for_s = step.numbers
        down = {address_of(one) for one in self._some(share)}
        self._wires.dead |= down
        self._changes_until_s = max(self._changes_until_s, step.at_s + for_s + 1)
        loop = asyncio.get_running_loop()
        loop.call_later(for_s, lambda: self._wires.dead.difference_update(down))

    def _part(self, step: Step) -> None:
        size = len(self._swarm.nodes)
        border = int(step.numbers[0] * size)
        self._side = {address_of(one): int(one >= border) for one in range(size)}
        side = self._side
        self._wires.conditions.parted = lambda a, b: side[a] != side[b]

    def _heal(self, _step: Step) -> None:
        self._healed_at = asyncio.get_running_loop().time()
        self._wires.conditions.parted = lambda _a, _b: False

    def _clocks(self, step: Step) -> None:
        most = step.numbers[0]
        for clock in self._swarm.clocks:
            clock.off_s = self._wires.rng.uniform(-most, most)

    def _flood(self, step: Step) -> None:
        for number in self._some(step.numbers[0]):
            self._start(self._keep_flooding(number))

    async def _keep_flooding(self, number: int) -> None:
        rng = self._wires.rng
        good = self._revocation("good")
        while True:
            junk = [
                Item(good.kind, good.data[:-64] + rng.randbytes(64)) for _ in range(_FLOOD_ITEMS)
            ]
            for peer in list(self._swarm.nodes[number]._peers.values()):
                peer.push(junk)
            await asyncio.sleep(_FLOOD_EVERY_S)

    def _revoke(self, step: Step) -> None:
        times = int(step.numbers[0]) if "times" in step.words else 1
        candidates = self._swarm.live()
        if "side" in step.words:
            side = int(step.numbers[0])
            candidates = [one for one in candidates if self._side[address_of(one)] == side]
        self._changes_until_s = max(self._changes_until_s, step.at_s + 2)
        for count in range(times):
            item = self._revocation(f"device {self._count}")
            self._count += 1
            number = self._wires.rng.choice(candidates)
            self._start(self._publish(count / times, number, item))

    def _rejoin(self, step: Step) -> None:
        held, missed = (int(one) for one in step.numbers)
        self._start(self._come_back(held, missed))

    async def _come_back(self, held: int, missed: int) -> None:
        """Let two nodes of their own meet, of which one missed a few of many revocations."""
        wires = Wires(seed=self._seed)
        pair = Swarm(wires, size=2, seed=self._seed)
        for _ in range(held):
            one = StatementId(self._wires.rng.randbytes(16))
            for shelf in pair.shelves:
                # Never sent: both hold it.
                shelf.items[one] = Item(Kind.REVOKE, b"")
        news = [self._revocation(f"missed {number}") for number in range(missed)]
        pair.shelves[0].take(news)
        loop = asyncio.get_running_loop()
        tasks = [await pair.join(0), await pair.join(1)]
        while not pair.nodes[1].peers():
            await asyncio.sleep(0.01)
        began, opened = loop.time(), wires.sent_bytes.total()
        turns = wires.turns
        while len(pair.shelves[1].came_at) < missed:
            await asyncio.sleep(0.01)
        self._measured |= {
            "rejoined within # s": loop.time() - began,
            "rejoined for # bytes": float(wires.sent_bytes.total() - opened),
            "rejoined in # round trips": (wires.turns - turns) / 2,
        }
        for task in tasks:
            task.cancel()

    def _revocation(self, name: str) -> Item:
        authority, target = self._swarm.domain.authority, make_key(name).public
        return Item(Kind.REVOKE, sign_revoke(authority, target=target, issued_at=START).encoded)

    async def _publish(self, after_s: float, number: int, item: Item) -> None:
        await asyncio.sleep(after_s)
        self._revoked[verified(item.kind, item.data).statement_id] = (
            asyncio.get_running_loop().time()
        )
        await self._swarm.publish(number, [item])

    # --- what is measured -----------------------------------------------------------------

    def _times(self, since: Callable[[float], float]) -> list[float]:
        """Return when each live node had each revocation; what never came is infinitely late."""
        return sorted(
            self._swarm.shelves[number].came_at.get(one, float("inf")) - since(revoked_at)
            for number in self._swarm.live()
            for one, revoked_at in self._revoked.items()
        )

    def _measure(self, one: Expectation) -> float:
        if one.measure in self._measured:
            return self._measured[one.measure]
        return _MEASURES[one.measure](self, one)

    def _reached(self, one: Expectation) -> float:
        times = self._times(lambda revoked_at: revoked_at)
        return times[math.ceil(len(times) * one.numbers[0] / 100) - 1]

    def _reached_after_heal(self, _one: Expectation) -> float:
        return max(0.0, self._times(lambda _at: self._healed_at)[-1])

    def _bad_kept(self, _one: Expectation) -> float:
        held = {
            kept
            for shelf in self._swarm.shelves
            for kept, item in shelf.items.items()
            if item.kind is Kind.REVOKE
        }
        return float(len(held - set(self._revoked)))

    def _idle_bytes(self, _one: Expectation) -> float:
        sent = self._wires.sent_bytes.total() - self._idle_from
        return sent / len(self._swarm.live()) / self._scenario.until_s

    def _news_frames(self, _one: Expectation) -> float:
        return self._wires.news_frames / len(self._swarm.live())

    def _news_bytes(self, _one: Expectation) -> float:
        return self._wires.news_bytes / len(self._swarm.live())

    def _spread(self) -> list[tuple[float, float]]:
        times = self._times(lambda revoked_at: revoked_at)
        return [
            (round(times[place], 4), (place + 1) / len(times))
            for place in range(0, len(times), max(1, len(times) // 200))
            if times[place] != float("inf")
        ]


_VERBS: Final[dict[str, Callable[[Play, Step], None]]] = {
    "loss": Play._loss,
    "reset": Play._reset,
    "dead": Play._dead,
    "mute": Play._mute,
    "churn": Play._churn,
    "part": Play._part,
    "heal": Play._heal,
    "clocks": Play._clocks,
    "flood": Play._flood,
    "revoke": Play._revoke,
    "rejoin": Play._rejoin,
}

_MEASURES: Final[dict[str, Callable[[Play, Expectation], float]]] = {
    "reached #% within # s": Play._reached,
    "reached #% within # s of the heal": Play._reached_after_heal,
    "bad statements kept at most #": Play._bad_kept,
    "messages per node at most #": Play._news_frames,
    "bytes per node at most #": Play._news_bytes,
    "idle bytes per node and second at most #": Play._idle_bytes,
}

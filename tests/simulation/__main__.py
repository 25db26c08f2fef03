"""Plays every scenario and prints what was measured beside what is to be reached.

Usage: python -m tests.simulation [--nodes N] [--runs R] [--seed S] [--only NAME] [--json FILE]

One swarm is formed, with a first seed; each run is a fork of it with a seed of its own. Exits 1 if
an expectation was missed, or if the same seed did not give the same trace.
"""

import argparse
import asyncio
import dataclasses
import gc
import json
import logging
import os
import select
import sys
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from unittest import mock

import structlog

from authd.core.identity import verify_signature
from authd.gossip import messages
from tests.simulation.network import Wires
from tests.simulation.play import Outcome, Play
from tests.simulation.scenario import Scenario, scenarios
from tests.simulation.swarm import Swarm
from tests.simulation.virtual import run

_FORM_S: Final = 30.0
_AT_ONCE: Final = 2


def main() -> int:
    """Run as a program."""
    parser = argparse.ArgumentParser(description="simulate gossip")
    parser.add_argument("--nodes", type=int, default=300)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    outcomes = simulate(options.nodes, options.runs, options.seed, options.only)
    if options.json:
        options.json.write_text(json.dumps([dataclasses.asdict(one) for one in outcomes]))
    return report(outcomes, options.nodes)


def simulate(nodes: int, runs: int, seed: int, only: str = "") -> list[Outcome]:
    """Play the scenarios in turn until there were ``runs``; the first one is played twice."""
    found = [one for one in scenarios() if only in one.name]
    chosen = [one for one in found if nodes <= one.most_nodes]
    if not chosen:
        raise SystemExit(f"no scenario for {nodes} nodes is called `{only}`")
    for one in found:
        if nodes > one.most_nodes:
            print(f"{one.name:22} is not played with more than {one.most_nodes:.0f} nodes")
    plan = [(chosen[number % len(chosen)], seed + number // len(chosen)) for number in range(runs)]
    # A node's signed word is checked by thousands of nodes here: the same bytes are checked once.
    with mock.patch.object(messages, "verify_signature", lru_cache(1_000_000)(verify_signature)):
        return run(_simulate(nodes, seed, [plan[0], *plan]))


async def _simulate(nodes: int, seed: int, plan: list[tuple[Scenario, int]]) -> list[Outcome]:
    # Millions of objects that live to the end: looking for garbage among them takes longer than
    # all else, and would copy the pages that the forks share.
    gc.disable()
    try:
        return await _play_all(nodes, seed, plan)
    finally:
        gc.unfreeze()
        gc.enable()


async def _play_all(nodes: int, seed: int, plan: list[tuple[Scenario, int]]) -> list[Outcome]:
    swarm = Swarm(Wires(seed=seed), size=nodes, seed=seed)
    began = time.monotonic()
    outcomes: list[Outcome] = []
    children: dict[int, int] = {}
    tasks = await swarm.start()
    await asyncio.sleep(_FORM_S)
    gc.collect()
    gc.freeze()
    print(f"{nodes} nodes, seed {seed}: formed in {time.monotonic() - began:.0f} s", flush=True)
    for scenario, own_seed in plan:
        if len(children) == _AT_ONCE:
            outcomes.append(_collect_one(children))
        loop, (readable, writable) = asyncio.get_running_loop(), os.pipe()
        pid = os.fork()
        if pid == 0:
            # The library forgets the running loop in a forked process; this one goes on with it.
            asyncio._set_running_loop(loop)
            outcome = await Play(swarm, scenario, seed=own_seed).run()
            with os.fdopen(writable, "w") as pipe:
                json.dump(dataclasses.asdict(outcome), pipe)
            os._exit(0)
        os.close(writable)
        children[readable] = pid
    outcomes += [_collect_one(children) for _ in range(len(children))]
    for task in tasks:
        task.cancel()
    return outcomes


def _collect_one(children: dict[int, int]) -> Outcome:
    """Take in the outcome of whichever child has one first."""
    pipe = select.select(list(children), [], [])[0][0]
    with os.fdopen(pipe) as stream:
        text = stream.read()
    os.waitpid(children.pop(pipe), 0)
    values: dict[str, Any] = json.loads(text)
    outcome = Outcome(**values)
    for text, value, met in outcome.rows:
        mark = "met" if met else "MISSED"
        print(
            f"{outcome.name:22} seed {outcome.seed:<3} {text:45} {value:10.3f}  {mark}", flush=True
        )
    return outcome


def report(outcomes: list[Outcome], nodes: int) -> int:
    """Print the last line; return the exit status."""
    first = outcomes[0]
    again = [one for one in outcomes if (one.name, one.seed) == (first.name, first.seed)]
    same = len(again) > 1 and len({one.trace for one in again}) == 1
    missed = sum(not met for one in outcomes for _, _, met in one.rows)
    rows = sum(len(one.rows) for one in outcomes)
    print(
        f"{len(outcomes)} runs of {nodes} nodes: {rows - missed} of {rows} thresholds met;"
        f" the same seed gave {'the same trace' if same else 'ANOTHER TRACE'} ({first.trace})"
    )
    return 0 if same and not missed else 1


if __name__ == "__main__":
    sys.exit(main())

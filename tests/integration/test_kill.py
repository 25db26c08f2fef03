"""Killed at 200 random moments while it writes: what was acknowledged is there."""

import contextlib
import multiprocessing
import random
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from authd.core.claims import Kind
from authd.core.identity import StatementId
from authd.core.statements import sign_revoke
from authd.service.ports import Item
from tests.world import START, Domain, FakeClock, Site, make_key

KILLS = 200


# Children come from a process of their own, which no other test has given threads and streams.
CHILDREN = multiprocessing.get_context("forkserver")
CHILDREN.set_forkserver_preload(["tests.world"])


def revoke_until_killed(
    directory: Path, domain: Domain, round_number: int, pipe: Connection
) -> None:
    """Revoke one key after another, and say of each when the daemon would acknowledge it."""
    site = Site(directory, domain, clock=FakeClock(START + 10_000 * round_number))
    for number in range(10_000):
        site.clock.advance(1)
        target = make_key(f"{round_number} {number}").public
        revoke = sign_revoke(domain.authority, target=target, issued_at=START)
        site.service.authority.submit([Item(Kind.REVOKE, revoke.encoded)])
        # A head too: the list of revocations and the statements must not drift apart.
        site.service.authority.beat()
        pipe.send_bytes(revoke.statement_id)


def killed_at(directory: Path, domain: Domain, number: int, after_s: float) -> set[StatementId]:
    """Start a child, kill it a while after its first word, and return what it acknowledged."""
    ours, theirs = CHILDREN.Pipe(duplex=False)
    child = CHILDREN.Process(target=revoke_until_killed, args=(directory, domain, number, theirs))
    child.start()
    theirs.close()
    said = set()
    with ours, contextlib.suppress(EOFError):
        assert ours.poll(60), "it says its first word"
        time.sleep(after_s)
        child.kill()
        while True:
            said.add(StatementId(ours.recv_bytes()))
    child.join()
    assert child.exitcode == -signal.SIGKILL, "it was to be killed, not to end"
    return said


@pytest.mark.timeout(300)
def test_no_acknowledged_revocation_is_missing_after_200_kills(tmp_path: Path) -> None:
    rng = random.Random(1)
    domain = Domain()
    acknowledged: set[StatementId] = set()
    for number in range(KILLS):
        acknowledged |= killed_at(tmp_path, domain, number, rng.uniform(0.0, 0.02))
        if number % 20 == 19:
            site = Site(tmp_path, domain, clock=FakeClock(START + 10_000 * number + 9_999))
            authority = site.service.authority
            assert acknowledged <= set(authority.state.revocations)
            view = authority.heartbeats.domains[domain.id].view(domain.heartbeat("hb-1").public)
            assert acknowledged <= set(view.chain.ids), "the list holds them too"
            assert view.proven == view.newest, "and leads to the head that was signed last"
            site.close()
    assert len(acknowledged) > KILLS

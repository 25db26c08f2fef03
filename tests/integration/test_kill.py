"""Killed at 200 random moments while it writes: what was acknowledged is there."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from authd.core.claims import Kind
from authd.core.identity import StatementId
from authd.core.statements import sign_revoke
from authd.service.ports import Item
from tests.world import START, Domain, FakeClock, Site, make_key

KILLS = 200
ID_BYTES = 16


def revoke_until_killed(directory: Path, domain: Domain, round_number: int, pipe: int) -> None:
    """Revoke one key after another, and say of each when the daemon would acknowledge it."""
    site = Site(directory, domain, clock=FakeClock(START + 10_000 * round_number))
    for number in range(10_000):
        site.clock.advance(1)
        target = make_key(f"{round_number} {number}").public
        revoke = sign_revoke(domain.authority, target=target, issued_at=START)
        site.service.authority.submit([Item(Kind.REVOKE, revoke.encoded)])
        # A head too: the list of revocations and the statements must not drift apart.
        site.service.authority.beat()
        os.write(pipe, revoke.statement_id)


def killed_at(directory: Path, domain: Domain, number: int, after_s: float) -> set[StatementId]:
    """Fork, kill the child a while after its first word, and return what it had acknowledged."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            revoke_until_killed(directory, domain, number, writable)
        finally:
            os._exit(1)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        said = pipe.read(ID_BYTES)
        time.sleep(after_s)
        os.kill(pid, signal.SIGKILL)
        said += pipe.read()
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "it was to be killed, not to end"
    whole = len(said) // ID_BYTES * ID_BYTES
    return {StatementId(said[at : at + ID_BYTES]) for at in range(0, whole, ID_BYTES)}


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

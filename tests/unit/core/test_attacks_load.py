"""A14: work is counted, never timed, so that a busy host denies nobody who may."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from authd.core.proofs import UnverifiedPop, make_pop, parse_credentials, verify_pop
from tests.unit.core.world import NOW, World, id_of, key, scope

HOGS = 6
DECISIONS = 2_000


@contextmanager
def hogs() -> Iterator[None]:
    """Keep every core busy."""
    program = "import time\nend = time.monotonic() + 120\nwhile time.monotonic() < end: pass"
    running = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(HOGS)]
    try:
        yield
    finally:
        for one in running:
            one.kill()
            one.wait()


def test_a14_a_busy_host_denies_nobody_who_may() -> None:
    world = World()
    world.grants("X -> site -> hall -> lamp", scope("a/#"))
    denied = 0
    with hogs():
        for number in range(DECISIONS):
            password = make_pop(
                key("lamp"),
                audience=world.audience,
                client_id=id_of("lamp"),
                time=NOW,
                nonce=number.to_bytes(8, "big"),
            )
            pop = parse_credentials(id_of("lamp"), password)
            assert isinstance(pop, UnverifiedPop)
            proof = verify_pop(
                pop,
                key=key("lamp").public,
                audiences=[world.audience],
                client_id=id_of("lamp"),
                now=NOW,
            )
            denied += not world.connect("lamp", nonce=proof.nonce).allowed
    assert denied == 0

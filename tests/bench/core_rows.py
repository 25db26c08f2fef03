"""Rows of the core: verification, decisions among many grants, revocations in batches, memory."""

import gc
import hashlib
import itertools
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from nacl.bindings import crypto_core_ed25519_is_valid_point, crypto_sign, crypto_sign_open

from authd.core import identity
from authd.core.claims import LABELS, Kind
from authd.core.decision import Decision, decide_connect
from authd.core.envelope import parse_envelope, signing_bytes
from authd.core.grants import Form, Grant, KeySubject, sign_grant
from authd.core.identity import PublicKey, SigningKey, key_id_text
from authd.core.paths import find_paths
from authd.core.proofs import (
    UnverifiedPop,
    VerifiedProof,
    make_pop,
    parse_credentials,
    verify_pop,
    verify_stapled,
)
from authd.core.statements import sign_revoke
from authd.core.topics import Action, make_scope
from authd.core.trust import TrustState
from tests.bench.measure import Row, in_turns, resident_bytes, seconds_of
from tests.unit.core.world import NOW, World, id_of, key

_ROUNDS: Final = 9
_TIMES: Final = 60
_BATCH: Final = 100
# As many as the smaller world has and does not revoke; and more than any cache holds parsed.
_FEW_DEVICES: Final = 900
_MANY_DEVICES: Final = 9_000
_SCOPE: Final = make_scope({"site/+/state": Action.PUB, "site/cmd/#": Action.SUB})


def core_rows(*, full: bool) -> list[Row]:
    """Measure all of them.

    Args:
        full: With 1 000 000 grants and 100 000 revocations, not a twentieth of them.
    """
    grants = 1_000_000 if full else 50_000
    return [verification(), *_among_many(grants, grants // 10), memory(grants)]


# --- verification ---------------------------------------------------------------------------------


def verification() -> Row:
    """A path of three grants and a proof, nothing seen before ÷ libsodium alone."""
    world = World()
    path = world.grants("X -> gate -> door -> lamp")
    username, audiences = id_of("lamp"), [world.audience]
    password = make_pop(
        key("lamp"),
        audience=world.audience,
        client_id=username,
        time=NOW,
        nonce=bytes(8),
        path=path,
    )

    def ours() -> VerifiedProof:
        identity._is_valid_point.cache_clear()
        pop = parse_credentials(username, password)
        assert isinstance(pop, UnverifiedPop)
        grants = verify_stapled(pop.stapled)
        subject = grants[-1].subject
        assert isinstance(subject, KeySubject)
        return verify_pop(pop, key=subject.key, audiences=audiences, client_id=username, now=NOW)

    assert ours().form is Form.POP_PATH
    signed, points = _bare_inputs(path)

    def bare() -> None:
        for point in points:
            crypto_core_ed25519_is_valid_point(point)
        for data, public in signed:
            crypto_sign_open(data, public)

    bare_s, ours_s = in_turns(
        seconds_of(bare, times=_TIMES), seconds_of(ours, times=_TIMES), rounds=_ROUNDS
    )
    return Row(
        what="cold verification of 3 grants and a proof: bare PyNaCl / ours",
        value=bare_s / ours_s,
        target=0.8,
        at_least=True,
        note=f"{len(signed)} signatures, {len(points)} points:"
        f" {bare_s * 1e6:.0f} us bare, {ours_s * 1e6:.0f} us ours",
    )


def _bare_inputs(path: list[Grant]) -> tuple[list[tuple[bytes, bytes]], set[bytes]]:
    """Return what the path and a proof make libsodium do, and nothing else."""
    label = LABELS[Kind.GRANT]
    signed: list[tuple[bytes, bytes]] = []
    for grant in path:
        envelope = parse_envelope(label, grant.encoded, max_bytes=1_000)
        message = signing_bytes(label, envelope.payload)
        signed.append((envelope.signature + message, grant.issuer))
    # A proof signs about as many bytes as this.
    signed.append((crypto_sign(bytes(100), key("lamp")._secret), key("lamp").public))
    return signed, {public for _, public in signed}


# --- among many -----------------------------------------------------------------------------------


def _device(number: int) -> SigningKey:
    return SigningKey.from_seed(hashlib.sha256(b"device %d" % number).digest())


def _device_grants(count: int, first: int = 0) -> Iterator[Grant]:
    for number in range(first, first + count):
        yield sign_grant(
            key("X"),
            subject=KeySubject(_device(number).public),
            scope=_SCOPE,
            issued_at=NOW - 10,
            expires_at=NOW + 90 * 86_400,
        )


def _with_revocations(state: TrustState, first: int, count: int) -> TrustState:
    issuer = key("X")
    return state.apply_revocations(
        sign_revoke(issuer, target=_device(number).public, issued_at=NOW)
        for number in range(first, first + count)
    )


def _world(grants: int, revocations: int) -> World:
    """Make a world of devices, the last of which are revoked."""
    world = World()
    world.state = world.state.apply_grants(_device_grants(grants))
    world.state = _with_revocations(world.state, grants - revocations, revocations)
    return world


def _decide(world: World, public: PublicKey) -> Decision:
    proof = replace(world.proof("lamp"), key=public, client_id=key_id_text(public))
    return decide_connect(
        find_paths(world.state, public, policy=world.policy, freshness=world.freshness, now=NOW),
        proof,
        policy=world.policy,
        freshness=world.freshness,
        now=NOW,
    )


def _among_many(grants: int, revocations: int) -> list[Row]:
    few, many = _world(1_000, _BATCH), _world(grants, revocations)
    sizes = f"{grants} grants, {revocations} revocations / 1000, {_BATCH}"
    apart = (grants - revocations) // _MANY_DEVICES
    in_use = [_device(number).public for number in range(_FEW_DEVICES)]
    any_device = [_device(apart * number).public for number in range(_MANY_DEVICES)]
    return [
        _decisions(few, many, in_use, in_use, what=f"decision, device in use, {sizes}"),
        _decisions(few, many, in_use, any_device, what=f"decision, any device, {sizes}"),
        _batches(few, many),
    ]


def _decisions(
    few: World, many: World, of_few: list[PublicKey], of_many: list[PublicKey], *, what: str
) -> Row:
    def deciding(world: World, keys: list[PublicKey]) -> Callable[[], float]:
        turn = itertools.cycle(keys)

        def decide() -> None:
            assert _decide(world, next(turn)).allowed

        return seconds_of(decide, times=_FEW_DEVICES)

    few_s, many_s = in_turns(deciding(few, of_few), deciding(many, of_many), rounds=_ROUNDS)
    return Row(
        what=what,
        value=many_s / few_s,
        target=1.2,
        at_least=False,
        note=f"{many_s * 1e6:.0f} us / {few_s * 1e6:.0f} us",
    )


def _batches(few: World, many: World) -> Row:
    batch = [
        sign_revoke(key("X"), target=_device(20_000_000 + number).public, issued_at=NOW)
        for number in range(_BATCH)
    ]
    few_batch_s, many_batch_s = in_turns(
        seconds_of(lambda: few.state.apply_revocations(batch), times=20),
        seconds_of(lambda: many.state.apply_revocations(batch), times=20),
        rounds=_ROUNDS,
    )
    held = len(many.state.revocations)
    return Row(
        what=f"one more batch of {_BATCH} revocations on {held} / on {_BATCH}",
        value=many_batch_s / few_batch_s,
        target=5.0,
        at_least=False,
        note=f"{many_batch_s * 1e6:.0f} us / {few_batch_s * 1e6:.0f} us;"
        f" copying sets would give about {held // _BATCH}",
    )


# --- memory ---------------------------------------------------------------------------------------


def memory(grants: int) -> Row:
    """Resident memory a cached grant takes, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.core_rows", str(grants)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    taken = json.loads(done.stdout)
    return Row(
        what="resident bytes for each cached grant",
        value=taken["bytes"] / grants,
        target=600,
        at_least=False,
        note=f"{grants} grants of {taken['encoded']} encoded bytes, by `TrustState.apply_grants`",
    )


def _weigh(grants: int) -> dict[str, int]:
    # Whatever the first of them load or cache is there before the weighing begins.
    warm = TrustState().apply_grants(_device_grants(5_000, first=30_000_000))
    sample = len(warm.grants_to(identity.key_id(_device(30_000_000).public))[0].encoded)
    del warm
    identity._is_valid_point.cache_clear()
    gc.collect()
    before = resident_bytes()
    state = TrustState().apply_grants(_device_grants(grants))
    identity._is_valid_point.cache_clear()
    gc.collect()
    taken = resident_bytes() - before
    assert len(state.grants) == grants
    return {"bytes": taken, "encoded": sample}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(_weigh(int(sys.argv[1]))))

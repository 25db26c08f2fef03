"""A1 at every door of the core: weak keys and odd signatures speak for nobody."""

from collections.abc import Callable

import pytest

from authd.core.claims import Kind
from authd.core.encoding import encode
from authd.core.grants import verify_grant
from authd.core.identity import admit_key, verify_signature
from authd.core.records import make_record, verify_record
from authd.core.roots import verify_root
from authd.core.statements import verify_broker, verify_heartbeat, verify_revoke
from authd.errors import SignatureError, WeakKeyError
from tests.unit.core.forge import forge
from tests.unit.core.test_roots import forged
from tests.unit.core.test_statements import BROKER, HEARTBEAT, REVOKE
from tests.unit.core.world import NOW, key, make_grant, scope
from tests.vectors.weak_keys import SMALL_ORDER, SPECCHECK

GRANT = make_grant("issuer", "subject", scope("a/#"))


def _in_cnf(raw: bytes) -> dict[int, object]:
    return {1: {1: 1, -1: 6, -2: raw}}


DOORS: dict[str, Callable[[bytes], object]] = {
    "key": admit_key,
    "grant issuer": lambda raw: verify_grant(_odd_grant(iss=raw)),
    "grant subject": lambda raw: verify_grant(_odd_grant(cnf=_in_cnf(raw))),
    "grant replaces": lambda raw: verify_grant(_odd_grant(replaces=raw)),
    "revoke issuer": lambda raw: verify_revoke(
        forge(Kind.REVOKE, key("issuer"), REVOKE.encoded, iss=raw)
    ),
    "revoke target": lambda raw: verify_revoke(
        forge(Kind.REVOKE, key("issuer"), REVOKE.encoded, target=raw)
    ),
    "heartbeat": lambda raw: verify_heartbeat(
        forge(Kind.HEARTBEAT, key("beat"), HEARTBEAT.encoded, iss=raw)
    ),
    "broker": lambda raw: verify_broker(forge(Kind.BROKER, key("server"), BROKER.encoded, iss=raw)),
    "root key": lambda raw: verify_root(forged(root_keys=[raw]), previous=None),
    "root heartbeat": lambda raw: verify_root(forged(heartbeat_keys=[raw]), previous=None),
    "root publisher": lambda raw: verify_root(forged(publisher=raw), previous=None),
    "root authority": lambda raw: verify_root(
        forged(authorities=[[raw, [["#", ["pub"]]], 1, NOW]]), previous=None
    ),
    "record": lambda raw: verify_record(_odd_record(raw), now=NOW),
}


def _odd_grant(**changes: object) -> bytes:
    return forge(Kind.GRANT, key("issuer"), GRANT.encoded, **changes)


def _odd_record(raw: bytes) -> bytes:
    record = make_record(key("X"), salt=bytes(20), seq=0, content=b"", expires_at=NOW + 1)
    return encode([raw, record.salt, record.seq, record.value, record.signature])


@pytest.mark.parametrize("case", range(12))
def test_a1_the_twelve_edge_cases_of_ed25519_are_refused(case: int) -> None:
    message, public, signature = (bytes.fromhex(text) for text in SPECCHECK[case])
    with pytest.raises((WeakKeyError, SignatureError)):
        verify_signature(admit_key(public), message, signature)


def test_a1_the_point_check_alone_refuses_all_but_the_two_mixed_signatures() -> None:
    weak = set()
    for case, (_, public, _) in enumerate(SPECCHECK):
        try:
            admit_key(bytes.fromhex(public))
        except WeakKeyError:
            weak.add(case)
    assert weak == {0, 1, 2, 3, 4, 5, 8, 9, 10, 11}


@pytest.mark.parametrize("point", SMALL_ORDER)
@pytest.mark.parametrize("door", DOORS)
def test_a1_a_small_order_point_is_refused_at_every_door(door: str, point: str) -> None:
    with pytest.raises(WeakKeyError):
        DOORS[door](bytes.fromhex(point))


def test_a1_a_signature_with_a_large_s_is_refused() -> None:
    order = 2**252 + 27742317777372353535851937790883648493
    signature = key("a").sign(b"message")
    s = int.from_bytes(signature[32:], "little") + order
    with pytest.raises(SignatureError):
        verify_signature(key("a").public, b"message", signature[:32] + s.to_bytes(32, "little"))

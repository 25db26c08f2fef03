"""Heads that are remembered: each key's in each domain, and what is known of lists that ended."""

from authd.core import limits
from authd.service.remembered import Remembered, signer_of
from tests.unit.core.test_revocations import IDS, beat
from tests.unit.core.world import NOW, authority, make_root, publics


def test_a_key_keeps_another_list_in_each_domain_that_names_it() -> None:
    elsewhere = make_root(authority("P"), domain="elsewhere", heartbeat_keys=publics(["h1"]))
    here, there = beat(ids=IDS[:2]), beat(ids=IDS[2:4], domain=elsewhere.domain)
    remembered = Remembered()
    assert not remembered.contradicts(here, ())
    assert not remembered.contradicts(there, ())
    assert remembered.contradicts(beat(ids=IDS[4:6]), ())
    assert list(remembered.evidence) == [signer_of(here)]


def test_what_was_taken_convicts_though_others_drove_it_out() -> None:
    taken, remembered = beat(ids=IDS[:2]), Remembered()
    remembered.contradicts(taken, ())
    for number in range(3 * limits.MAX_CLOSED_HEADS):
        assert not remembered.contradicts(beat(epoch=100 + number), (taken,))
    rival = beat(ids=IDS[2:4], issued_at=NOW + 1)
    assert not Remembered().contradicts(rival, (None,))
    assert remembered.contradicts(rival, (None, taken))
    assert remembered.evidence[signer_of(taken)] == (taken, rival)


def test_the_lists_before_one_are_found_back_to_where_one_is_not_known() -> None:
    remembered, heads = Remembered(), [beat(epoch=1)]
    for number in range(2, 6):
        heads.append(beat(epoch=number, ids=IDS[:number], previous=heads[-1].end))
    for one in (*heads[1:4], beat(epoch=9, ids=IDS[:3])):
        remembered.contradicts(one, ())
    assert remembered.closed_before(heads[-1]) == tuple(heads[1:4])
    assert Remembered().closed_before(heads[-1]) == ()

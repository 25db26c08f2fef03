from dataclasses import dataclass, replace

import pytest

from authd.embedded.admissions import Admission, Admissions, Right


@dataclass
class Hand:
    """A monotonic clock that a test turns."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


ADMISSION = Admission(
    client_id="c",
    session_id="s",
    key_id="k",
    rights=(
        Right(topic_filter="a/+", publish=True, subscribe=False, ends_at=160.0),
        Right(topic_filter="b/#", publish=False, subscribe=True, ends_at=160.0),
        Right(topic_filter="brief", publish=True, subscribe=True, ends_at=110.0),
    ),
    lease_ends_at=160.0,
    publish_will=False,
)


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def table(clock: Hand) -> Admissions:
    made = Admissions(monotonic=clock)
    made.put(ADMISSION)
    return made


def allowed(table: Admissions, client_id: str = "c") -> list[bool]:
    return [
        table.may_publish(client_id, "a/x"),
        table.may_subscribe(client_id, "b/#"),
        table.may_receive(client_id, "b/x/y"),
        table.may_publish(client_id, "brief"),
    ]


def test_publishing_and_receiving_are_by_name_and_subscribing_by_filter(
    table: Admissions,
) -> None:
    assert allowed(table) == [True] * 4
    assert not table.may_publish("c", "b/x")
    assert not table.may_receive("c", "a/x")
    assert not table.may_subscribe("c", "a/x")
    assert not table.may_subscribe("c", "#")
    assert not table.may_publish("c", "a/+")


@pytest.mark.parametrize("shared", ["$share/g/b/#", "$share/g/b/x", "$share", "$shared/x"])
def test_a_shared_subscription_is_refused_even_where_its_filter_is_granted(
    table: Admissions,
    shared: str,
) -> None:
    assert not table.may_subscribe("c", shared)


def test_a_client_without_admission_may_do_nothing(table: Admissions) -> None:
    assert allowed(table, "another") == [False] * 4
    table.drop("c")
    assert allowed(table) == [False] * 4
    assert table.seconds_left("c") == 0
    assert table.get("c") is None


def test_nothing_is_allowed_at_the_very_end_of_the_lease(table: Admissions, clock: Hand) -> None:
    clock.now = 159.999
    assert allowed(table) == [True, True, True, False]
    assert table.is_current("c")
    clock.now = 160.0
    assert allowed(table) == [False] * 4
    assert not table.is_current("c")


def test_a_right_ends_alone_at_its_own_end(table: Admissions, clock: Hand) -> None:
    clock.now = 110.0
    assert allowed(table) == [True, True, True, False]


def test_a_longer_lease_carries_the_rights_that_ended_with_it_and_no_others(
    table: Admissions,
    clock: Hand,
) -> None:
    assert table.change_lease("s", 500.0) == "c"
    clock.now = 300.0
    assert allowed(table) == [True, True, True, False]
    assert table.change_lease("s", 200.0) == "c"
    assert allowed(table) == [False] * 4


def test_the_lease_of_an_unknown_session_changes_nothing(table: Admissions) -> None:
    assert table.change_lease("unknown", 500.0) is None
    assert table.held() == (ADMISSION,)


def test_a_new_admission_replaces_the_old_one_whole(table: Admissions) -> None:
    table.put(replace(ADMISSION, session_id="t", rights=()))
    assert allowed(table) == [False] * 4
    assert table.seconds_left("c") == 60.0

"""What a report on the broker socket says of retained messages: bounded, and never trusted."""

import pytest

from tests.unit.http_api.conftest import DEVICE, DEVICE_ID, Client
from tests.unit.http_api.test_plugin import BOOT, ask, body_of, connecting
from tests.unit.service.scenes import revoke
from tests.world import Site


async def told(plugin: Client, site: Site, **members: object) -> tuple[int, list[str], object]:
    """Report a kick with these members; return the status and what the revocation shows."""
    _, answer = await ask(plugin, "connect", connecting(site))
    signed = revoke(site, DEVICE.public)
    kicked = {"client_id": DEVICE_ID, "session": answer["session"], "what": "kicked", "ms_ago": 1}
    body = body_of("session", site, events=[kicked | members])
    status, _ = await ask(plugin, "session", body)
    shown = site.service.operator.revocation(signed.statement_id)
    retained = shown["retained"]
    assert isinstance(retained, list)
    assert {(one["broker"], one["client_id"]) for one in retained} <= {("m", DEVICE_ID)}
    return status, [one["topic"] for one in retained], shown["retained_more"]


async def test_a_kick_says_what_was_left_behind(plugin: Client, site: Site) -> None:
    topics = ["site/a/temp", "site/a/state"]
    assert await told(plugin, site, retained=topics, retained_more=2) == (200, topics, 2)


async def test_a_broker_that_says_nothing_leaves_the_list_empty(plugin: Client, site: Site) -> None:
    assert await told(plugin, site) == (200, [], 0)


@pytest.mark.parametrize(
    ("topics", "named", "more"),
    [
        (["x" * 257, "a/#", "", "$(reboot)"], ["$(reboot)"], 3),
        (["a", "a"], ["a"], 0),
        (
            [f"t/{number}" for number in range(100)],
            [f"t/{number}" for number in range(68, 100)],
            68,
        ),
        (["\ud800", "a\nb"], [], 2),
    ],
    ids=["no names", "twice", "too many", "no text"],
)
async def test_what_a_client_chose_never_costs_the_report(
    plugin: Client, site: Site, topics: list[str], named: list[str], more: int
) -> None:
    assert await told(plugin, site, retained=topics) == (200, named, more)
    assert [cut.outcome for cut in site.service.sessions.cuts] == ["kicked"]


@pytest.mark.parametrize(
    "members",
    [
        {"retained": None},
        {"retained": "a"},
        {"retained": {"a": 1}},
        {"retained": ["a", 7]},
        {"retained": [["a"]]},
        {"retained_more": None},
        {"retained_more": -1},
        {"retained_more": 1.5},
        {"retained_more": True},
        {"retained_more": "1"},
    ],
)
async def test_members_of_another_type_are_refused(
    plugin: Client, site: Site, members: dict[str, object]
) -> None:
    assert await told(plugin, site, **members) == (400, [], 0)


async def test_topics_of_a_session_that_is_not_known_are_dropped(
    plugin: Client, site: Site
) -> None:
    await ask(plugin, "connect", connecting(site))
    signed = revoke(site, DEVICE.public)
    forged = {"client_id": DEVICE_ID, "session": "x", "what": "offline", "retained": ["a"]}
    body = {"broker": "m", "boot": BOOT, "events": [forged]}
    assert (await ask(plugin, "session", body))[0] == 200
    assert site.service.operator.revocation(signed.statement_id)["retained"] == []

"""Decisions to the letter: words on the wire, defaults that give nothing, bounds at their edge."""

from dataclasses import replace

import pytest

from authd.core import limits
from authd.core.compilation import compile_rights
from authd.core.decision import (
    ConnectRequest,
    Decision,
    Effect,
    Evidence,
    Operation,
    Rights,
    conclude,
    decide_connect,
    deny,
    describe_path,
)
from authd.core.encoding import encode_base64url
from authd.core.grants import ClientIdMatch, ClientIdRule, Form
from authd.core.paths import Evaluation
from authd.core.policy import GuardedPrefix
from authd.core.proofs import Audience
from authd.core.topics import Action
from authd.errors import ReasonCode
from tests.unit.core.world import (
    BOTH,
    DAY,
    NOW,
    World,
    authority,
    id_of,
    key,
    make_root,
    scope,
)

DOOR = GuardedPrefix(topic_filter="door/#", grace_s=3_600, k=2)


def guarded_world(*names: str, guard: GuardedPrefix = DOOR) -> World:
    return World(root=make_root(*map(authority, names)), guarded=(guard,))


# --- words and defaults -------------------------------------------------------------------------


def test_effects_and_operations_are_called_as_on_the_wire() -> None:
    assert [one.value for one in Effect] == ["allow", "deny"]
    assert [one.value for one in Operation] == ["publish", "subscribe", "receive"]


def test_a_request_says_only_what_was_sent_and_never_prints_its_password() -> None:
    request = ConnectRequest(broker="m", client_id="c", username="u", password="hush")
    assert (request.address, request.boot, request.clean) == ("", "", True)
    assert request.enforces == frozenset()
    assert "hush" not in repr(request)


def test_a_deny_carries_nothing_to_be_used() -> None:
    denied = deny(ReasonCode.STALE, "why")
    assert denied == Decision(effect=Effect.DENY, reason=ReasonCode.STALE, detail="why")
    assert (denied.key, denied.rights, denied.lease_until, denied.session) == (
        None,
        Rights(),
        0,
        "",
    )
    evidence = denied.evidence
    assert (evidence.paths, evidence.matched, evidence.form, evidence.audience) == ((), "", "", "")


def test_a_connect_matches_no_filter() -> None:
    world = World()
    world.grants("X -> lamp", scope("a/#"))
    evidence = world.connect("lamp").evidence
    assert evidence.matched == ""
    assert (evidence.form, evidence.audience) == ("pop", str(world.audience))


def test_a_path_is_described_by_ids_end_and_depth() -> None:
    world = World()
    first, second = world.grants("X -> gate -> lamp", scope("a/#"))
    (path,) = world.paths_to("lamp").paths
    assert describe_path(path) == {
        "domains": [encode_base64url(world.root.domain)],
        "keys": [id_of("X"), id_of("gate"), id_of("lamp")],
        "grants": [encode_base64url(one.statement_id) for one in (first, second)],
        "expires_at": NOW + DAY,
        "depth": 0,
    }


def test_a_refusal_ends_with_the_topic_where_no_prefix_is_in_the_way() -> None:
    world = World()
    world.grants("X -> lamp", scope("a/#"))
    allowed = world.connect("lamp")
    refused = conclude(
        allowed.rights,
        lease_until=allowed.lease_until,
        now=NOW,
        key=key("lamp").public,
        evidence=Evidence(),
        asked=(Operation.PUBLISH, "b"),
    )
    assert refused.detail == f"no grant of key `{id_of('lamp')}` covers publish on `b`"


# --- what is compiled ---------------------------------------------------------------------------


def test_a_right_of_one_path_names_no_further_proof() -> None:
    world = World()
    world.grants("X -> lamp", scope("a/#"))
    (right,) = world.connect("lamp").rights.entries
    assert (right.path, right.proof) == (0, ())


def test_authorities_share_the_entries_evenly_when_there_are_too_many() -> None:
    names = "ABCDE"
    world = World(root=make_root(*map(authority, names)))
    for name in names:
        world.grant(name, "s", scope(*(f"{name}/{number:02}" for number in range(16))))
    entries = world.connect("s").rights.entries
    assert len(entries) == limits.MAX_COMPILED_FILTERS
    counts = [sum(one.topic_filter.startswith(name) for one in entries) for name in names]
    assert sorted(counts) == [12, 13, 13, 13, 13]


def test_entries_stay_in_the_order_of_their_paths_while_they_fit() -> None:
    names = "ABCD"
    world = World(root=make_root(*map(authority, names)))
    for name in names:
        world.grant(name, "s", scope(*(f"{name}/{number:02}" for number in range(16))))
    entries = world.connect("s").rights.entries
    assert len(entries) == limits.MAX_COMPILED_FILTERS
    paths = [one.path for one in entries]
    assert paths == sorted(paths)


def test_a_path_that_ended_is_not_blamed_on_a_prefix_of_another() -> None:
    world = guarded_world("A", "B")
    world.grant("A", "s", scope("door/1"))
    world.grant("B", "s", scope("$authd/node", actions=Action.PUB))
    _, failures = compile_rights(
        world.paths_to("s"),
        world.proof("s"),
        policy=world.policy,
        freshness=world.freshness,
        now=NOW,
    )
    assert sorted(one.detail.partition(",")[0] for one in failures) == [
        "`door/1` reaches into `door/#`",
        "the grants name no topic to publish or subscribe",
    ]


def test_of_two_actions_the_one_that_is_proven_counts() -> None:
    world = guarded_world("A", "B")
    world.grant("A", "s", scope("door/1", actions=BOTH))
    world.grant("B", "s", scope("door/+", actions=Action.PUB))
    (entry,) = world.connect("s").rights.entries
    assert (entry.topic_filter, entry.actions, entry.proof) == ("door/1", Action.PUB, (0, 1))


def test_what_is_not_proven_as_a_whole_counts_inside_the_laxer_prefix() -> None:
    world = guarded_world("A", "B")
    world.guarded = (DOOR, GuardedPrefix(topic_filter="vault/#", grace_s=60, k=3))
    world.grant("A", "s", scope("#"))
    world.grant("B", "s", scope("#"))
    entries = world.connect("s").rights.entries
    assert {(one.topic_filter, one.actions) for one in entries} == {
        ("door/#", Action.PUB),
        ("door/#", Action.SUB),
    }


def test_an_older_grant_stands_in_for_one_that_does_not_allow_the_form() -> None:
    world = guarded_world("A", "B")
    world.grant("A", "s", scope("door/#"))
    world.grant("B", "s", scope("door/#"), issued_at=NOW - 20)
    world.grant("B", "s", scope("door/#"), forms=[Form.TLS], issued_at=NOW - 5)
    assert world.connect("s").allowed


def test_a_filter_inside_its_prefix_is_withheld_once() -> None:
    world = guarded_world("A", "B")
    world.grant("A", "s", scope("door/#", "lamp"))
    rights = world.connect("s").rights
    assert [one.topic_filter for one in rights.entries] == ["lamp"]
    assert {str(one) for one in rights.withheld} == {
        "`door/#` reaches into `door/#`, which asks for 2 paths that share no key; found: 1"
    }


@pytest.mark.parametrize("form", [Form.POP_PATH, Form.CHALLENGE])
def test_the_form_is_asked_of_the_leaf_on_every_disjoint_path(form: Form) -> None:
    world = guarded_world("A", "B")
    world.grant("A", "s", scope("door/#"))
    world.grant("B", "s", scope("door/#"), forms=[Form.POP])
    assert world.connect("s").allowed
    refused = world.connect("s", form=form)
    assert not refused.allowed
    assert "found: 1" in refused.detail


# --- sentences ----------------------------------------------------------------------------------


def failures_of(world: World, **changes: object) -> list[str]:
    decision = decide_connect(
        world.paths_to("s"),
        replace(world.proof("s"), **changes),  # type: ignore[arg-type]  # fields of a proof
        policy=world.policy,
        freshness=world.freshness,
        now=NOW,
    )
    assert not decision.allowed
    return [decision.detail]


def test_forms_are_told_in_their_order() -> None:
    world = World()
    world.grant("X", "s", scope("a"), forms=[Form.CHALLENGE, Form.POP_PATH, Form.POP])
    assert failures_of(world, form=Form.TLS) == [
        "the grant allows `pop`, `pop_path`, `challenge`, not `tls`"
    ]


def test_audiences_are_told_in_their_order() -> None:
    world = World()
    names = [str(Audience(world.root.domain, f"host-{number}:1")) for number in range(6)]
    world.grant("X", "s", scope("a"), audiences=names)
    assert failures_of(world) == [
        f"the grant is for {', '.join(f'`{one}`' for one in names)}, this is `{world.audience}`"
    ]


def test_a_client_id_rule_is_told_as_it_is_written() -> None:
    world = World()
    world.grant("X", "s", scope("a"), client_id=ClientIdRule(ClientIdMatch.PREFIX, "lamp-"))
    assert failures_of(world, client_id="door") == [
        "the grant allows client id `lamp-*`, not `door`"
    ]


def test_an_evaluation_is_complete_unless_it_says_otherwise() -> None:
    evaluation = Evaluation(paths=(), failures=())
    assert (evaluation.truncated, evaluation.ground) == (False, None)
    world = World()
    world.grants("X -> s")
    found = world.paths_to("s")
    assert found.ground is not None
    assert found == replace(found, ground=None)
    assert "ground" not in repr(found)

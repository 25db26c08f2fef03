"""Decisions: conditions of a CONNECT, rights, leases, and the one way to allow."""

import ast
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import authd
from authd.core import limits
from authd.core.decision import (
    ChallengeResponse,
    ClientCertificate,
    ConnectRequest,
    Credential,
    Effect,
    Evidence,
    Operation,
    PlainPassword,
    Presented,
    Rights,
    SingleStep,
    check_client_id,
    compile_rights,
    conclude,
    deny,
)
from authd.core.grants import ClientIdMatch, ClientIdRule, DomainSubject, Form
from authd.core.paths import Evaluation
from authd.core.policy import DomainPolicy, GuardedPrefix
from authd.core.proofs import Audience
from authd.core.topics import POWER_NODE, Action, make_scope
from authd.errors import FormatError, ReasonCode
from tests.unit.core.world import (
    BOTH,
    DAY,
    ENDPOINT,
    NOW,
    World,
    authority,
    id_of,
    key,
    make_root,
    scope,
)

ANY = ClientIdRule(ClientIdMatch.ANY)


def exact(value: str) -> ClientIdRule:
    return ClientIdRule(ClientIdMatch.EXACT, value)


def prefix(value: str) -> ClientIdRule:
    return ClientIdRule(ClientIdMatch.PREFIX, value)


STEP = SingleStep(b"step")
CHALLENGE = ChallengeResponse(hello=b"hello", nonce=b"nonce", response=b"response")
CERTIFICATE = ClientCertificate(bytes(32))


# --- what a request shows -----------------------------------------------------------------------


def request(**changes: Any) -> ConnectRequest:
    return ConnectRequest(broker="m", client_id="c", username="u", **changes)


def test_a_request_that_shows_nothing_else_is_judged_by_its_password() -> None:
    sent = request(password="p")
    assert sent.credential() == PlainPassword("u", "p")
    assert request().credential() == PlainPassword("u", "")


@pytest.mark.parametrize("shown", [STEP, CHALLENGE, CERTIFICATE])
def test_what_is_shown_outside_of_the_password_is_the_credential(shown: Presented) -> None:
    assert request(presented=shown).credential() is shown


@pytest.mark.parametrize("shown", [STEP, CHALLENGE, CERTIFICATE])
def test_a_password_beside_something_else_is_refused(shown: Presented) -> None:
    with pytest.raises(FormatError, match="a password, and something else"):
        request(password="p", presented=shown).credential()


@pytest.mark.parametrize("shown", [STEP, CHALLENGE])
def test_a_session_goes_on_with_auth_data(shown: Presented) -> None:
    assert request(presented=shown, reauthenticates="session").credential() is shown


@pytest.mark.parametrize("changes", [{}, {"password": "p"}, {"presented": CERTIFICATE}])
def test_a_session_goes_on_with_nothing_else(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="a session goes on with AUTH data alone"):
        request(reauthenticates="session", **changes).credential()


def test_a_request_says_no_more_than_what_was_sent() -> None:
    sent = request()
    assert sent.credential() == PlainPassword("u", "")
    assert (sent.presented, sent.reauthenticates, sent.address, sent.boot) == (None, "", "", "")
    assert (sent.clean, sent.enforces) == (True, frozenset())


@pytest.mark.parametrize(
    "shown",
    [
        PlainPassword("u", "hush"),
        SingleStep(b"hush"),
        ChallengeResponse(hello=b"h", nonce=b"n", response=b"hush"),
    ],
)
def test_no_credential_is_printed(shown: Credential) -> None:
    if isinstance(shown, PlainPassword):
        sent = request(password=shown.password)
    else:
        sent = request(presented=shown)
    assert sent.credential() == shown
    assert "hush" not in f"{shown!r} {sent!r} {sent.credential()}"


# --- what is answered ---------------------------------------------------------------------------


def test_the_verdicts_are_called_as_on_the_wire() -> None:
    assert [one.value for one in Effect] == ["allow", "deny"]
    assert str(deny(ReasonCode.STALE, "why").effect) == "deny"


def test_an_allow_says_what_it_rests_on() -> None:
    world = World()
    (grant,) = world.grants("X -> lamp", scope("a/#"))
    decision = world.connect("lamp")
    assert decision.allowed
    assert (decision.reason, decision.temporary) == (ReasonCode.OK, False)
    assert decision.key == key("lamp").public
    assert decision.rights.keys == {key("X").public, key("lamp").public}
    assert decision.rights.grants == {grant.statement_id}
    assert decision.evidence.form == "pop"
    assert decision.evidence.audience == str(world.audience)
    (path,) = decision.evidence.paths
    assert path["keys"] == [id_of("X"), id_of("lamp")]
    assert decision.evidence.described() == {
        "paths": (path,),
        "matched": "",
        "form": "pop",
        "audience": str(world.audience),
    }


def test_a_deny_without_paths_says_the_first_failure() -> None:
    decision = World().connect("lamp")
    assert (decision.effect, decision.reason) == (Effect.DENY, ReasonCode.UNKNOWN_KEY)
    assert decision.rights == Rights()


def test_a_deny_is_never_called_ok() -> None:
    assert deny(ReasonCode.OK, "by mistake").reason is ReasonCode.INTERNAL
    assert not deny(ReasonCode.OK, "by mistake").allowed
    assert deny(ReasonCode.STALE, "").temporary


# --- conditions of a CONNECT --------------------------------------------------------------------


@pytest.mark.parametrize("form", set(Form) - {Form.POP, Form.POP_PATH, Form.CHALLENGE})
def test_a_form_that_is_not_listed_is_refused(form: Form) -> None:
    world = World()
    world.grants("X -> lamp")
    assert world.connect("lamp", form=form).reason is ReasonCode.FORM_NOT_ALLOWED


def test_the_form_is_the_leaf_grants_business() -> None:
    world = World()
    world.grant("X", "gate", depth=1, forms=[Form.TLS])
    world.grant("gate", "lamp", forms=[Form.COUNTER], audiences=[str(world.audience)])
    assert world.connect("lamp", form=Form.COUNTER).allowed
    assert world.connect("lamp", form=Form.POP).reason is ReasonCode.FORM_NOT_ALLOWED


def test_a_device_password_counts_on_its_own_broker() -> None:
    world = World()
    world.grant(
        "X",
        "lamp",
        forms=[Form.PASSWORD],
        audiences=[str(world.audience)],
        client_id=exact("kitchen"),
    )
    shown: dict[str, Any] = {"form": Form.PASSWORD, "client_id": "kitchen"}
    assert world.connect("lamp", **shown).allowed
    other = Audience(world.root.domain, "other:1883")
    assert world.connect("lamp", audience=other, **shown).reason is ReasonCode.WRONG_AUDIENCE
    assert world.connect("lamp", client_id="kitchen").reason is ReasonCode.FORM_NOT_ALLOWED


def test_a_device_password_does_not_count_across_domains() -> None:
    world = federated(forms=[Form.PASSWORD], audiences=[f"{'A' * 22}/{ENDPOINT}"])
    decision = world.connect("lamp", form=Form.PASSWORD)
    assert decision.reason is ReasonCode.FORM_NOT_ALLOWED
    assert "across domains" in decision.detail


def test_the_audience_of_every_grant_that_has_one_counts() -> None:
    world = World()
    here, there = str(world.audience), f"{'A' * 22}/there:1883"
    world.grant("X", "gate", depth=1, audiences=[there])
    world.grant("gate", "lamp", audiences=[here])
    assert world.connect("lamp").reason is ReasonCode.WRONG_AUDIENCE
    world.grant("X", "gate", depth=1, audiences=[here, there], issued_at=NOW)
    assert world.connect("lamp").allowed


@pytest.mark.parametrize(
    ("rules", "client_id", "allowed"),
    [
        ((None, None), "KEY", True),
        ((None, None), "lamp-1", False),
        ((None, exact("lamp-1")), "lamp-1", True),
        ((None, exact("lamp-1")), "lamp-2", False),
        ((None, exact("lamp-1")), "KEY", True),
        ((prefix("lamp-"), None), "lamp-1", True),
        ((prefix("lamp-"), exact("lamp-1")), "lamp-1", True),
        ((prefix("lamp-"), exact("door-1")), "door-1", False),
        ((prefix("lamp-"), ANY), "door-1", False),
        ((prefix("lamp-"), ANY), "lamp-1", True),
        ((ANY, ANY), "anything", True),
        ((ANY, exact("lamp-1")), "anything", False),
        ((ANY, ANY), "OTHER", False),
    ],
)
def test_client_id_rules_intersect_along_the_path(
    rules: tuple[ClientIdRule | None, ClientIdRule | None], client_id: str, *, allowed: bool
) -> None:
    world = World()
    world.grant("X", "gate", depth=1, client_id=rules[0])
    world.grant("gate", "lamp", client_id=rules[1])
    named = {"KEY": id_of("lamp"), "OTHER": id_of("other")}.get(client_id, client_id)
    decision = world.connect("lamp", client_id=named)
    assert decision.allowed is allowed
    assert allowed or decision.reason is ReasonCode.CLIENT_ID_REFUSED


def federated(*, to_domain: ClientIdRule | None = None, **leaf: Any) -> World:
    world = World()
    foreign = world.add_root(make_root(authority("F"), domain="foreign"))
    world.grant("X", "", to=DomainSubject(foreign.domain), depth=1, client_id=to_domain)
    world.grant("F", "lamp", **leaf)
    return world


def test_any_client_id_is_never_given_across_domains() -> None:
    for world in (federated(client_id=ANY), federated(client_id=ANY, to_domain=ANY)):
        assert world.connect("lamp", client_id="x").reason is ReasonCode.CLIENT_ID_REFUSED
        assert world.connect("lamp").allowed
    world = federated(client_id=ANY, to_domain=prefix("f-"))
    assert world.connect("lamp", client_id="f-1").allowed
    assert not world.connect("lamp", client_id="x").allowed


@pytest.mark.parametrize("client_id", ["", "a/b", "a+b", "#", "\u00e4", "x" * 129, "a\x00"])
def test_an_odd_client_id_is_refused_before_anything_else(client_id: str) -> None:
    refused = check_client_id(client_id)
    assert refused is not None
    assert refused.reason is ReasonCode.CLIENT_ID_REFUSED
    assert check_client_id("lamp-1") is None


# --- rights -------------------------------------------------------------------------------------


def test_rights_answer_publish_subscribe_and_receive() -> None:
    world = World()
    world.grant("X", "lamp", make_scope({"in/#": Action.SUB, "out/+": Action.PUB}))
    rights = world.connect("lamp").rights
    for operation, topic, allowed in (
        (Operation.PUBLISH, "out/1", True),
        (Operation.PUBLISH, "out/+", False),
        (Operation.PUBLISH, "in/1", False),
        (Operation.SUBSCRIBE, "in/#", True),
        (Operation.SUBSCRIBE, "$share/g/in/+", True),
        (Operation.SUBSCRIBE, "#", False),
        (Operation.SUBSCRIBE, "out/1", False),
        (Operation.RECEIVE, "in/1", True),
        (Operation.RECEIVE, "in/+", False),
        (Operation.RECEIVE, "out/1", False),
    ):
        assert (rights.find(operation, topic) is not None) is allowed, (operation, topic)


def test_powers_and_serve_are_no_rights_of_a_client() -> None:
    world = World()
    world.grant("X", "node", scope(POWER_NODE))
    world.grant("X", "server", scope("a/#", actions=Action.SERVE))
    for name in ("node", "server"):
        decision = world.connect(name)
        assert decision.reason is ReasonCode.NOT_GRANTED
        assert not decision.temporary
    world.grant("X", "node", make_scope({POWER_NODE: BOTH, "a": BOTH}), issued_at=NOW)
    entries = world.connect("node").rights.entries
    assert [entry.topic_filter for entry in entries] == ["a"]


def test_a_path_whose_conditions_fail_takes_nothing_from_the_others() -> None:
    world = World(root=make_root(authority("X"), authority("Y")))
    world.grant("X", "lamp", scope("x"), forms=[Form.TLS])
    world.grant("Y", "lamp", scope("y"))
    rights = world.connect("lamp").rights
    assert [entry.topic_filter for entry in rights.entries] == ["y"]
    assert key("X").public not in rights.keys


def test_the_number_of_entries_is_bounded() -> None:
    entries = [authority(f"a{i}") for i in range(5)]
    world = World(root=make_root(*entries))
    for i in range(5):
        world.grant(f"a{i}", "lamp", scope(*(f"{i}/{j}" for j in range(16))))
    assert len(world.connect("lamp").rights.entries) == limits.MAX_COMPILED_FILTERS


# --- leases -------------------------------------------------------------------------------------


def test_the_lease_ends_with_the_path_or_with_the_grace() -> None:
    world = World()
    world.domains[world.root.domain] = DomainPolicy(grace_s=100)
    world.grant("X", "lamp", expires_at=NOW + DAY)
    assert world.connect("lamp").lease_until == NOW + 160
    world.grant("X", "door", expires_at=NOW + 50)
    assert world.connect("door").lease_until == NOW + 50


def test_the_lease_is_the_earliest_end_and_the_rest_stays() -> None:
    world = World(guarded=(GuardedPrefix(topic_filter="door/#", grace_s=5),))
    world.grant("X", "lamp", scope("door/1", "lamp/1"))
    decision = world.connect("lamp")
    assert decision.lease_until == NOW + 65
    kept = decision.rights.without_ended(
        policy=world.policy, freshness=world.freshness, now=NOW + 65
    )
    assert [entry.topic_filter for entry in kept.entries] == ["lamp/1"]
    assert kept.lease_until(policy=world.policy, freshness=world.freshness) == NOW + 3_660


def test_a_guarded_prefix_that_is_stale_refuses_and_explains() -> None:
    world = World(guarded=(GuardedPrefix(topic_filter="door/#", grace_s=0),))
    world.freshness[world.root.domain] = NOW
    world.grant("X", "lamp", scope("door/1"))
    decision = world.connect("lamp")
    assert decision.reason is ReasonCode.STALE
    assert "`door/1`" in decision.detail


def test_a_right_of_a_domain_without_news_has_ended() -> None:
    world = World()
    world.grants("X -> lamp")
    (entry, *_) = world.connect("lamp").rights.entries
    assert entry.ends_at(policy=world.policy, freshness={}) == 0
    assert Rights().lease_until(policy=world.policy, freshness={}) == 0


# --- the one way to allow -----------------------------------------------------------------------


def allowed_by(rights: Rights, **changes: Any) -> bool:
    values: dict[str, Any] = {
        "lease_until": NOW + 1,
        "now": NOW,
        "key": key("lamp").public,
        "evidence": Evidence(),
        **changes,
    }
    return conclude(rights, **values).allowed


def test_conclude_asks_for_a_right_a_lease_and_a_match() -> None:
    world = World()
    world.grants("X -> lamp", scope("a/#"))
    rights = world.connect("lamp").rights
    assert allowed_by(rights)
    assert allowed_by(rights, asked=(Operation.PUBLISH, "a/b"))
    assert not allowed_by(rights, asked=(Operation.PUBLISH, "b"))
    assert not allowed_by(rights, lease_until=NOW)
    assert not allowed_by(Rights())
    assert not allowed_by(replace(rights, entries=()))


def test_a_match_is_told() -> None:
    world = World()
    world.grants("X -> lamp", scope("a/#"))
    decision = world.connect("lamp")
    answer = conclude(
        decision.rights,
        lease_until=decision.lease_until,
        now=NOW,
        key=key("lamp").public,
        evidence=decision.evidence,
        asked=(Operation.SUBSCRIBE, "a/b"),
    )
    assert answer.evidence.matched == "a/#"


def test_a_takeover_gets_in_without_rights_and_may_do_nothing() -> None:
    assert allowed_by(Rights(), takeover=True)
    assert not allowed_by(Rights(), takeover=True, lease_until=NOW)
    assert not allowed_by(Rights(), takeover=True, asked=(Operation.PUBLISH, "a"))


def test_no_paths_compile_to_no_rights() -> None:
    world = World()
    rights, failures = compile_rights(
        Evaluation(paths=(), failures=()),
        world.proof("lamp"),
        policy=world.policy,
        freshness=world.freshness,
        now=NOW,
    )
    assert (rights, failures) == (Rights(), ())


def test_the_verdict_allow_is_written_in_one_place() -> None:
    core = Path(authd.__file__).parent / "core"
    allows = [
        (path.name, function.name)
        for path in core.parent.rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        for keyword in call.keywords
        if ast.unparse(keyword.value) == "Effect.ALLOW"
    ]
    assert allows == [("decision.py", "conclude")]

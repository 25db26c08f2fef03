"""The vectors through the doors: Python, the plugin's socket, go-auth over HTTP, and gRPC.

A daemon knows the device of the vectors; after each proof it allowed, which is used up then, a new
one takes its place. What the Python decision point says, the edges must say, in their own words.
"""

import base64
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import grpc.aio
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from authd.core.claims import Kind
from authd.core.decision import ChallengeResponse, ConnectRequest, Decision, SingleStep
from authd.core.encoding import encode_base64url
from authd.core.grants import ClientIdMatch, ClientIdRule, Form
from authd.core.identity import DomainId, PublicKey
from authd.core.proofs import Audience
from authd.grpc_api.certificates import ensure_certificates
from authd.grpc_api.server import GrpcParts, GrpcServer
from authd.http_api.admin import Admin
from authd.http_api.go_auth import GoAuth
from authd.http_api.plugin import Plugin
from authd.http_api.server import make_app
from authd.observe import Observations
from authd.proto_stubs import decider_pb2 as pb
from authd.proto_stubs import decider_pb2_grpc as pb_grpc
from authd.service.brokers import BrokerEntry, Brokers
from authd.service.issuing import Bundle, encode_bundle
from authd.service.ports import Item
from tests.vectors.make import vectors
from tests.vectors.make_grants import grant
from tests.vectors.make_proofs import ENDPOINT, pop
from tests.vectors.vector import DOMAIN_ID, NOW, Vector
from tests.vectors.weak_keys import SMALL_ORDER, SPECCHECK
from tests.vectors.wire import public
from tests.world import Domain, FakeClock, Site, scope

BOOT = "0" * 16
SECRET = "s" * 22
AUDIENCE = Audience(DomainId(DOMAIN_ID), ENDPOINT)
KINDS = {"m": "mosquitto", "g": "go-auth", "hall": "embedded"}
PROOFS = ("proof", "counter", "single", "response")
# A pop that does not verify is explained where that is possible; it is refused all the same.
SAME = {"wrong_client_id": "bad_signature"}
# Of these cases it is the signature alone that is wrong.
GOOD_KEYS = {"442aad9f089ad9e14647b1ef9099a1ff4798d78589e66f28eca69c11f582a623"}
Verdict = tuple[str, str]
Http = TestClient[web.Request, web.Application]


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a client shows, and how that must end."""

    name: str
    asked: ConnectRequest
    expect: str


def proof_cases() -> Iterator[Case]:
    for vector in vectors():
        if vector.kind in PROOFS:
            yield Case(name=vector.path, asked=request_of(vector), expect=vector.expect)


def request_of(vector: Vector) -> ConnectRequest:
    asked = ConnectRequest(
        broker="m",
        client_id=vector.more["client-id"],
        username=vector.more["username"],
        boot=BOOT,
    )
    match vector.kind:
        case "single":
            return replace(asked, presented=SingleStep(vector.body))
        case "response":
            return replace(
                asked,
                presented=ChallengeResponse(
                    hello=bytes.fromhex(vector.more["hello"]),
                    nonce=bytes.fromhex(vector.more["challenge"])[1:],
                    response=vector.body,
                ),
            )
        case _:
            return replace(asked, password=vector.body.decode("ascii"))


def stapled(name: str, data: bytes, expect: str) -> Case:
    """Staple a grant to a proof that is good without it."""
    username = next(one for one in vectors() if one.kind == "proof").more["username"]
    asked = ConnectRequest(
        broker="m",
        client_id="kitchen",
        username=username,
        password=pop(form=2, stapled=[data]),
        boot=BOOT,
    )
    return Case(name=name, asked=asked, expect=expect)


def grant_cases() -> Iterator[Case]:
    for vector in vectors():
        if vector.kind == "grant":
            yield stapled(vector.path, vector.body, vector.expect)


def weak_cases() -> Iterator[Case]:
    keys = [(key, "00" * 64) for key in SMALL_ORDER] + [one[1:] for one in SPECCHECK]
    for number, (key, signature) in enumerate(keys):
        weak = bytes.fromhex(key)
        by_weak = grant(iss=weak)[:-64] + bytes.fromhex(signature)
        yield stapled(f"issuer {number}", by_weak, "")
        if key not in GOOD_KEYS:
            to_weak = grant(cnf={1: {1: 1, -1: 6, -2: weak}})
            yield stapled(f"subject {number}", to_weak, "")


# --- a daemon for each, and the doors ---------------------------------------------------------


class Doors:
    """The edges in front of one daemon after the other."""

    site: Site

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._count = 0
        self.brokers = Brokers(_entries())

    def renew(self) -> None:
        """Put a daemon behind the doors that has judged nothing yet."""
        if self._count:
            self.site.close()
        self._count += 1
        self.site = Site(
            self._directory, Domain(), name=f"daemon-{self._count}", clock=FakeClock(NOW)
        )
        self.site.service.brokers.replace(_entries())
        self.site.learn(
            self.site.domain.grant(
                PublicKey(public("device")),
                scope(pub="home/kitchen/temp"),
                client_id=ClientIdRule(ClientIdMatch.EXACT, "kitchen"),
                forms=[Form.POP, Form.POP_PATH, Form.CHALLENGE, Form.COUNTER],
                audiences=[str(AUDIENCE)],
            ),
        )

    def renew_after(self, verdict: Verdict) -> None:
        """Put another daemon there if this one has used a proof up."""
        if verdict[0] == "allow":
            self.renew()

    def __getattr__(self, name: str) -> object:
        """Be decision point and session table of the daemon that is there now."""
        service = self.site.service
        owner = service.decider if hasattr(service.decider, name) else service.enforcement
        return getattr(owner, name)


def _entries() -> list[BrokerEntry]:
    return [
        BrokerEntry(name=name, kind=kind, audiences=(AUDIENCE,), secret=SECRET)
        for name, kind in KINDS.items()
    ]


@pytest.fixture
def doors(tmp_path: Path) -> Iterator[Doors]:
    doors = Doors(tmp_path)
    doors.renew()
    yield doors
    doors.site.close()


@pytest.fixture
async def http(doors: Doors) -> AsyncIterator[Http]:
    plugin = Plugin(
        decisions=doors,  # type: ignore[arg-type]  # it hands on
        table=doors,  # type: ignore[arg-type]  # it hands on
        is_broker=lambda name: name == "m",
    )
    go_auth = GoAuth(
        decisions=doors,  # type: ignore[arg-type]  # it hands on
        brokers=doors.brokers,
        observe=Observations().message,
    )
    async with TestClient(TestServer(make_app([plugin, go_auth]))) as client:
        yield client


@pytest.fixture
async def decider(doors: Doors, tmp_path: Path) -> AsyncIterator["pb_grpc.DeciderAsyncStub"]:
    certificates = ensure_certificates(
        tmp_path / "tls", host_names=(), brokers=("hall",), now=int(time.time())
    )
    parts = GrpcParts(
        address="127.0.0.1:0",
        point=doors,  # type: ignore[arg-type]  # it hands on
        certificates=certificates,
        names=lambda: certificates.fingerprints,
        sessions=doors,  # type: ignore[arg-type]  # it hands on
        deadline_s=5.0,
    )
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(GrpcServer(parts))
        files = certificates.brokers["hall"]
        credentials = grpc.ssl_channel_credentials(
            certificates.authority.read_bytes(),
            files.key.read_bytes(),
            files.certificate.read_bytes(),
        )
        channel = grpc.aio.secure_channel(f"127.0.0.1:{server.port}", credentials)
        yield pb_grpc.DeciderStub(await stack.enter_async_context(channel))


# --- how each door is asked -------------------------------------------------------------------


def verdict_of(decision: Decision) -> Verdict:
    if decision.allowed:
        return "allow", ""
    return "later" if decision.temporary else "deny", decision.reason.value


async def ask_python(doors: Doors, asked: ConnectRequest) -> Verdict:
    return verdict_of(await doors.site.service.decider.connect(asked))


async def ask_plugin(http: Http, asked: ConnectRequest) -> Verdict:
    body: dict[str, object] = {
        "broker": "m",
        "boot": BOOT,
        "client_id": asked.client_id,
        "username": asked.username,
        "password": asked.password,
        "clean": True,
        "enforces": [],
    }
    match asked.presented:
        case SingleStep(data):
            body["auth"] = encode_base64url(data)
        case ChallengeResponse() as went:
            body["exchange"] = {
                "hello": encode_base64url(went.hello),
                "nonce": encode_base64url(went.nonce),
                "response": encode_base64url(went.response),
            }
    async with http.post("/v1/plugin/connect", data=json.dumps(body)) as response:
        assert response.status == 200
        answer = await response.json()
    if answer["verdict"] == "allow":
        return "allow", ""
    return "later" if answer["temporary"] else "deny", answer["reason"]


async def ask_go_auth(http: Http, asked: ConnectRequest) -> Verdict:
    body = {"username": asked.username, "password": asked.password, "clientid": asked.client_id}
    async with http.post(f"/b/g.{SECRET}/go-auth/user", json=body) as response:
        answer = await response.json()
        assert answer["ok"] is (response.status == 200)
    if response.status == 200:
        return "allow", ""
    return "later" if response.status == 503 else "deny", answer["reason"]


async def ask_grpc(decider: "pb_grpc.DeciderAsyncStub", asked: ConnectRequest) -> Verdict:
    message = pb.ConnectRequest(
        client_id=asked.client_id,
        username=asked.username,
        password=asked.password,
        clean=True,
        boot=BOOT,
    )
    match asked.presented:
        case SingleStep(data):
            message.auth = data
        case ChallengeResponse() as went:
            message.exchange.hello = went.hello
            message.exchange.nonce = went.nonce
            message.exchange.response = went.response
    decision = (await decider.Connect(message)).decision
    if decision.effect == pb.EFFECT_ALLOW:
        return "allow", ""
    return "later" if decision.temporary else "deny", decision.reason


def expected(case: Case) -> Verdict:
    return ("allow", "") if case.expect == "ok" else ("deny", case.expect)


def in_words_of_a_vector(verdict: Verdict) -> Verdict:
    return verdict[0], SAME.get(verdict[1], verdict[1])


# --- what they say ----------------------------------------------------------------------------

CASES = [*proof_cases(), *grant_cases()]


async def test_every_proof_and_every_stapled_grant_ends_in_python_as_its_vector_says(
    doors: Doors,
) -> None:
    said = {}
    for case in CASES:
        said[case.name] = in_words_of_a_vector(await ask_python(doors, case.asked))
        doors.renew_after(said[case.name])
    assert said == {case.name: expected(case) for case in CASES}


async def test_the_plugins_socket_says_the_same(doors: Doors, http: Http) -> None:
    said = {}
    for case in CASES:
        said[case.name] = in_words_of_a_vector(await ask_plugin(http, case.asked))
        doors.renew_after(said[case.name])
    assert said == {case.name: expected(case) for case in CASES}


async def test_go_auth_says_the_same_of_passwords(doors: Doors, http: Http) -> None:
    passwords = [case for case in CASES if case.asked.presented is None]
    assert {case.name.split("/")[0] for case in passwords} == {"proof", "counter", "grant"}
    said = {}
    for case in passwords:
        said[case.name] = in_words_of_a_vector(await ask_go_auth(http, case.asked))
        doors.renew_after(said[case.name])
    assert said == {case.name: expected(case) for case in passwords}


async def test_grpc_says_the_same(doors: Doors, decider: "pb_grpc.DeciderAsyncStub") -> None:
    said = {}
    for case in CASES:
        said[case.name] = in_words_of_a_vector(await ask_grpc(decider, case.asked))
        doors.renew_after(said[case.name])
    assert said == {case.name: expected(case) for case in CASES}


async def test_a1_a_weak_key_or_a_doubtful_signature_gets_in_by_no_door(
    doors: Doors, http: Http, decider: "pb_grpc.DeciderAsyncStub"
) -> None:
    for case in weak_cases():
        answers = {
            await ask_python(doors, case.asked),
            await ask_plugin(http, case.asked),
            await ask_go_auth(http, case.asked),
            await ask_grpc(decider, case.asked),
        }
        assert len(answers) == 1, (case.name, answers)
        ((effect, reason),) = answers
        if case.name.startswith("issuer"):
            assert (effect, reason) in {("deny", "weak_key"), ("deny", "bad_signature")}, case.name
        else:
            assert (effect, reason) == ("deny", "weak_key"), case.name


async def test_no_statement_that_a_vector_refuses_gets_in_by_the_operators_door(
    doors: Doors,
) -> None:
    async def reload() -> dict[str, object]:
        return {}

    admin = Admin(operator=doors.site.service.operator, reload=reload)
    wrong = []
    async with TestClient(TestServer(make_app([admin]))) as client:
        for vector in vectors():
            if vector.kind.upper() not in Kind.__members__ or vector.expect == "ok":
                continue
            item = Item(Kind[vector.kind.upper()], vector.body)
            bundle = base64.b64encode(encode_bundle(Bundle(statements=(item,)))).decode()
            async with client.post("/v1/admin/submit", json={"bundle": bundle}) as response:
                answer = await response.json()
            # The successor of a root that is not known here is refused for that already.
            if response.status == 200 or answer["reason"] not in (vector.expect, "untrusted"):
                wrong.append((vector.path, answer))
    assert wrong == []

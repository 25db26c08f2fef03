"""The go-auth dialect: every mode, every odd input, and nothing but 2xx for an allow."""

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from authd.core.decision import Decision, deny
from authd.errors import ReasonCode
from tests.unit.http_api.conftest import DEVICE, DEVICE_ID, Client
from tests.world import Site

BASE = "/b/g." + "s" * 22
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
USER, ACL, SUPERUSER = f"{BASE}/go-auth/user", f"{BASE}/go-auth/acl", f"{BASE}/go-auth/superuser"


def credentials(site: Site) -> dict[str, str]:
    proof = site.pop(DEVICE, endpoint="broker:1885")
    return {"username": DEVICE_ID, "password": proof, "clientid": DEVICE_ID}


def asking(acc: object = 2, topic: str = "site/temp") -> dict[str, object]:
    return {"username": DEVICE_ID, "clientid": DEVICE_ID, "topic": topic, "acc": acc}


async def ask(
    client: Client, path: str, body: object, *, method: str = "POST"
) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with client.request(method, path, data=data) as response:
        return response.status, json.loads(await response.read() or b"{}")


@pytest.fixture
async def session(site: Site) -> str:
    decision = await site.connect(DEVICE, broker="g")
    assert decision.allowed
    return decision.session


# --- modes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "GET", "PUT"])
async def test_a_connect_is_allowed_as_json_by_every_method(
    go_auth: Client, site: Site, method: str
) -> None:
    body = json.dumps(credentials(site)).encode()
    async with go_auth.request(
        method, USER, data=body, headers={"Content-Type": "application/json"}
    ) as response:
        assert response.status == 200
        assert await response.json() == {"ok": True, "error": ""}


@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_a_connect_is_allowed_as_a_form(go_auth: Client, site: Site, method: str) -> None:
    body = urlencode(credentials(site)).encode()
    async with go_auth.request(method, USER, data=body, headers=FORM) as response:
        assert response.status == 200


async def test_text_mode_says_ok_and_nothing_else(go_auth: Client, site: Site) -> None:
    path = f"{BASE}/go-auth-text/user"
    async with go_auth.post(path, json=credentials(site)) as response:
        assert (response.status, await response.read()) == (200, b"ok")
    async with go_auth.post(path, json=credentials(site) | {"password": "x"}) as response:
        assert response.status == 400
        assert (await response.read()) != b"ok"


async def test_the_other_spelling_of_a_client_id_is_known_but_not_both(
    go_auth: Client, site: Site
) -> None:
    body = credentials(site)
    body["client_id"] = body.pop("clientid")
    assert (await ask(go_auth, USER, body))[0] == 200
    both = credentials(site) | {"client_id": DEVICE_ID}
    assert (await ask(go_auth, USER, both))[0] == 400


async def test_the_verdict_is_the_status_in_every_case(go_auth: Client, site: Site) -> None:
    used = credentials(site)
    assert (await ask(go_auth, USER, used))[0] == 200
    status, answer = await ask(go_auth, USER, used)
    assert (status, answer["ok"], answer["reason"]) == (403, False, "replayed")
    site.clock.behind = 60
    status, answer = await ask(go_auth, USER, credentials(site))
    assert (status, answer["reason"]) == (503, "stale")


# --- messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("acc", "topic", "status"),
    [
        (1, "site/cmd/on", 200),
        (1, "site/temp", 403),
        (2, "site/temp", 200),
        (2, "site/cmd/on", 403),
        (4, "site/cmd/#", 200),
        (4, "#", 403),
        (4, "$share/g/site/cmd/#", 200),
        (4, "$share/g/#", 403),
        ("2", "site/temp", 200),
        ("4", "site/cmd/+", 200),
    ],
)
async def test_messages_are_decided_by_the_grant(
    go_auth: Client, session: str, acc: object, topic: str, status: int
) -> None:
    assert session
    assert (await ask(go_auth, ACL, asking(acc, topic)))[0] == status


@pytest.mark.parametrize(
    "acc",
    [
        *(0, 3, 5, 6, 7, 8, 16, 17, -1, -2, 2**31, 2**63, 2.0, 4.5, True, False, None, [], {}),
        *("", "0", "3", "02", "+2", " 2", "2 ", "2.0", "0x2", "²", "٢", "1e0", "9999", "-1"),
    ],
    ids=repr,
)
async def test_a46_an_odd_access_code_is_never_allowed(
    go_auth: Client, session: str, acc: object
) -> None:
    assert session
    status, answer = await ask(go_auth, ACL, asking(acc))
    assert status in (400, 403)
    assert answer["ok"] is False


@pytest.mark.parametrize(
    "text", ["NaN", "Infinity", "-Infinity", "1e999", "2" * 5_000], ids=lambda text: text[:10]
)
async def test_a46_an_access_code_that_is_no_json_number_is_never_allowed(
    go_auth: Client, session: str, text: str
) -> None:
    assert session
    body = json.dumps(asking("ACC")).replace('"ACC"', text).encode()
    assert (await ask(go_auth, ACL, body))[0] == 400


async def test_a46_the_form_of_another_dialect_does_not_fit(go_auth: Client, session: str) -> None:
    assert session
    body = asking()
    body["access"] = body.pop("acc")
    assert (await ask(go_auth, ACL, body))[0] == 400


async def test_a_read_that_cannot_be_decided_is_403_and_a_write_503(
    go_auth: Client, site: Site, session: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot(**_asked: object) -> Decision:
        return deny(ReasonCode.OVERLOADED, "busy")

    monkeypatch.setattr(site.service.decider, "authorize", cannot)
    assert (await ask(go_auth, ACL, asking(1)))[0] == 403
    assert (await ask(go_auth, ACL, asking(2)))[0] == 503


async def test_a_message_needs_a_session_of_that_user(go_auth: Client, session: str) -> None:
    assert session
    for change in ({"username": "other"}, {"clientid": "other"}, {"username": ""}):
        status, answer = await ask(go_auth, ACL, asking() | change)
        assert (status, answer["reason"]) == (403, "no_session")


# --- superuser --------------------------------------------------------------------------------


@pytest.mark.parametrize("username", [DEVICE_ID, "admin", "root", "authd-evict", ""])
async def test_nobody_is_a_superuser(go_auth: Client, session: str, username: str) -> None:
    assert session
    status, answer = await ask(go_auth, SUPERUSER, {"username": username})
    assert (status, answer["ok"]) == (403, False)


# --- bodies -----------------------------------------------------------------------------------


def with_duplicate(body: dict[str, str], name: str, *, first: bool) -> bytes:
    pairs = [(key, value) for key, value in body.items() if key != name]
    both = [(name, "attacker"), (name, body[name])]
    members = pairs + (both if first else both[::-1])
    return ("{" + ",".join(f"{json.dumps(k)}:{json.dumps(v)}" for k, v in members) + "}").encode()


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", ["username", "password", "clientid"])
async def test_a46_duplicate_members_are_refused_in_both_orders(
    go_auth: Client, site: Site, name: str, *, first: bool
) -> None:
    body = credentials(site)
    assert (await ask(go_auth, USER, with_duplicate(body, name, first=first)))[0] == 400
    pairs = [*body.items()]
    pairs.insert(0 if first else len(pairs), (name, "attacker"))
    async with go_auth.post(USER, data=urlencode(pairs).encode(), headers=FORM) as response:
        assert response.status == 400
    assert (await ask(go_auth, USER, body))[0] == 200, "nothing was used up"


async def test_a46_an_unescaped_client_id_cannot_bring_fields_of_its_own(
    go_auth: Client, site: Site
) -> None:
    body = credentials(site)
    form = f"username=x&password={body['password']}&clientid=x&username={DEVICE_ID}".encode()
    async with go_auth.post(USER, data=form, headers=FORM) as response:
        assert response.status == 400


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"true",
        b'"text"',
        b"{",
        b"\xff\xfe{}",
        '{"username":"x","password":"y","clientid":"z"}'.encode("utf-16"),
        b'{"username":1}',
        b'{"username":null,"password":"x","clientid":"y"}',
        b'{"username":"\\ud800","password":"x","clientid":"y"}',
        b"[" * 60_000,
        b'{"a":' * 10_000,
    ],
    ids=lambda data: repr(data[:20]),
)
async def test_a46_nonsense_is_400_in_every_place(go_auth: Client, data: bytes) -> None:
    for path in (USER, ACL, SUPERUSER):
        assert (await ask(go_auth, path, data))[0] == 400


@pytest.mark.parametrize("data", [b"username", b"a=%ff", b"\xff=1", b"&" * 50, b"a=1&b=2&" * 20])
async def test_a46_a_nonsense_form_is_400(go_auth: Client, data: bytes) -> None:
    async with go_auth.post(USER, data=data, headers=FORM) as response:
        assert response.status == 400


async def test_a46_unknown_members_are_refused_by_name(go_auth: Client, site: Site) -> None:
    status, answer = await ask(go_auth, USER, credentials(site) | {"is_superuser": "1"})
    assert status == 400
    assert "`is_superuser`" in answer["error"]


async def test_a46_an_oversized_body_is_refused(go_auth: Client, site: Site) -> None:
    body = credentials(site) | {"topic": "x" * 70_000}
    status, answer = await ask(go_auth, USER, body)
    assert (status, answer["ok"]) == (400, False)


async def test_a_body_that_is_not_encoded_as_it_says_is_refused(go_auth: Client) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    async with go_auth.post(USER, data=b"not gzip", headers=headers) as response:
        assert response.status == 400


# --- who asks ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        "g." + "t" * 22,
        "g.",
        "g",
        "." + "s" * 22,
        "nowhere." + "s" * 22,
        "nowhere." + "?" * 22,
        "m." + "s" * 21,
        "%F0%9F%98%80." + "s" * 22,
        "g." + "%ED%A0%80",
    ],
)
async def test_a47_without_the_brokers_secret_nothing_is_answered(
    go_auth: Client, site: Site, place: str
) -> None:
    for what in ("user", "acl", "superuser"):
        status, answer = await ask(go_auth, f"/b/{place}/go-auth/{what}", credentials(site))
        assert status in (400, 403)
        assert answer["ok"] is False
    assert site.observed == [], "nothing was even decided"


@pytest.mark.parametrize("path", ["/", "/b", f"{BASE}/go-auth", f"{BASE}/go-auth/usr", f"{BASE}/x"])
async def test_paths_that_do_not_exist_deny(go_auth: Client, path: str) -> None:
    status, answer = await ask(go_auth, path, {})
    assert (status, answer["ok"]) == (400, False)


async def test_a_proof_for_one_entry_is_not_accepted_at_another(
    go_auth: Client, site: Site
) -> None:
    path = "/b/m." + "s" * 22 + "/go-auth/user"
    status, answer = await ask(go_auth, path, credentials(site))
    assert (status, answer["reason"]) == (403, "wrong_audience")

"""The operator's socket: verbs, and the status of each way to be wrong."""

import base64
import json
from typing import Any

import pytest

from authd.core.encoding import encode_base64url
from authd.core.statements import sign_revoke
from authd.errors import ConfigError
from authd.http_api.admin import Admin
from authd.service.issuing import Bundle, encode_bundle
from authd.service.operator import Answer
from tests.unit.http_api.conftest import DEVICE, DEVICE_ID, Client, Serve
from tests.unit.service.scenes import item
from tests.world import START, Site


@pytest.fixture
async def admin(site: Site, serve: Serve) -> Client:
    async def reload() -> Answer:
        raise ConfigError("`authd.toml`: `x` is unknown")

    return await serve(Admin(operator=site.service.operator, reload=reload))


async def ask(client: Client, verb: str, body: object = None) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
    async with client.post(f"/v1/admin/{verb}", data=data) as response:
        return response.status, await response.json()


def bundle_of(site: Site) -> str:
    revoke = sign_revoke(site.domain.authority, target=DEVICE.public, issued_at=START)
    data = encode_bundle(Bundle(statements=(item(revoke),)))
    return base64.b64encode(data).decode("ascii")


async def test_every_verb_answers(admin: Client, site: Site) -> None:
    key = encode_base64url(DEVICE.public)
    status, answer = await ask(admin, "status")
    assert (status, answer["node"]) == (200, "A")
    status, answer = await ask(admin, "explain", {"key": key, "broker": "m"})
    assert (status, answer["effect"]) == (200, "allow")
    status, answer = await ask(admin, "why", {"key": key})
    assert (status, len(answer["paths"])) == (200, 1)
    assert await ask(admin, "find-key", {"id": DEVICE_ID}) == (200, {"key": key})
    assert await ask(admin, "sessions") == (200, {"sessions": []})
    status, answer = await ask(admin, "submit", {"bundle": bundle_of(site)})
    assert (status, len(answer["accepted"])) == (200, 1)
    status, one = await ask(admin, "revocation", {"id": answer["accepted"][0]})
    assert (status, one["target"]) == (200, DEVICE_ID)
    assert await ask(admin, "revocations") == (200, {"revocations": [one]})


@pytest.mark.parametrize(
    ("verb", "body", "status", "reason"),
    [
        ("nonsense", {}, 404, "not_found"),
        ("status", b"[]", 400, "malformed"),
        ("status", b'{"a":1,"a":2}', 400, "malformed"),
        ("submit", {}, 400, "malformed"),
        ("submit", {"bundle": "%"}, 400, "malformed"),
        ("submit", {"bundle": "ü"}, 400, "malformed"),
        ("submit", {"bundle": "AAAA"}, 400, "malformed"),
        ("submit", {"bundle": "A" * 70_000}, 400, "malformed"),
        ("revocation", {"id": "!"}, 400, "malformed"),
        ("revocation", {"id": "A" * 22}, 404, "not_found"),
        ("why", {"key": "A" * 43}, 403, "weak_key"),
        ("why", {"key": "AA"}, 400, "malformed"),
        ("why", {}, 400, "malformed"),
        ("find-key", {"id": "nobody"}, 404, "not_found"),
        ("explain", {"key": "A" * 43, "broker": "m"}, 403, "weak_key"),
        ("reload", {}, 409, "bad_config"),
    ],
)
async def test_each_error_has_its_status_and_reason(
    admin: Client, verb: str, body: object, status: int, reason: str
) -> None:
    answered, answer = await ask(admin, verb, body)
    assert (answered, answer["reason"], answer["ok"]) == (status, reason, False)


async def test_a_browser_cannot_ask_by_get(admin: Client) -> None:
    async with admin.get("/v1/admin/status") as response:
        assert response.status == 400

"""Strict request bodies, and the one table from reason codes to HTTP statuses."""

import json
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import parse_qsl

import structlog
from aiohttp import hdrs, web
from multidict import CIMultiDict

from authd.errors import AuthdError, FormatError, ReasonCode

MAX_BODY_BYTES: Final = 64 * 1024
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# Everything that is not listed is a policy deny: 403.
STATUS: Final = {
    ReasonCode.OK: 200,
    ReasonCode.MALFORMED: 400,
    ReasonCode.LIMIT_EXCEEDED: 400,
    ReasonCode.NOT_FOUND: 404,
    ReasonCode.CONFLICT: 409,
    ReasonCode.BAD_CONFIG: 409,
}


def status_of(reason: ReasonCode) -> int:
    """Return the HTTP status of a reason: 503 for "cannot decide", 403 for a policy deny."""
    return 503 if reason.temporary else STATUS.get(reason, 403)


_JSON: Final = CIMultiDict({hdrs.CONTENT_TYPE: "application/json; charset=utf-8"})
_ALLOWED: Final = json.dumps({"ok": True, "error": ""}).encode()


def allowed_body() -> web.Response:
    """Build the answer to whoever an allow was decided for: the same bytes each time."""
    return web.Response(body=_ALLOWED, headers=_JSON)


def error_body(reason: ReasonCode, detail: str) -> web.Response:
    """Build an answer that denies in every mode of every dialect."""
    return web.json_response(
        {"ok": False, "reason": reason.value, "error": detail},
        status=status_of(reason),
    )


@web.middleware
async def errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn whatever goes wrong into an answer that denies."""
    try:
        return await handler(request)
    except web.HTTPClientError as error:
        return error_body(ReasonCode.MALFORMED, error.reason.lower())
    except AuthdError as error:
        return error_body(error.reason, str(error))
    except Exception:  # noqa: BLE001 - the one net of this edge: whatever it is, it denies
        # The path itself may hold a broker's secret: only its pattern is logged.
        resource = request.match_info.route.resource
        pattern = resource.canonical if resource else ""
        structlog.get_logger("authd").exception("http handler failed", path=pattern)
        return error_body(ReasonCode.INTERNAL, "internal error")


async def read_json(request: web.Request) -> dict[str, object]:
    """Read a JSON object, whatever the method.

    Raises:
        FormatError: Not UTF-8, not an object, a duplicate member, or too long.
    """
    return parse_json(await read_body(request))


async def read_body(request: web.Request) -> bytes:
    """Read a body of bounded length.

    Raises:
        FormatError: Too long, cut short, or not encoded as it says.
    """
    try:
        return await request.read()
    except web.RequestPayloadError as error:
        raise FormatError("the body is damaged") from error
    except web.HTTPRequestEntityTooLarge as error:
        raise FormatError("the body is too long") from error


def parse_json(data: bytes) -> dict[str, object]:
    """Parse a JSON object without duplicate members.

    Raises:
        FormatError: Anything else.
    """
    try:
        value = _DECODER.decode(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError("the body is not JSON") from error
    if not isinstance(value, dict):
        raise FormatError("the body is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise FormatError("the body has a duplicate member")
    return members


def _refuse(constant: str) -> object:
    raise FormatError(f"`{constant}` is not JSON")


# One for all: making one takes as long as reading a body with it.
_DECODER: Final = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_refuse)


def parse_form(data: bytes) -> dict[str, object]:
    """Parse an ``application/x-www-form-urlencoded`` body without duplicate fields.

    Raises:
        FormatError: Anything else.
    """
    try:
        pairs = parse_qsl(
            data.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=16,
        )
    except ValueError as error:
        raise FormatError("the body is not a form") from error
    return _unique([(name, value) for name, value in pairs])


def text_member(body: dict[str, object], name: str, default: str | None = None) -> str:
    """Take a text member.

    Raises:
        FormatError: Missing or of another type.
    """
    value = body.get(name, default)
    if not isinstance(value, str):
        raise FormatError(f"`{name}` is missing or not a text")
    if value.isascii():
        return value
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise FormatError(f"`{name}` holds half of a surrogate pair") from error
    return value


def texts_member(body: dict[str, object], name: str) -> list[str]:
    """Take an array of texts; empty if it is missing. What is in them is not looked at.

    Raises:
        FormatError: Of another type.
    """
    value = body.get(name, [])
    if isinstance(value, list):
        texts = [one for one in value if isinstance(one, str)]
        if len(texts) == len(value):
            return texts
    raise FormatError(f"`{name}` is not an array of texts")


def count_member(body: dict[str, object], name: str) -> int:
    """Take a whole number of at least 0; 0 if it is missing.

    Raises:
        FormatError: Of another type, or negative.
    """
    value = body.get(name, 0)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise FormatError(f"`{name}` is not a whole number of at least 0")
    return value


def check_members(body: dict[str, object], allowed: frozenset[str]) -> None:
    """Refuse members that are not known.

    Raises:
        FormatError: Names the first of them.
    """
    if not body.keys() <= allowed:
        unknown = min(body.keys() - allowed)
        raise FormatError(f"unknown member `{unknown[:32]}`")

"""The HTTP backend of mosquitto-go-auth, exact on the wire.

Allow is 200, a policy deny 403, nonsense 400, "cannot decide" 503: a caller in ``status`` mode
looks at nothing else, one in ``json`` mode reads ``ok``. One in ``text`` mode wants the body
``ok``, which nothing in a request announces, so it has a path of its own. A READ that cannot be
decided is 403: the caller punishes the publisher, not the subscriber, for an error there. Nobody
is a superuser.
"""

from collections.abc import Callable
from typing import Final

from aiohttp import web

from authd.core.decision import ConnectRequest, Decision, Operation
from authd.errors import FormatError, ReasonCode
from authd.http_api.bodies import (
    allowed_body,
    check_members,
    error_body,
    parse_form,
    parse_json,
    read_body,
    text_member,
)
from authd.service.brokers import BrokerEntry, Brokers
from authd.service.ports import DecisionPoint

READ: Final = 1
WRITE: Final = 2
SUBSCRIBE: Final = 4
_OPERATIONS: Final = {
    READ: Operation.RECEIVE,
    WRITE: Operation.PUBLISH,
    SUBSCRIBE: Operation.SUBSCRIBE,
}
_MEMBERS: Final = frozenset({"username", "password", "clientid", "client_id", "topic", "acc"})
_MAX_ACC_CHARS: Final = 3


class GoAuth:
    """Handlers for ``/b/<id>.<secret>/go-auth/{user,superuser,acl}`` and ``…/go-auth-text/…``."""

    def __init__(
        self,
        *,
        decisions: DecisionPoint,
        brokers: Brokers,
        observe: Callable[[str, Decision], None],
    ) -> None:
        """Wire the parts."""
        self._decisions = decisions
        self._brokers = brokers
        self._observe = observe

    def add_routes(self, app: web.Application) -> None:
        """Add the paths, for every method that a caller may use."""
        for dialect in ("go-auth", "go-auth-text"):
            prefix = f"/b/{{place}}/{{dialect:{dialect}}}"
            # They are tried in this order: what is asked for every message stands first.
            app.router.add_route("*", f"{prefix}/acl", self.acl)
            app.router.add_route("*", f"{prefix}/user", self.user)
            app.router.add_route("*", f"{prefix}/superuser", self.superuser)

    async def user(self, request: web.Request) -> web.Response:
        """Decide a CONNECT."""
        entry = self._entry(request)
        if entry is None:
            return _unknown_broker()
        body = await _read(request)
        decision = await self._decisions.connect(
            ConnectRequest(
                broker=entry.name,
                client_id=_client_id(body),
                username=text_member(body, "username"),
                password=text_member(body, "password"),
                # Such a broker does not tell us when a session ends.
                clean=False,
            ),
        )
        return _answer(request, decision)

    async def superuser(self, request: web.Request) -> web.Response:
        """Say no: a superuser would skip every further check."""
        if self._entry(request) is None:
            return _unknown_broker()
        text_member(await _read(request), "username")
        return error_body(ReasonCode.NOT_GRANTED, "nobody is a superuser")

    async def acl(self, request: web.Request) -> web.Response:
        """Decide one message or subscription."""
        entry = self._entry(request)
        if entry is None:
            return _unknown_broker()
        body = await _read(request)
        acc = _parse_acc(body.get("acc"))
        operation = _OPERATIONS.get(acc)
        if operation is None:
            return error_body(ReasonCode.NOT_GRANTED, f"access `{acc}` is never granted")
        decision = self._decisions.authorize(
            broker=entry.name,
            client_id=_client_id(body),
            operation=operation,
            topic=text_member(body, "topic"),
            username=text_member(body, "username"),
        )
        self._observe(entry.name, decision)
        if decision.temporary and acc == READ:
            return error_body(ReasonCode.NOT_GRANTED, decision.detail)
        return _answer(request, decision)

    def _entry(self, request: web.Request) -> BrokerEntry | None:
        return self._brokers.authenticate(request.match_info["place"])


def _unknown_broker() -> web.Response:
    return error_body(ReasonCode.UNKNOWN_BROKER, "no broker entry has this id and secret")


async def _read(request: web.Request) -> dict[str, object]:
    data = await read_body(request)
    form = request.content_type == "application/x-www-form-urlencoded"
    body = parse_form(data) if form else parse_json(data)
    check_members(body, _MEMBERS)
    return body


def _client_id(body: dict[str, object]) -> str:
    if "clientid" in body and "client_id" in body:
        raise FormatError("both `clientid` and `client_id` are there")
    return text_member(body, "client_id" if "client_id" in body else "clientid")


def _parse_acc(value: object) -> int:
    """Read an access code: a JSON number or a decimal string.

    Raises:
        FormatError: Neither, or a fraction.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if (
        isinstance(value, str)
        and value.isascii()
        and value.isdigit()
        and len(value) <= _MAX_ACC_CHARS
        and str(int(value)) == value
    ):
        return int(value)
    raise FormatError("`acc` is missing or not a whole number")


def _answer(request: web.Request, decision: Decision) -> web.Response:
    if not decision.allowed:
        return error_body(decision.reason, decision.detail)
    if request.match_info["dialect"] == "go-auth-text":
        return web.Response(text="ok")
    return allowed_body()

"""The operator's socket: JSON requests of the command line, over a Unix socket of mode 0600."""

import base64
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from authd.core.encoding import decode_base64url
from authd.errors import FormatError, NotFoundError
from authd.http_api.bodies import read_json, text_member
from authd.service.operator import Answer, Operator

_Body = dict[str, object]


class Admin:
    """Handlers for ``POST /v1/admin/<verb>``."""

    def __init__(self, *, operator: Operator, reload: Callable[[], Awaitable[Answer]]) -> None:
        """Wire the parts; ``reload`` reads the configuration again."""
        self._operator = operator
        self._reload = reload
        self._verbs: Final[dict[str, Callable[[_Body], Awaitable[Answer]]]] = {
            "status": self._status,
            "submit": self._submit,
            "revocations": self._revocations,
            "revocation": self._revocation,
            "sessions": self._sessions,
            "explain": self._explain,
            "why": self._why,
            "find-key": self._find_key,
            "reload": self._reload_config,
        }

    def add_routes(self, app: web.Application) -> None:
        """Add the path."""
        app.router.add_post("/v1/admin/{verb}", self.handle)

    async def handle(self, request: web.Request) -> web.Response:
        """Carry out one verb."""
        verb = self._verbs.get(request.match_info["verb"])
        if verb is None:
            raise NotFoundError("no such admin request")
        return web.json_response(await verb(await read_json(request)))

    async def _status(self, _body: _Body) -> Answer:
        return self._operator.status()

    async def _submit(self, body: _Body) -> Answer:
        try:
            bundle = base64.b64decode(text_member(body, "bundle"), validate=True)
        except ValueError as error:
            raise FormatError("`bundle` is not base64") from error
        return await self._operator.submit(bundle)

    async def _revocations(self, _body: _Body) -> Answer:
        return self._operator.revocations()

    async def _revocation(self, body: _Body) -> Answer:
        return self._operator.revocation(decode_base64url(text_member(body, "id")))

    async def _sessions(self, _body: _Body) -> Answer:
        return self._operator.sessions()

    async def _explain(self, body: _Body) -> Answer:
        return self._operator.explain(
            key=decode_base64url(text_member(body, "key")),
            broker=text_member(body, "broker"),
            client_id=text_member(body, "client_id", ""),
            form=text_member(body, "form", "pop"),
            operation=text_member(body, "operation", ""),
            topic=text_member(body, "topic", ""),
        )

    async def _why(self, body: _Body) -> Answer:
        key = decode_base64url(text_member(body, "key"))
        return self._operator.why(key, certificate=body.get("certificate") is True)

    async def _find_key(self, body: _Body) -> Answer:
        return self._operator.find_key(text_member(body, "id"))

    async def _reload_config(self, _body: _Body) -> Answer:
        return await self._reload()

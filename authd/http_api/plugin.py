"""The broker socket (`docs/spec/broker-socket.md`): decisions and events for a native plugin."""

import asyncio
import json
import re
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import aclosing
from typing import Final, Protocol

import structlog
from aiohttp import web

from authd.core.decision import (
    ChallengeResponse,
    ClientCertificate,
    ConnectRequest,
    Presented,
    SingleStep,
)
from authd.core.encoding import decode_base64url
from authd.errors import AuthdError, FormatError, ReasonCode
from authd.http_api.bodies import check_members, count_member, read_json, text_member, texts_member
from authd.service.events import BEAT_S, Part, Preparing, Slice
from authd.service.leftovers import Retained, check_retained
from authd.service.ports import DecisionPoint, HeldClient, SessionEvent, SessionReport

_BOOT: Final = re.compile(r"[0-9a-f]{16}")
_CONNECT: Final = frozenset(
    {
        "broker",
        "boot",
        "client_id",
        "username",
        "password",
        "address",
        "protocol",
        "clean",
        "enforces",
        "auth",
        "exchange",
        "certificate",
        "reauthenticates",
    },
)
_PRESENTED: Final = ("auth", "exchange", "certificate")
_EXCHANGE: Final = frozenset({"hello", "nonce", "response"})
_MAX_ENTRIES: Final = 500
_WRITE_TIMEOUT_S: Final = 10.0
# The plugin of an idle broker reads ten times a second: what a socket holds would be little.
_WRITTEN_AHEAD_BYTES: Final = 4 << 20
# A write would tell that a plugin has left; in silence that is the beat's, seconds later.
_LOOK_S: Final = 0.5
# Of the event loop. As many as it takes to read a question and to answer it.
_TURNS: Final = 6


class SessionTable(Protocol):
    """What the plugin reports to, and is described sessions by."""

    def attach(self, broker: str, *, boot: str) -> AsyncGenerator[Part, None]:
        """Stream a snapshot in parts, then each change; ends when replaced."""
        ...

    def sync(self, broker: str, clients: Iterable[HeldClient], *, boot: str) -> list[str]:
        """Return the client ids that are to be dropped."""
        ...

    def report(self, broker: str, report: SessionReport) -> None:
        """Take in what happened to a session."""
        ...

    def readmitted(
        self,
        broker: str,
        *,
        client_id: str,
        session_id: str,
        boot: str,
        proof: str,
        clean: bool,
    ) -> None:
        """Take in that the plugin let a client back in by itself."""
        ...

    def describe(self, broker: str, client_id: str) -> dict[str, object] | None:
        """Write down the session of a client, with ``n`` and ``run``; None without one."""
        ...


class Plugin:
    """Handlers for ``/v1/plugin/…``."""

    def __init__(
        self,
        *,
        decisions: DecisionPoint,
        table: SessionTable,
        is_broker: Callable[[str], bool],
    ) -> None:
        """Wire the parts; ``is_broker`` says whether an entry of that name takes a plugin."""
        self._decisions = decisions
        self._table = table
        self._is_broker = is_broker

    def add_routes(self, app: web.Application) -> None:
        """Add the paths."""
        app.router.add_post("/v1/plugin/connect", self.connect)
        app.router.add_get("/v1/plugin/events", self.events)
        app.router.add_post("/v1/plugin/sync", self.sync)
        app.router.add_post("/v1/plugin/session", self.session)

    async def connect(self, request: web.Request) -> web.Response:
        """Decide one CONNECT packet; the verdict is in the body, the status is 200."""
        body = await read_json(request)
        check_members(body, _CONNECT)
        asked = self._parse_connect(body)
        self._check_broker(asked.broker)
        decision = await self._decisions.connect(asked)
        if not decision.allowed:
            return web.json_response(
                {
                    "verdict": "deny",
                    "reason": decision.reason.value,
                    "detail": decision.detail,
                    "temporary": decision.temporary,
                },
            )
        described = self._table.describe(asked.broker, asked.client_id)
        if described is None:
            # Cut again between the verdict and here.
            return web.json_response(
                {
                    "verdict": "deny",
                    "reason": ReasonCode.NO_SESSION.value,
                    "detail": "the session ended before it began",
                    "temporary": True,
                },
            )
        return web.json_response({"verdict": "allow", **described})

    def _parse_connect(self, body: dict[str, object]) -> ConnectRequest:
        enforces = body.get("enforces")
        clean = body.get("clean")
        if not isinstance(enforces, list) or not isinstance(clean, bool):
            raise FormatError("`enforces` is not a list or `clean` not a truth value")
        asked = ConnectRequest(
            broker=text_member(body, "broker"),
            boot=_boot(text_member(body, "boot")),
            client_id=text_member(body, "client_id"),
            username=text_member(body, "username"),
            password=text_member(body, "password"),
            presented=_presented(body),
            reauthenticates=text_member(body, "reauthenticates", ""),
            address=text_member(body, "address", ""),
            clean=clean,
            enforces=frozenset(item for item in enforces if isinstance(item, str)),
        )
        asked.credential()
        return asked

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Stream events as lines of JSON until the plugin leaves or a newer stream begins."""
        broker = request.query.get("broker", "")
        boot = _boot(request.query.get("boot", ""))
        self._check_broker(broker)
        response = web.StreamResponse()
        response.content_type = "application/x-ndjson"
        await response.prepare(request)
        if request.transport is not None:
            request.transport.set_write_buffer_limits(high=_WRITTEN_AHEAD_BYTES)
        parts = self._table.attach(broker, boot=boot)
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(_write_all(response, parts), name=f"events of {broker}")
            while not writing.done() and request.transport is not None:
                await asyncio.wait({writing}, timeout=_LOOK_S)
            writing.cancel()
        return response

    async def sync(self, request: web.Request) -> web.Response:
        """Compare the plugin's clients with our table."""
        body = await read_json(request)
        check_members(body, frozenset({"broker", "boot", "clients"}))
        clients = [
            HeldClient(
                client_id=text_member(entry, "client_id"),
                session_id=text_member(entry, "session"),
                key=text_member(entry, "key"),
                online=entry.get("online") is True,
            )
            for entry in _entries(body, "clients")
        ]
        boot = _boot(text_member(body, "boot"))
        drop = self._table.sync(self._broker(body), clients, boot=boot)
        return web.json_response({"drop": drop, "keep": len(clients) - len(drop)})

    async def session(self, request: web.Request) -> web.Response:
        """Take in what happened to sessions."""
        body = await read_json(request)
        check_members(body, frozenset({"broker", "boot", "events"}))
        broker, boot = self._broker(body), text_member(body, "boot")
        for entry in _entries(body, "events"):
            self._report(broker, boot, entry)
        return web.json_response({"ok": True})

    def _report(self, broker: str, boot: str, entry: dict[str, object]) -> None:
        client_id, session_id = text_member(entry, "client_id"), text_member(entry, "session")
        what = text_member(entry, "what")
        if what != "readmitted":
            retained = _retained(entry)
            report = SessionReport(
                client_id=client_id, session_id=session_id, what=what, retained=retained
            )
            self._table.report(broker, report)
            return
        self._table.readmitted(
            broker,
            client_id=client_id,
            session_id=session_id,
            boot=boot,
            proof=text_member(entry, "proof"),
            clean=entry.get("clean") is not False,
        )

    def _broker(self, body: dict[str, object]) -> str:
        _boot(text_member(body, "boot"))
        broker = text_member(body, "broker")
        self._check_broker(broker)
        return broker

    def _check_broker(self, broker: str) -> None:
        if not self._is_broker(broker):
            raise FormatError(f"no broker entry for a plugin is called `{broker[:32]}`")


def _boot(text: str) -> str:
    if not _BOOT.fullmatch(text):
        raise FormatError("`boot` is not 16 lower-case hexadecimal digits")
    return text


def _presented(body: dict[str, object]) -> Presented | None:
    """Read what was shown outside of user name and password.

    Raises:
        FormatError: Malformed, or more than one thing.
    """
    given = [name for name in _PRESENTED if name in body]
    if len(given) > 1:
        raise FormatError(f"`{given[0]}` and `{given[1]}` are there: one credential is judged")
    if "auth" in body:
        return SingleStep(_bytes_member(body, "auth"))
    if "certificate" in body:
        return ClientCertificate(_bytes_member(body, "certificate"))
    exchange = body.get("exchange")
    if exchange is None and "exchange" not in body:
        return None
    if not isinstance(exchange, dict):
        raise FormatError("`exchange` is not an object")
    check_members(exchange, _EXCHANGE)
    return ChallengeResponse(
        hello=_bytes_member(exchange, "hello"),
        nonce=_bytes_member(exchange, "nonce"),
        response=_bytes_member(exchange, "response"),
    )


def _bytes_member(body: dict[str, object], name: str) -> bytes:
    return decode_base64url(text_member(body, name))


def _retained(entry: dict[str, object]) -> Retained:
    """Read what a session left behind; topics are a client's choice and never refused.

    Raises:
        FormatError: Not an array of texts, or not a count.
    """
    return check_retained(texts_member(entry, "retained"), count_member(entry, "retained_more"))


def _entries(body: dict[str, object], name: str) -> list[dict[str, object]]:
    entries = body.get(name)
    if not isinstance(entries, list) or len(entries) > _MAX_ENTRIES:
        raise FormatError(f"`{name}` is not a list of at most {_MAX_ENTRIES} entries")
    objects = [entry for entry in entries if isinstance(entry, dict)]
    if len(objects) != len(entries):
        raise FormatError(f"`{name}` holds something that is not an object")
    return objects


async def _write_all(response: web.StreamResponse, parts: AsyncGenerator[Part, None]) -> None:
    lines = _Lines()
    try:
        async with aclosing(parts):
            async for part in parts:
                if text := lines.text(part):
                    async with asyncio.timeout(_WRITE_TIMEOUT_S):
                        await response.write(text)
                if not isinstance(part, SessionEvent):
                    # There may be thousands of these, and whoever waits for an answer goes first.
                    for _ in range(_TURNS):
                        await asyncio.sleep(0)
    except (TimeoutError, ConnectionError):
        return
    except AuthdError as error:
        # A line that is cut off is worth nothing to the plugin, which comes back for another.
        structlog.get_logger("authd").warning("event stream ended", why=str(error))
    await response.write_eof()


class _Lines:
    """What is written of one stream: lines of JSON, a snapshot's in as many pieces as it has."""

    def __init__(self) -> None:
        self._member = ""
        self._separator = ""
        self._heard_at = asyncio.get_running_loop().time()

    def text(self, part: Part) -> bytes:
        """Return the next bytes; none if there is nothing to say yet."""
        match part:
            case SessionEvent(kind="snapshot"):
                # Its lists follow, and the end of the line after them.
                return _frame(part)[:-1]
            case SessionEvent():
                return _frame(part) + b"\n"
            case Slice():
                return self._slice(part)
            case Preparing():
                return self._sign_of_life()

    def _slice(self, part: Slice) -> bytes:
        text = _ENCODER.encode(part.entries)[1:-1]
        if part.member != self._member:
            text = f'{"]" if self._member else ""},"{part.member}":[{text}'
            self._member, self._separator = part.member, "," if part.entries else ""
        elif part.entries:
            text, self._separator = self._separator + text, ","
        return (text + "]}\n" * part.last).encode()

    def _sign_of_life(self) -> bytes:
        now = asyncio.get_running_loop().time()
        if now - self._heard_at < BEAT_S:
            return b""
        self._heard_at = now
        return b"\n"


# One for all: making one takes as long as writing a session with it.
_ENCODER: Final = json.JSONEncoder(separators=(",", ":"))


def _frame(event: SessionEvent) -> bytes:
    return _ENCODER.encode({"type": event.kind, "n": event.number, **event.body}).encode()

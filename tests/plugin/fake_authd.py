"""A scriptable stand-in for the daemon's side of the broker socket.

It answers on a thread of its own, so that a test can block on an MQTT client meanwhile. It judges
next to nothing: `decide` is whatever the test says, and by default every client gets `RIGHTS`. It
does insist on requests of the form the contract has, and on each proof being used once.
"""

import asyncio
import base64
import contextlib
import json
import secrets
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias, TypeVar

from aiohttp import web

Json: TypeAlias = dict[str, Any]
_T = TypeVar("_T")
PUB, SUB = 1, 2
RIGHTS: tuple[Json, ...] = ({"filter": "site/#", "actions": PUB | SUB},)
WAIT_S = 5.0
OVERTAKE_S = 0.01
REQUEST_MAX_BYTES = 64 * 1024
REQUIRED = {
    *("broker", "boot", "client_id", "username", "password", "address", "protocol", "clean"),
    "enforces",
}
CREDENTIALS = {"auth", "exchange", "certificate"}


@dataclass(kw_only=True)
class Session:
    """A session the stand-in has allowed."""

    client_id: str
    session: str
    key: str
    rights: list[Json]
    lease_ms: int = 60_000
    will: str = "suppress"
    verify: Json | None = None
    offline: bool = False

    def as_json(self) -> Json:
        """Write it as snapshots and `set` have it."""
        return {n: v for n, v in vars(self).items() if v is not None and v is not False}


@dataclass(kw_only=True)
class Allow:
    """Say yes. `key` None: the key id that the credential claims, or the user name."""

    rights: tuple[Json, ...] = RIGHTS
    lease_ms: int = 60_000
    will: str = "suppress"
    key: str | None = None
    verify: Json | None = None


@dataclass(kw_only=True)
class Deny:
    """Say no."""

    reason: str = "revoked"
    detail: str = "the grant is revoked"
    temporary: bool = False


@dataclass(kw_only=True)
class Raw:
    """Say something else: any status, any body."""

    status: int = 200
    body: str = ""


Verdict: TypeAlias = Allow | Deny | Raw
Decide: TypeAlias = Callable[[Json], Verdict]


def text(data: bytes) -> str:
    """Write bytes as the wire has them."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def raw(data: str) -> bytes:
    """Read what `text` wrote."""
    return base64.urlsafe_b64decode(data + "=" * (-len(data) % 4))


def is_well_formed(question: Json) -> bool:
    """Say whether a connect request has the form of the contract: one credential, known members."""
    shown = CREDENTIALS & question.keys()
    exchange = question.get("exchange", {"hello": "", "nonce": "", "response": ""})
    return (
        question.keys() - CREDENTIALS - {"reauthenticates"} == REQUIRED
        and len(shown) + (question["password"] != "") == 1
        and exchange.keys() == {"hello", "nonce", "response"}
    )


def claimed_key(question: Json) -> str:
    """Return the key id that a question is about; a certificate's is made up from its digest."""
    if "certificate" in question:
        return text(raw(question["certificate"])[:16])
    data = question.get("auth") or question.get("exchange", {}).get("hello")
    return text(raw(data)[1:17]) if data else str(question["username"])


def proof_of(question: Json) -> str | None:
    """Return key id and nonce of a pop, as `seen` has them; None for other credentials."""
    head = question["password"].partition(".")[0]
    if len(head) in (104, 126):
        return text(raw(question["username"]) + raw(head)[6:14])
    if "auth" in question:
        data = raw(question["auth"])
        return text(data[1:17] + data[22:30])
    return None


def key_id() -> str:
    """Draw something of the shape of a key id."""
    return secrets.token_urlsafe(16)


def rights(*entries: tuple[str, int]) -> Allow:
    """Allow with these filters."""
    return Allow(rights=tuple({"filter": name, "actions": actions} for name, actions in entries))


def by_client(**answers: Allow) -> Decide:
    """Decide by client id."""
    return lambda question: answers[question["client_id"]]


@dataclass(kw_only=True)
class FakeAuthd:
    """The stand-in; use it as a context manager."""

    path: Path
    decide: Decide = lambda _question: Allow()
    hang: bool = False
    delay_s: float = 0.0
    ahead: int = 0
    overtake: Callable[[Json], None] | None = None
    refuse_streams: bool = False
    holds_back: int = 0
    beat_s: float = 5.0
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    n: int = 0
    questions: list[Json] = field(default_factory=list)
    reports: list[Json] = field(default_factory=list)
    synced: list[Json] = field(default_factory=list)
    drop: set[str] = field(default_factory=set)
    sessions: dict[str, Session] = field(default_factory=dict)
    seen: set[str] = field(default_factory=set)
    keys: dict[str, str] = field(default_factory=dict)
    malformed: list[Json] = field(default_factory=list)
    streams: int = 0
    boots: set[str] = field(default_factory=set)
    agents: set[str] = field(default_factory=set)

    def __enter__(self) -> Self:
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake-authd")
        self._thread.start()
        self._live: asyncio.Queue[str] | None = None
        self._let_go = asyncio.Event()
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        assert not self.malformed, "a question was not of the form the contract has"

    # --- from the test's thread ---

    def start(self) -> None:
        """Listen. A restarted stand-in is a new run of the daemon only if the test says so."""
        self._on_loop(self._start())

    def stop(self) -> None:
        """Close the socket and every connection."""
        self._on_loop(self._stop())

    def restart_as_new_run(self) -> None:
        """Forget everything, as a daemon process that dies and comes back."""
        self.stop()
        self.run, self.n = secrets.token_hex(8), 0
        self.start()

    def send(self, kind: str, /, **members: object) -> None:
        """Number an event and send it."""
        self.n += 1
        self.send_line(json.dumps({"type": kind, "n": self.n, **members}))

    def send_line(self, line: str) -> None:
        """Send a line as it is."""
        self._loop.call_soon_threadsafe(self._put, line)

    def cut(
        self, *, key: str, client_id: str = "", session: str = "", will: str = "suppress"
    ) -> None:
        """Send a cut and forget what it hits."""
        for known in [s for s in self.sessions.values() if s.key == key]:
            if session in ("", known.session):
                self.sessions.pop(known.session)
        self.send("cut", key=key, client_id=client_id, session=session, will=will, reason="revoked")

    def let_go(self) -> None:
        """Write the `holds_back` last bytes of a snapshot, which wait for this."""
        self._loop.call_soon_threadsafe(self._let_go.set)

    def end_stream(self) -> None:
        """End the event stream as a crash would."""
        self._loop.call_soon_threadsafe(self._put, "")

    def session_of(self, client_id: str) -> Session:
        """Return the newest session of a client."""
        return [s for s in self.sessions.values() if s.client_id == client_id][-1]

    def reported(self, what: str, client_id: str) -> bool:
        """Say whether such a report has come."""
        return any(r["what"] == what and r["client_id"] == client_id for r in self.reports)

    def left_behind(self, what: str, client_id: str) -> tuple[list[str], int]:
        """Return what the newest report of a sort about a client says it left behind."""
        told = [r for r in self.reports if r["what"] == what and r["client_id"] == client_id][-1]
        assert "retained" not in told or len(told["retained"]) + told["retained_more"] > 0
        return told.get("retained", []), told.get("retained_more", 0)

    def wait_for(self, claim: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
        """Wait until something the stand-in has seen makes `claim` true."""
        with self._changed:
            assert self._changed.wait_for(claim, timeout_s), "it did not happen in time"

    def wait_report(self, what: str, client_id: str) -> None:
        """Wait for a report about a client."""
        self.wait_for(lambda: self.reported(what, client_id))

    def wait_streams(self, count: int) -> None:
        """Wait until the plugin has opened its `count`-th event stream."""
        self.wait_for(lambda: self.streams >= count)

    # --- on the loop's thread ---

    def _on_loop(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        future: Future[_T] = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        return future.result(WAIT_S)

    async def _start(self) -> None:
        self._stopping = asyncio.Event()
        app = web.Application(client_max_size=REQUEST_MAX_BYTES)
        app.router.add_post("/v1/plugin/connect", self._connect)
        app.router.add_get("/v1/plugin/events", self._events)
        app.router.add_post("/v1/plugin/sync", self._sync)
        app.router.add_post("/v1/plugin/session", self._session)
        self._runner = web.AppRunner(app, shutdown_timeout=0.0)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(self.path)).start()

    async def _stop(self) -> None:
        self._stopping.set()
        if self._live is not None:
            self._live.put_nowait("")
            await asyncio.sleep(0)
        for site in list(self._runner.sites):
            await site.stop()
        await asyncio.sleep(0.02)  # a connection that was just accepted is closed by the next line
        await self._runner.cleanup()

    def _put(self, line: str) -> None:
        if self._live is not None:
            self._live.put_nowait(line)

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        question = await request.json()
        self.agents.add(request.headers.get("User-Agent", ""))
        self.questions.append({**question, "at": time.monotonic()})
        self._notify()
        if self.hang:
            await self._stopping.wait()
        await asyncio.sleep(self.delay_s)
        if not is_well_formed(question):
            self.malformed.append(question)
            return web.Response(status=400)
        answer = self._answer(question, self._once(question, self.decide(question)))
        if self.overtake is not None:
            self.overtake(question)  # what it sends is newer than the answer, and there before it
            await asyncio.sleep(OVERTAKE_S)
        return answer

    def _once(self, question: Json, verdict: Verdict) -> Verdict:
        proof = proof_of(question)
        if question.get("reauthenticates") not in (None, *self.sessions):
            return Deny(reason="no_session", detail="the session has ended")
        if not isinstance(verdict, Allow) or proof is None:
            return verdict
        if proof in self.seen:
            return Deny(reason="replayed", detail="the proof was used before")
        self.seen.add(proof)
        return verdict

    def _answer(self, question: Json, verdict: Verdict) -> web.Response:
        match verdict:
            case Allow():
                return web.json_response(self._allow(question, verdict))
            case Deny():
                return web.json_response({"verdict": "deny", **vars(verdict)})
            case Raw():
                return web.Response(status=verdict.status, text=verdict.body)

    def _allow(self, question: Json, verdict: Allow) -> Json:
        session = Session(
            client_id=question["client_id"],
            session=question.get("reauthenticates") or secrets.token_urlsafe(8),
            key=verdict.key or claimed_key(question),
            rights=list(verdict.rights),
            lease_ms=verdict.lease_ms,
            will=verdict.will,
            verify=verdict.verify,
        )
        self.sessions[session.session] = session
        self.keys[session.session] = session.key
        terms = {name: value for name, value in session.as_json().items() if name != "client_id"}
        return {"verdict": "allow", "n": self.n + self.ahead, "run": self.run, **terms}

    async def _events(self, request: web.Request) -> web.StreamResponse:
        if self.refuse_streams:
            return web.Response(status=503)
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        if self._live is not None:
            self._live.put_nowait("")
        queue = self._live = asyncio.Queue()
        listed = [session.as_json() for session in self.sessions.values()]
        self.keys.update({session.session: session.key for session in self.sessions.values()})
        self.n += 1
        snapshot = {"type": "snapshot", "n": self.n, "run": self.run, "sessions": listed}
        queue.put_nowait(json.dumps({**snapshot, "seen": sorted(self.seen)}))
        self.streams += 1
        self.boots.add(request.query["boot"])
        self._notify()
        with contextlib.suppress(ConnectionError):
            await self._feed(response, queue)
        return response

    async def _feed(self, response: web.StreamResponse, queue: asyncio.Queue[str]) -> None:
        line = await queue.get()
        if self.holds_back and line:
            await response.write(line[: -self.holds_back].encode())
            await self._let_go.wait()
            line = line[-self.holds_back :]
        while line:
            await response.write(line.encode() + b"\n")
            line = await self._next_line(queue.get())
        transport = response._req.transport if response._req is not None else None
        if transport is not None:
            transport.abort()

    async def _next_line(self, line: Awaitable[str]) -> str:
        try:
            return await asyncio.wait_for(line, self.beat_s)
        except TimeoutError:
            return json.dumps({"type": "beat", "n": self.n, "run": self.run})

    async def _sync(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.synced.extend(body["clients"])
        named = [c["client_id"] for c in body["clients"]]
        drop = [client_id for client_id in named if client_id in self.drop]
        self._notify()
        return web.json_response({"drop": drop, "keep": len(named) - len(drop)})

    async def _session(self, request: web.Request) -> web.Response:
        events = (await request.json())["events"]
        for event in (event for event in events if event["what"] == "readmitted"):
            key = self.keys[event["session"]]
            self.seen.add(text(raw(key) + raw(event["proof"])[5:]))
        self.reports.extend(events)
        self._notify()
        return web.json_response({"ok": True})

"""A running broker, asked from outside: CONNECTs that nobody may be let in with."""

import enum
import os
import signal
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from authd.cli.findings import Finding, fault, fine, unknown
from authd.clock import SystemClock, SystemEntropy
from authd.core.encoding import encode_base64url
from authd.core.identity import DomainId, SigningKey, key_id_text
from authd.core.proofs import Audience, make_pop
from authd.errors import NoResponseError
from authd.shim.wire import Connect, encode_connect

_WAIT_S: Final = 3.0
_CONNACK: Final = b"\x20\x02"
_CONNACK_BYTES: Final = 4
_CLEAN: Final = 0x02
_V311: Final = 4
_KEEP_ALIVE_S: Final = 30
# struct ucred: pid, uid, gid.
_UCRED: Final = struct.Struct("3i")
_SETTLE_S: Final = 0.2
_ODD_NAMES: Final = ("#", "+", "a/b", "$SYS")


class Answer(enum.Enum):
    """How a broker took a CONNECT."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    CLOSED = "closed"
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where a broker listens.

    Attributes:
        endpoint: ``host:port``, lower case: the audience of what is shown.
        tls: For a listener with TLS.
    """

    host: str
    port: int
    endpoint: str
    tls: ssl.SSLContext | None = None

    def attempt(self, *, client_id: str, username: str | None, password: str | None) -> Answer:
        """Send one CONNECT of MQTT 3.1.1 and leave.

        Raises:
            NoResponseError: Nothing listens there.
        """
        packet = encode_connect(
            Connect(
                level=_V311,
                flags=_CLEAN,
                keep_alive_s=_KEEP_ALIVE_S,
                properties=b"",
                client_id=client_id,
                will=b"",
                username=username,
                password=None if password is None else password.encode("ascii"),
            )
        )
        try:
            plain = socket.create_connection((self.host, self.port), _WAIT_S)
        except OSError as error:
            what = error.strerror or str(error)
            raise NoResponseError(f"nothing answers at `{self.endpoint}`: {what}") from error
        with plain:
            return self._exchange(plain, packet)

    def _exchange(self, plain: socket.socket, packet: bytes) -> Answer:
        plain.settimeout(_WAIT_S)
        data = b""
        try:
            with self._secured(plain) as connection:
                connection.sendall(packet)
                while len(data) < _CONNACK_BYTES:
                    part = connection.recv(_CONNACK_BYTES - len(data))
                    if not part:
                        return Answer.CLOSED
                    data += part
        except TimeoutError:
            return Answer.SILENT
        except OSError:
            return Answer.CLOSED
        accepted = data[:2] == _CONNACK and data[3] == 0
        return Answer.ACCEPTED if accepted else Answer.REFUSED

    def _secured(self, plain: socket.socket) -> socket.socket:
        if self.tls is None:
            return plain
        return self.tls.wrap_socket(plain, server_hostname=self.host)


@dataclass(frozen=True, slots=True)
class _Stranger:
    """A key that nobody ever granted anything, with a proof in due form."""

    username: str
    password: str


def _stranger(target: Target) -> _Stranger:
    entropy = SystemEntropy()
    key = SigningKey.from_seed(entropy.token(32))
    name = key_id_text(key.public)
    password = make_pop(
        key,
        audience=Audience(DomainId(bytes(16)), target.endpoint),
        client_id=name,
        time=SystemClock().now(),
        nonce=entropy.token(8),
    )
    return _Stranger(name, password)


def probe_live(target: Target) -> Iterator[Finding]:
    """Try what must be refused.

    Raises:
        NoResponseError: Nothing listens there.
    """
    yield _probe_anonymous(target)
    yield _probe_stranger(target)
    yield _probe_odd_names(target)


def _probe_anonymous(target: Target) -> Finding:
    client_id = f"probe-{encode_base64url(SystemEntropy().token(6))}"
    answer = target.attempt(client_id=client_id, username=None, password=None)
    return _verdict(
        "anonymous",
        answer,
        bad="a client that shows nothing is let in",
        good="a client that shows nothing is refused",
        advice="write `allow_anonymous false`, and look for other plugins",
    )


def _probe_stranger(target: Target) -> Finding:
    stranger = _stranger(target)
    answer = target.attempt(
        client_id=stranger.username, username=stranger.username, password=stranger.password
    )
    return _verdict(
        "stranger",
        answer,
        bad="a key that nobody granted anything is let in: authd is not asked, or not alone",
        good="a key that nobody granted anything is refused",
        advice="load authd's plugin alone, without password file and other plugins",
    )


def _probe_odd_names(target: Target) -> Finding:
    """Try wildcards and levels as client id and as user name."""
    accepted = []
    for name in _ODD_NAMES:
        stranger = _stranger(target)
        tries = {
            f"client id `{name}`": (name, stranger.username, stranger.password),
            f"user name `{name}`": (stranger.username, name, stranger.password),
            f"anonymous client id `{name}`": (name, None, None),
        }
        for what, (client_id, username, password) in tries.items():
            answer = target.attempt(client_id=client_id, username=username, password=password)
            if answer is Answer.ACCEPTED:
                accepted.append(what)
    if accepted:
        return fault(
            "special_characters",
            f"names that stand for other topics are let in: {', '.join(accepted)}",
            "authd's plugin refuses them: look for what answers before it",
        )
    return fine("special_characters", "client ids and user names with `+`, `#`, `/` are refused")


def _verdict(check: str, answer: Answer, *, bad: str, good: str, advice: str) -> Finding:
    if answer is Answer.ACCEPTED:
        return fault(check, bad, advice)
    if answer is Answer.SILENT:
        return fault(
            check,
            f"the broker gave no answer within {_WAIT_S:g} s: its one thread is held up",
            "look for plugins that ask over the network; authd's waits 50 ms at most",
        )
    return fine(check, good)


# --- a daemon that does not answer ------------------------------------------------------------


def probe_fail_mode(target: Target, *, daemon_up: bool, admin_socket: Path | None) -> Finding:
    """Say what the broker does while authd does not answer.

    Args:
        target: The broker.
        daemon_up: Whether the daemon answers now.
        admin_socket: To find the daemon by and hold it for a moment; None must not.

    Raises:
        NoResponseError: Nothing listens there.
    """
    if not daemon_up:
        return _judge_away(target, "while the daemon is away")
    if admin_socket is None:
        return unknown(
            "fail_mode",
            "what happens while authd does not answer was not tried",
            "`--stall` holds the daemon for about a second and tries",
        )
    with _held(admin_socket):
        return _judge_away(target, "while the daemon was held")


def _judge_away(target: Target, when: str) -> Finding:
    stranger = _stranger(target)
    started = time.perf_counter()
    answer = target.attempt(
        client_id=stranger.username, username=stranger.username, password=stranger.password
    )
    took_ms = round((time.perf_counter() - started) * 1_000)
    return _verdict(
        "fail_mode",
        answer,
        bad=f"a stranger is let in {when}: the broker fails open",
        good=f"a stranger is refused {when}, after {took_ms} ms",
        advice="load authd's plugin alone: it refuses whatever authd does not allow",
    )


@contextmanager
def _held(admin_socket: Path) -> Iterator[None]:
    """Keep the daemon from answering; it goes on whatever happens."""
    pid = _daemon_pid(admin_socket)
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(_SETTLE_S)
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def _daemon_pid(admin_socket: Path) -> int:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(admin_socket))
        except OSError as error:
            raise NoResponseError(f"no daemon answers on `{admin_socket}`") from error
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid: int = _UCRED.unpack(credentials)[0]
    return pid

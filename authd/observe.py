"""Logs and metrics: one wide event per decision, counters without per-device labels.

Nothing here is ever given a password or a private key.
"""

import json
import logging
import sys
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from authd.core import limits
from authd.core.decision import ConnectRequest, Decision
from authd.core.encoding import encode_base64url
from authd.core.identity import key_id_text, looks_like_key_id
from authd.errors import ReasonCode

_BUCKETS_S: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)


def configure_logging(log_format: str) -> None:
    """Write structured events to standard error, as JSON lines or for people."""
    renderer: structlog.typing.Processor = (
        _render_json
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # A line and its end in one write: what others write meanwhile cannot come between.
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )


# The library's renderer makes an encoder for every line.
_ENCODER: Final = json.JSONEncoder(default=repr)


def _render_json(_logger: object, _method: str, event: structlog.typing.EventDict) -> str:
    return _ENCODER.encode(event)


def _claimed_key(request: ConnectRequest, decision: Decision) -> str | None:
    """Return whose key was not found.

    Only for that reason: it is given after the user name was read as the id of a key. Before, the
    user name may be anything, also a device's password in the wrong field.
    """
    if decision.reason is not ReasonCode.UNKNOWN_KEY or request.presented is not None:
        return None
    return request.username if looks_like_key_id(request.username) else None


class Observations:
    """The metrics of one daemon, and its decision log."""

    def __init__(self) -> None:
        """Make a registry of its own."""
        self.registry = CollectorRegistry()
        self._log = structlog.get_logger("authd")
        self.decisions = Counter(
            "authd_decisions_total",
            "Decisions by broker, kind, effect and reason.",
            ("broker", "kind", "effect", "reason"),
            registry=self.registry,
        )
        # Finding a counter by its labels takes longer than counting.
        self._counters: dict[tuple[str, str, str, str], Counter] = {}
        self.connect_seconds = Histogram(
            "authd_connect_seconds",
            "Time to decide a CONNECT.",
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self.figures = Gauge(
            "authd_state",
            "What the daemon holds: sessions, grants, revocations, peers, dht_nodes, …",
            ("what",),
            registry=self.registry,
        )
        self.fresh_seconds = Gauge(
            "authd_domain_fresh_seconds",
            "How long each domain stays fresh without further news; negative when stale.",
            ("domain",),
            registry=self.registry,
        )

    def connect(self, request: ConnectRequest, decision: Decision, elapsed_s: float) -> None:
        """Count and log a CONNECT decision."""
        self.connect_seconds.observe(elapsed_s)
        self._count(request.broker, "connect", decision)
        self._log.info(
            "connect",
            broker=request.broker,
            client_id=request.client_id[: limits.MAX_CLIENT_ID_BYTES],
            address=request.address,
            key=key_id_text(decision.key) if decision.key else None,
            claimed_key=_claimed_key(request, decision),
            effect=decision.effect.value,
            reason=decision.reason.value,
            detail=decision.detail,
            session=decision.session,
            form=decision.evidence.form,
            replayable=decision.evidence.form == "password",
            grants=[
                encode_base64url(grant.statement_id)
                for path in decision.rights.paths
                for grant in path.grants
            ],
            elapsed_ms=round(elapsed_s * 1_000, 3),
        )

    def message(self, broker: str, decision: Decision) -> None:
        """Count a message decision; only denials are logged, they are what somebody looks for."""
        self._count(broker, "message", decision)
        if not decision.allowed:
            self._log.info(
                "message",
                broker=broker,
                effect=decision.effect.value,
                reason=decision.reason.value,
                detail=decision.detail,
            )

    def _count(self, broker: str, kind: str, decision: Decision) -> None:
        # The broker's name comes from configuration or is unknown: an unbounded label is not made.
        known = broker if decision.reason is not ReasonCode.UNKNOWN_BROKER else "unknown"
        place = (known, kind, decision.effect, decision.reason)
        child = self._counters.get(place)
        if child is None:
            self._counters[place] = child = self.decisions.labels(*place)
        child.inc()

    def exposition(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)

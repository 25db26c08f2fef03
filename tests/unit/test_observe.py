"""Logs and metrics: one wide event a decision, and never a password."""

import io
import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import structlog

from authd.core.decision import ConnectRequest, SingleStep, deny
from authd.errors import ReasonCode
from authd.observe import Observations, configure_logging
from tests.unit.service.scenes import DEVICE, DEVICE_ID, site_with_device

PASSWORD = "A-very-secret-password"


class Log:
    """What was written to standard error, read once."""

    def __init__(self, capture: pytest.CaptureFixture[str]) -> None:
        self._capture = capture

    def text(self) -> str:
        return self._capture.readouterr().err


@pytest.fixture
def log(capsys: pytest.CaptureFixture[str]) -> Iterator[Log]:
    yield Log(capsys)
    structlog.reset_defaults()


def request(**change: str) -> ConnectRequest:
    values = {"broker": "m", "client_id": "pump", "username": "lamp", "password": PASSWORD}
    return ConnectRequest(**(values | change))  # type: ignore[arg-type]  # texts alone


def test_a54_a_decision_is_one_line_without_the_password(log: Log) -> None:
    configure_logging("json")
    observations = Observations()
    observations.connect(request(), deny(ReasonCode.MALFORMED, "no"), 0.0015)
    text = log.text()
    events = [json.loads(line) for line in text.splitlines()]
    assert len(events) == 1
    event = events[0]
    assert (event["event"], event["broker"], event["client_id"]) == ("connect", "m", "pump")
    assert (event["effect"], event["reason"]) == ("deny", "malformed")
    assert (event["elapsed_ms"], event["key"], event["replayable"]) == (1.5, None, False)
    assert PASSWORD not in text


def test_a_key_that_is_not_known_is_named_as_claimed_and_nothing_else_is(log: Log) -> None:
    configure_logging("json")
    observations = Observations()
    unknown, malformed = deny(ReasonCode.UNKNOWN_KEY, "no"), deny(ReasonCode.MALFORMED, "no")
    shown = SingleStep(b"anything")
    for asked, decision, claimed in (
        (request(username=DEVICE_ID), unknown, DEVICE_ID),
        (request(username="lamp"), unknown, None),
        # Of the same shape as a device's password, and not read as an id: perhaps it is one.
        (request(username=DEVICE_ID), malformed, None),
        (replace(request(username=DEVICE_ID, password=""), presented=shown), unknown, None),
    ):
        observations.connect(asked, decision, 0.001)
        text = log.text()
        event = json.loads(text)
        assert (event["key"], event["claimed_key"]) == (None, claimed)
        assert PASSWORD not in text


async def test_an_allow_names_key_session_form_and_grants(log: Log, tmp_path: Path) -> None:
    configure_logging("json")
    site = site_with_device(tmp_path)
    decision = await site.connect(DEVICE)
    Observations().connect(request(), decision, 0.001)
    event = json.loads(log.text())
    assert (event["key"], event["session"]) == (DEVICE_ID, decision.session)
    assert (event["form"], len(event["grants"])) == ("pop", 1)


def test_a54_a_huge_or_odd_client_id_makes_no_huge_or_broken_line(log: Log) -> None:
    configure_logging("json")
    odd = "\ud800\n" + "x" * 60_000
    Observations().connect(request(client_id=odd), deny(ReasonCode.MALFORMED, "no"), 0)
    text = log.text()
    assert len(text) < 1_000
    assert len(text.splitlines()) == 1


def test_messages_are_counted_and_only_denials_logged(log: Log, tmp_path: Path) -> None:
    configure_logging("text")
    observations = Observations()
    denied = deny(ReasonCode.NOT_GRANTED, "no grant")
    observations.message("m", denied)
    assert "not_granted" in log.text()
    counted = observations.exposition().decode()
    assert (
        'authd_decisions_total{broker="m",effect="deny",kind="message",reason="not_granted"} 1.0'
        in counted
    )


def test_a_broker_nobody_configured_makes_no_label(log: Log) -> None:
    configure_logging("json")
    observations = Observations()
    for number in range(3):
        refused = deny(ReasonCode.UNKNOWN_BROKER, "no")
        observations.connect(request(broker=f"made-up-{number}"), refused, 0)
    assert b"made-up" not in observations.exposition()


def test_metrics_have_no_label_for_a_device(log: Log) -> None:
    configure_logging("json")
    observations = Observations()
    observations.connect(request(), deny(ReasonCode.MALFORMED, "no"), 0.001)
    observations.figures.labels("sessions").set(1)
    text = observations.exposition().decode()
    assert "pump" not in text
    assert "lamp" not in text
    assert 'authd_state{what="sessions"} 1.0' in text


@pytest.mark.parametrize("log_format", ["json", "text"])
@pytest.mark.parametrize("size", [10, 20_000])
def test_each_line_is_written_at_once(
    log: Log, monkeypatch: pytest.MonkeyPatch, log_format: str, size: int
) -> None:
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # As with PYTHONUNBUFFERED, which containers set; each write is a packet of its own here.
    raw = io.FileIO(there.fileno(), "w", closefd=False)
    with here, there, io.TextIOWrapper(raw, write_through=True) as stderr:
        monkeypatch.setattr("sys.stderr", stderr)
        configure_logging(log_format)
        for name in ("first", "second"):
            structlog.get_logger("authd").info(name, why="y" * size)
        packets = [here.recv(1 << 20) for _ in range(2)]
        assert [packet.count(b"\n") for packet in packets] == [1, 1]
        assert all(packet.endswith(b"\n") and len(packet) > size for packet in packets)
        assert b"first" in packets[0]
        assert b"second" in packets[1]
        here.settimeout(0)
        with pytest.raises(BlockingIOError):
            here.recv(1)
    assert log.text() == ""

"""The outbox and ``node.json``: whole or not at all, damaged files named; and word to systemd."""

import json
import os
import socket
from pathlib import Path

import pytest

from authd.core.encoding import decode_base64url
from authd.errors import ConfigError, StoreError
from authd.node_file import NodeFile, ensure_secrets, load_node_file, save_node_file
from authd.outbox import Outbox
from authd.systemd import notify, watchdog_s
from tests.world import FakeEntropy

DOMAIN = "A" * 22


# --- outbox -----------------------------------------------------------------------------------


def test_bundles_wait_in_the_order_they_were_made(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    assert outbox.pending() == []
    for number in (5, 20, 100):
        outbox.add(str(number).encode(), now_us=number)
    assert [outbox.read(path) for path in outbox.pending()] == [b"5", b"20", b"100"]
    outbox.done(outbox.pending()[0])
    assert [outbox.read(path) for path in outbox.pending()] == [b"20", b"100"]
    assert (tmp_path / "outbox").stat().st_mode & 0o777 == 0o700


def test_a_bundle_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.add(b"whole", now_us=1)
    (tmp_path / "outbox" / ".half-written").write_bytes(b"ha")
    assert [outbox.read(path) for path in outbox.pending()] == [b"whole"]


def test_what_is_refused_is_kept_for_the_operator_and_not_tried_again(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.add(b"bad", now_us=1)
    outbox.refuse(outbox.pending()[0])
    assert outbox.pending() == []
    kept = list((tmp_path / "outbox").glob("*.refused"))
    assert [one.read_bytes() for one in kept] == [b"bad"]


def test_one_unreadable_bundle_is_named_and_does_not_hide_the_others(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.add(b"good", now_us=2)
    unreadable = tmp_path / "outbox" / "0-directory.bundle"
    unreadable.mkdir()
    first, second = outbox.pending()
    with pytest.raises(ConfigError, match=r"0-directory\.bundle") as caught:
        outbox.read(first)
    assert not caught.value.reason.temporary, "it is put aside, not tried for ever"
    assert outbox.read(second) == b"good"


def test_an_outbox_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "outbox").write_text("", "utf-8")
    with pytest.raises(StoreError, match="outbox"):
        Outbox(tmp_path).add(b"x", now_us=1)
    with pytest.raises(StoreError):
        Outbox(tmp_path / "missing").add(b"x", now_us=1)


# --- node.json --------------------------------------------------------------------------------


def test_the_node_file_comes_back_and_is_private(tmp_path: Path) -> None:
    node = NodeFile(domain=DOMAIN, networked=True, peers=["a:1"], broker_secrets={"m": "s"})
    save_node_file(tmp_path, node)
    assert load_node_file(tmp_path) == node
    assert (tmp_path / "node.json").stat().st_mode & 0o777 == 0o600


def test_every_broker_gets_a_secret_of_its_own_once(tmp_path: Path) -> None:
    node = NodeFile(domain=DOMAIN)
    ensure_secrets(tmp_path, node, ["a", "b"], FakeEntropy())
    first = dict(node.broker_secrets)
    ensure_secrets(tmp_path, node, ["a", "b", "c"], FakeEntropy("other"))
    assert {name: node.broker_secrets[name] for name in first} == first
    assert len(set(node.broker_secrets.values())) == 3
    assert all(len(decode_base64url(one)) == 16 for one in node.broker_secrets.values())
    assert load_node_file(tmp_path) == node


def test_a54_secrets_are_not_part_of_what_is_printed(tmp_path: Path) -> None:
    node = NodeFile(domain=DOMAIN)
    ensure_secrets(tmp_path, node, ["a"], FakeEntropy())
    assert node.broker_secrets["a"] not in repr(node)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        json.dumps({"domain": "x"}),
        json.dumps({"domain": DOMAIN, "more": 1}),
        json.dumps({"domain": None}),
        "\xff",
    ],
)
def test_a49_a_damaged_node_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "node.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"node\.json"):
        load_node_file(tmp_path)


def test_a_directory_that_is_no_daemons_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="authd init"):
        load_node_file(tmp_path)


# --- systemd ----------------------------------------------------------------------------------


def test_systemd_hears_of_us_where_it_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    abstract = f"\0authd-test-{os.getpid()}"
    for address, name in (
        (str(tmp_path / "s"), str(tmp_path / "s")),
        (abstract, "@" + abstract[1:]),
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.bind(address)
            monkeypatch.setenv("NOTIFY_SOCKET", name)
            notify("READY=1")
            assert channel.recv(64) == b"READY=1"


@pytest.mark.parametrize(
    ("text", "seconds"), [(None, None), ("", None), ("0", None), ("x", None), ("30000000", 10.0)]
)
def test_the_watchdog_is_fed_three_times_a_period(
    text: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    if text is not None:
        monkeypatch.setenv("WATCHDOG_USEC", text)
    assert watchdog_s() == seconds

"""What the command line says to somebody who is new: what is wrong, and what to do next."""

import io
import os
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from authd.cli import main
from authd.cli.join import _read_ticket
from authd.cli.revoke import _lines
from authd.demo.stage import Site
from tests.unit.cli.conftest import Run


def test_the_version_is_that_of_the_package(run: Run) -> None:
    assert run("--version", as_json=False).out == f"authd {version('authd-mqtt')}\n"
    assert run("--version", "status", as_json=False).out == f"authd {version('authd-mqtt')}\n"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("explain lamp publish", "`` is not a topic name"),
        ("explain lamp publish home/kitchen/#", "`home/kitchen/#` is not a topic name"),
        ("explain lamp receive home/+", "`home/+` is not a topic name"),
        ("explain lamp subscribe home/#/x", "`home/#/x` is not a topic filter"),
        ("explain lamp subscribe", "`` is not a topic filter"),
        ("device new x --pub home/#/bad", "`#` may only stand last"),
        ("device new x --sub home/a#", "`#` must be a level of its own"),
        ("device cert x --pub home/+a", "`+` must be a level of its own"),
        ("grant lamp --serve home/#/#", "`#` may only stand last"),
        ("trust add a AAAAAAAAAAAAAAAAAAAAAA --prefix=x/#", "without wildcards"),
    ],
)
def test_what_is_no_topic_is_refused_and_why(run: Run, domain: Path, line: str, says: str) -> None:
    assert run("device", "new", "lamp", "--pub=home/#").code == 0
    done = run(*line.split())
    assert done.code == 2
    assert says in done.json["error"]


@pytest.mark.parametrize("operation", ["publish", "subscribe", "receive"])
def test_a_shared_subscription_and_plain_topics_are_still_explained(
    run: Run, site: Site, operation: str
) -> None:
    if not (site.state / "subjects" / "asked.json").exists():
        run("device", "new", "asked", "--pub=site/#", "--sub=site/#", site=site)
    topic = "$share/group/site/#" if operation == "subscribe" else "site/a"
    assert run("explain", "asked", operation, topic, site=site).code == 0


@pytest.mark.parametrize("left", [0, 5, 40, -1, -7])
def test_a_ticket_that_was_cut_off_says_so(run: Run, domain: Path, left: int) -> None:
    ticket = run("invite").json["ticket"]
    done = run("join", "-", "--state=joined", stdin=ticket[:left] + "\n")
    assert (done.code, done.json["error"]) == (2, "the ticket is incomplete: paste all of it")


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_join_asks_for_the_ticket_at_a_terminal_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", _Terminal("AAAA\n"))
    assert _read_ticket("-") == "AAAA"
    out, err = capsys.readouterr()
    assert (out, "Paste the ticket" in err) == ("", True)
    monkeypatch.setattr(sys, "stdin", io.StringIO("AAAA\n"))
    assert _read_ticket("-") == "AAAA"
    assert capsys.readouterr().err == ""


def test_init_without_a_terminal_says_how_to_give_the_passphrase(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"from {main.__module__} import main; main()", "init"],
        env={**os.environ, "AUTHD_STATE": str(tmp_path / "state")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
        start_new_session=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "`--passphrase-file`, or `--unencrypted-root`" in line
    assert not (tmp_path / "state" / "keys").exists()


def test_init_and_device_new_name_all_audiences(run: Run, tmp_path: Path) -> None:
    init = run("init", "--unencrypted-root", as_json=False).out
    assert "set `audiences`" in init
    made = run("device", "new", "lamp", "--pub=home/lamp", as_json=False).out
    for name in ("`localhost:1883`", "`127.0.0.1:1883`"):
        assert name in init
        assert name in made
    plug = run("device", "new", "plug", "--pub=home/plug", "--password")
    assert {"localhost:1883", "127.0.0.1:1883"} <= set(plug.json["audiences"])


def test_join_says_what_one_heartbeat_key_means(run: Run, domain: Path) -> None:
    ticket = run("invite").json["ticket"]
    done = run("join", "-", "--state=joined", stdin=ticket, as_json=False)
    assert "every CONNECT here is refused" in done.out


def test_what_is_printed_for_a_shell_is_quoted(run: Run, domain: Path, tmp_path: Path) -> None:
    made = run(
        *("device", "new", "odd", "--pub=home/it's $HOME", "--client-id=a b", "--out=k y"),
        as_json=False,
    ).out
    (line,) = [line for line in made.splitlines() if "mosquitto_pub" in line]
    words = shlex.split(line)
    assert words[words.index("-i") + 1] == "a b"
    assert words[words.index("-t") + 1] == "home/it's $HOME"
    assert "authd password 'k y' " in made
    shell = run("password", "k y", "h:1", "--client-id=a;b c", "--shell", as_json=False).out
    said = subprocess.run(
        ["sh", "-c", f'{shell}\nprintf %s "$AUTHD_CLIENT_ID"'],  # noqa: S607 - any shell
        capture_output=True,
        text=True,
        check=True,
    )
    assert (said.stdout, said.stderr) == ("a;b c", "")


def test_a_session_that_was_away_was_not_connected() -> None:
    cut = [{"broker": "hall", "client_id": "c", "outcome": "not_found", "reason": "revoked"}]
    lines = _lines({"state": "in force", "kind": "key", "target": "x", "cut": cut})
    assert "  hall: c was not connected" in lines

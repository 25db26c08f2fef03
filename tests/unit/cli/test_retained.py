"""What `authd revoke` says of retained messages: harmless on a terminal and in a shell."""

import json
import shlex
import subprocess
from pathlib import Path

import pytest

from authd.cli.revoke import _lines, _retained_lines, clearing
from tests.unit.cli.conftest import Run
from tests.unit.cli.test_offline import Impostor, http_answer

TOPICS = [
    "site/a/temp",
    "a b",
    "-t",
    "a'b\"c`id`$(id)$HOME\\n%s;&|<>*?~!#",
    "küche/temp",
    "é1",
    "-é%s%%\\0101'\"`id`$(id)",
    "a\x1b[2Jb",
    "a\u202eb",
    "\u2028\u00a0",
    "ends in a space ",
    "é ",
    "\U0001f512",
    "a\rb\x7f",
]


@pytest.mark.parametrize("shell", ["sh", "bash"])
@pytest.mark.parametrize("topic", TOPICS)
def test_a_shell_reads_the_command_as_the_topic_and_nothing_else(shell: str, topic: str) -> None:
    command = clearing(topic)
    assert command.isascii()
    assert command.isprintable()
    shown = f"mosquitto_pub() {{ printf '%s\\0' \"$@\"; }}\n{command}"
    done = subprocess.run([shell, "-c", shown], capture_output=True, timeout=10, check=True)
    assert done.stdout.decode().split("\0") == ["-r", "-n", "-t", topic, ""]
    assert done.stderr == b""


@pytest.mark.parametrize("topic", TOPICS)
def test_a_line_says_where_who_and_what_in_printable_ascii(topic: str) -> None:
    left = {"broker": "hall", "client_id": f"c {topic}", "topic": topic}
    title, line = _retained_lines({"retained": [left], "retained_more": 0}, "")
    assert "clear with" in title
    assert line.isascii()
    assert line.isprintable()
    assert line.startswith("  hall: ")
    assert line.endswith(f": {clearing(topic)}")
    shown = line.removeprefix("  hall: ").removesuffix(f": {clearing(topic)}")
    who, what = shown.split(" left ", 1)
    assert [json.loads(who), json.loads(what)] == [f"c {topic}", topic]


def test_a_plain_topic_stays_readable() -> None:
    assert clearing("site/a/temp") == "mosquitto_pub -r -n -t site/a/temp"
    assert shlex.split(clearing("it's"))[-1] == "it's"


def test_how_many_are_not_named_is_said_and_nothing_where_nothing_is_known() -> None:
    assert _retained_lines({"retained": [], "retained_more": 3}, "")[1:] == [
        "  and at least 3 more that are not named",
    ]
    assert _retained_lines({"retained": [], "retained_more": 0}, "") == []
    answer = {"state": "in force", "kind": "key", "target": "x", "cut": []}
    assert not any("retained" in line for line in _lines(answer))


def test_revoke_says_it_after_what_was_cut() -> None:
    cut = {"broker": "hall", "client_id": "c", "outcome": "kicked", "reason": "revoked"}
    left = {"broker": "hall", "client_id": "c", "topic": "a"}
    answer = {"state": "in force", "kind": "key", "target": "x", "cut": [cut], "retained": [left]}
    title, line = _lines(answer)[-2:]
    assert title == ("retained messages may be left, for whoever subscribes; clear with")
    assert line == '  hall: "c" left "a": mosquitto_pub -r -n -t a'


@pytest.mark.parametrize("as_json", [True, False])
def test_revocations_prints_it_and_passes_it_on_as_json(
    run: Run, domain: Path, tmp_path: Path, *, as_json: bool
) -> None:
    topic = "a\x1b b"
    one = {
        "id": "i",
        "kind": "key",
        "target": "K",
        "state": "in force",
        "reason": "",
        "retained": [{"broker": "hall", "client_id": "c", "topic": topic}],
        "retained_more": 7,
    }
    body = json.dumps({"revocations": [one]}).encode()
    impostor = Impostor(tmp_path / "run" / "admin.sock", http_answer(body))
    done = run("revocations", as_json=as_json)
    impostor.close()
    assert done.code == 0, done.err
    if as_json:
        assert done.json == {"revocations": [one | {"name": ""}]}
        return
    assert done.out.splitlines()[-3:] == [
        "key K: retained messages may be left, for whoever subscribes; clear with",
        f'  hall: "c" left "a\\u001b b": {clearing(topic)}',
        "  and at least 7 more that are not named",
    ]

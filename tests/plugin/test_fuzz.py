"""The plugin's parsers under libFuzzer and the sanitizers; longer by hand (`make fuzz`)."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.plugin.conftest import SOURCES, tell
from tests.plugin.fake_authd import Session
from tests.plugin.mqtt import pop
from tests.plugin.prover import Prover

SECONDS = 20
ANSWER, EVENT, SYNC, AUTH, CREDENTIAL, VERIFY, TOPICS = range(1, 8)
DATA = {ANSWER: 0, EVENT: 1, SYNC: 3, AUTH: 4, CREDENTIAL: 5, VERIFY: 6, TOPICS: 7}


def seeds() -> list[bytes]:
    """Return one good input for each parser, and more for those that have several forms."""
    device = Prover()
    session = Session(
        client_id="c1",
        session="5kq1Yw2f0bU",
        key=device.id,
        rights=[{"filter": "a/+/#", "actions": 3, "ms": 5}],
        verify=device.verify,
        offline=True,
    )
    origin = {"n": 7, "run": "03b7a1c95e6d2f48"}
    seen = ["A" * 32]
    texts: list[tuple[int, bytes | str]] = [
        (ANSWER, json.dumps({"verdict": "allow", **origin, **session.as_json()})),
        (ANSWER, '{"verdict":"deny","reason":"stale","detail":"d","temporary":true}'),
        (
            EVENT,
            json.dumps(
                {"type": "snapshot", **origin, "sessions": [session.as_json()], "seen": seen}
            ),
        ),
        (EVENT, json.dumps({"type": "set", "n": 8, **session.as_json()})),
        (EVENT, '{"type":"lease","n":8,"leases":[["5kq1Yw2f0bU",5]]}'),
        (EVENT, json.dumps({"type": "beat", **origin})),
        (
            EVENT,
            json.dumps(
                {
                    "type": "cut",
                    "n": 8,
                    "key": device.id,
                    "client_id": "c1",
                    "session": "",
                    "will": "publish",
                    "reason": "revoked",
                },
            ),
        ),
        (SYNC, '{"drop":["c1","c2"],"keep":5}'),
        (AUTH, device.single("c1")),
        (AUTH, device.hello()),
        (AUTH, b"\x04" * 65),
        (CREDENTIAL, f"{device.id}\n{device.pop('c1')}"),
        (CREDENTIAL, f"{device.id}\n{pop(hint=True)}.gQ"),
        (CREDENTIAL, f"{device.id}\n{device.counter('c1', 5)}"),
        (CREDENTIAL, "kitchen\nAAECAwQFBgcICQoLDA0ODw"),
        (VERIFY, f"broker.example:1883\nc1\n{device.pop('c1')}"),
        (TOPICS, "a/+/#\n$share/g/a/b"),
    ]
    return [
        bytes([DATA[kind]]) + (body.encode() if isinstance(body, str) else body)
        for kind, body in texts
    ]


@pytest.mark.timeout(180)
def test_a13_a46_no_input_breaks_a_parser(tmp_path: Path) -> None:
    subprocess.run(["/usr/bin/make", "-s", "-C", str(SOURCES), "fuzz"], check=True)
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds()):
        (corpus / f"{number:02}").write_bytes(seed)
    done = subprocess.run(
        [
            *(str(SOURCES / "build" / "fuzz"), f"-max_total_time={SECONDS}", "-max_len=1024"),
            *("-print_final_stats=1", "-timeout=5", f"-artifact_prefix={tmp_path}/", str(corpus)),
        ],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    units = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    assert units is not None
    tell(f"{units[1]} inputs in {SECONDS} s")
    assert int(units[1]) > 10_000

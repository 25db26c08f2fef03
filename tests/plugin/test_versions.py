"""What differs between the versions of Mosquitto that the plugin runs in."""

import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import authd
from authd.demo.stage import free_port
from tests.plugin.conftest import (
    MOSQUITTO,
    SOURCES,
    VERSION,
    Broker,
    StartBroker,
    tell,
    write_config,
)
from tests.plugin.fake_authd import FakeAuthd, key_id
from tests.plugin.mqtt import RawClient, connect_packet, pop
from tests.plugin.test_options import GOOD

CUT_WITHIN_S = 0.5
API_2_1 = Path(__file__).with_name("api_2_1")


def test_a36_a_cut_comes_in_time_whatever_woke_the_broker(broker: Broker, fake: FakeAuthd) -> None:
    """A packet shortly after one TICK must not put off the next: 2.1 would sleep for seconds."""
    worst = 0.0
    for number in range(12):
        key, client = key_id(), RawClient(broker.port)
        client.send(
            connect_packet(
                client_id=f"c{number}".encode(), username=key.encode(), password=pop().encode()
            )
        )
        assert client.packet() == b"\x20\x02\x00\x00"
        time.sleep(0.005 * number)
        client.send(b"\xc0\x00")
        assert client.packet() == b"\xd0\x00"
        started = time.monotonic()
        fake.cut(key=key)
        assert client.receive() == b""
        worst = max(worst, time.monotonic() - started)
        client.close()
    tell(f"Mosquitto {'.'.join(map(str, VERSION))}: a cut took at most {1000 * worst:.0f} ms")
    assert worst < CUT_WITHIN_S


def test_the_plugin_says_which_version_it_is(broker: Broker, fake: FakeAuthd, plugin: Path) -> None:
    """In the log, in its requests and in the file; the number is that of the daemon."""
    name = f"authd_mosquitto/{authd.__version__}"
    broker.online("c1")
    assert fake.agents == {name}
    assert f"authd: {name}\n" in broker.log.read_text()
    assert f"{name}\0".encode() in plugin.read_bytes()


def http_status(port: int, user: str, password: str) -> int:
    """Ask the broker's HTTP listener for something."""
    manager = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    url = f"http://127.0.0.1:{port}/api/v1/version"
    manager.add_password(None, url, user, password)
    opener = urllib.request.build_opener(urllib.request.HTTPBasicAuthHandler(manager))
    try:
        with opener.open(url, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_a22_the_http_listener_of_2_1_is_no_way_in(
    start_broker: StartBroker, fake: FakeAuthd, tmp_path: Path, plugin: Path
) -> None:
    """It asks from a thread of its own; a broker that has none does not start."""
    port, key = free_port(), key_id()
    lines = f"listener {port} 127.0.0.1\nprotocol http_api"
    if b"MHD_start_daemon" not in Path(MOSQUITTO).read_bytes():
        options = f"{GOOD}\n{lines}"
        config = write_config(tmp_path, port=free_port(), plugin=plugin, options=options, extra="")
        done = subprocess.run([MOSQUITTO, "-c", str(config)], timeout=10, check=False)
        assert done.returncode != 0
        return
    broker = start_broker(options=f"plugin_opt_authd_rate 1000\n{lines}")
    broker.wait_log("event stream open")
    for _ in range(20):
        assert http_status(port, key, pop()) == 401
        assert broker.device("c1", key=key).connect() == 0
    assert {question["client_id"] for question in fake.questions} == {"c1"}
    assert "refused" not in broker.log.read_text()


@pytest.mark.parametrize("flags", ["", f"-I{API_2_1}"], ids=["2.0", "2.1"])
def test_the_plugin_compiles_for_both_generations(tmp_path: Path, flags: str) -> None:
    """What 2.1 declares otherwise stands in `api_2_1`, in our words."""
    for name in ("compat", "connect", "plugin"):
        subprocess.run(
            [
                *("/usr/bin/gcc", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror"),
                *(flags.split()),
                *("-c", "-o", str(tmp_path / f"{name}.o"), str(SOURCES / f"{name}.c")),
            ],
            check=True,
        )

"""``authd broker``: snippets, and probes of real brokers with configurations that are wrong."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from authd.cli.findings import State
from authd.cli.mosquitto_config import Expected, judge_config, read_config
from authd.cli.mosquitto_process import find_process
from authd.demo.stage import (
    Process,
    Site,
    Stage,
    can_connect,
    find_mosquitto,
    find_plugin,
    free_port,
    wait_until,
)
from tests.stages import lone_site
from tests.unit.cli.conftest import Done, Run

ROOT = Path(__file__).parents[3]
EXPECTED = Expected(names=("mosquitto",), socket="/run/authd-mqtt/broker.sock")
GOOD = """
per_listener_settings false
allow_anonymous false
check_retain_source true
persistent_client_expiration 7d
plugin /usr/lib/authd-mqtt/authd_mosquitto.so
plugin_opt_authd_broker mosquitto
listener 1883 127.0.0.1
"""


def faults(path: Path) -> set[str]:
    found = judge_config(read_config(path), EXPECTED)
    assert all(one.advice for one in found if one.state is State.FINDING)
    return {one.check for one in found if one.state is State.FINDING}


def notes(path: Path) -> set[str]:
    found = judge_config(read_config(path), EXPECTED)
    return {one.check for one in found if one.state is State.NOTE}


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def make(text: str, name: str = "mosquitto.conf") -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
        return path

    return make


# --- configurations ---------------------------------------------------------------------------


def test_a_good_configuration_has_no_fault(write: Callable[..., Path]) -> None:
    assert faults(write(GOOD)) == set()
    assert notes(write(GOOD)) == set()
    assert faults(ROOT / "deploy" / "mosquitto.conf") == set()


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (("allow_anonymous false", "allow_anonymous true"), "allow_anonymous"),
        (("per_listener_settings false", "per_listener_settings true"), "per_listener_settings"),
        (("check_retain_source true", ""), "check_retain_source"),
        (("check_retain_source true", "check_retain_source false"), "check_retain_source"),
        (("check_retain_source true", "#check_retain_source true"), "check_retain_source"),
        (("plugin /usr", "#plugin /usr"), "plugin"),
        (("broker mosquitto", "broker another"), "plugin_opt_authd_broker"),
    ],
)
def test_a_changed_line_is_found(
    write: Callable[..., Path], change: tuple[str, str], check: str
) -> None:
    assert change[0] in GOOD
    assert check in faults(write(GOOD.replace(*change)))


@pytest.mark.parametrize(
    ("line", "check"),
    [
        ("use_identity_as_username true", "use_identity_as_username"),
        ("use_subject_as_username true", "use_subject_as_username"),
        ("password_file /etc/mosquitto/passwd", "password_file"),
        ("acl_file /etc/mosquitto/acl", "acl_file"),
        ("psk_file /etc/mosquitto/psk", "psk_file"),
        ("auth_plugin /usr/lib/go-auth.so", "other_plugin"),
        ("plugin /opt/authd_mosquitto.so", "plugin"),
        ("plugin_opt_authd_socket /tmp/other.sock", "plugin_opt_authd_socket"),
    ],
)
def test_a_line_too_many_is_found(write: Callable[..., Path], line: str, check: str) -> None:
    assert check in faults(write(f"{GOOD}{line}\n"))


@pytest.mark.parametrize(
    ("line", "check"),
    [
        ("connection hub", "bridge"),
        ("mount_point site/", "mount_point"),
        ("listener 1884", "listener"),
        ("listener 1884 0.0.0.0", "listener"),
    ],
)
def test_what_is_worth_knowing_is_no_fault(
    write: Callable[..., Path], line: str, check: str
) -> None:
    path = write(f"{GOOD}{line}\n")
    assert (check in notes(path), faults(path)) == (True, set())


def test_a_listener_with_tls_is_not_called_plain(write: Callable[..., Path]) -> None:
    assert notes(write(f"{GOOD}listener 8883\ncertfile /etc/server.crt\n")) == set()


def test_a_broker_without_listener_lets_everybody_in(write: Callable[..., Path]) -> None:
    bare = "\n".join(line for line in GOOD.splitlines() if "anonymous" not in line)
    assert faults(write(bare)) == set()
    assert faults(write(bare.replace("listener 1883 127.0.0.1", ""))) == {"allow_anonymous"}


def test_included_files_count(write: Callable[..., Path], tmp_path: Path) -> None:
    write("allow_anonymous true\n", "conf.d/10-open.conf")
    write("acl_file x\n", "conf.d/ignored.txt")
    assert faults(write(f"{GOOD}include_dir {tmp_path}/conf.d\n")) == {"allow_anonymous"}


# --- a real broker ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    subprocess.run(
        ["/usr/bin/make", "-s", "-C", str(ROOT / "plugins" / "mosquitto")], check=True, timeout=120
    )
    mosquitto, plugin = find_mosquitto(), find_plugin()
    assert mosquitto is not None, "mosquitto is not installed: run `.ci/system-packages`"
    with Stage(tmp_path_factory.mktemp("probe"), mosquitto=mosquitto, plugin=plugin) as stage:
        lone_site(stage, mosquitto=True)
        yield stage


@pytest.fixture
def site(stage: Stage) -> Site:
    return stage.sites["A"]


Start = Callable[..., int]


@pytest.fixture
def start(stage: Stage, site: Site) -> Iterator[Start]:
    """Start Mosquitto with these lines; returns its port."""
    running: list[Process] = []

    def begin(*lines: str, port: int = 0) -> int:
        port = port or free_port()
        path = stage.directory / f"mosquitto-{port}.conf"
        user = ["user root"] if os.geteuid() == 0 else []
        listener = [f"listener {port} 127.0.0.1"]
        path.write_text("\n".join([*user, *listener, *lines]) + "\n", "utf-8")
        arguments = [str(find_mosquitto()), "-c", str(path)]
        process = Process(name="mosquitto", arguments=arguments, log=path.with_suffix(".log"))
        process.start()
        running.append(process)
        wait_until(lambda: can_connect(port), timeout_s=10, what="Mosquitto listens")
        return port

    yield begin
    for process in running:
        process.stop()


def good_lines(site: Site) -> list[str]:
    return [
        "allow_anonymous false",
        "check_retain_source true",
        f"plugin {find_plugin()}",
        f"plugin_opt_authd_socket {site.run_dir / 'broker.sock'}",
        "plugin_opt_authd_broker mosquitto",
    ]


def checks(done: Done, state: str) -> set[str]:
    return {one["check"] for one in done.json["findings"] if one["state"] == state}


def probe(run: Run, site: Site, port: int, *options: str) -> Done:
    return run("broker", "probe", "mosquitto", f"--at=127.0.0.1:{port}", *options, site=site)


def attach(stage: Stage, site: Site) -> None:
    stage.await_status(site, attached, what="the plugin attaches")


def detach(stage: Stage, site: Site) -> None:
    """Wait until the daemon knows that the broker of the last test is gone."""
    stage.await_status(site, lambda status: not attached(status), what="the plugin is gone")


def attached(status: dict[str, Any]) -> bool:
    return any(one["attached"] for one in status["brokers"])


def test_a_broker_as_it_should_be_is_clean(
    run: Run, stage: Stage, site: Site, start: Start
) -> None:
    start(*good_lines(site), port=site.mqtt_port)
    attach(stage, site)
    done = probe(run, site, site.mqtt_port, "--stall")
    assert (done.code, checks(done, "finding")) == (0, set()), done.out
    assert {"anonymous", "stranger", "special_characters", "fail_mode"} <= checks(done, "ok")
    assert {"attached", "audience", "loaded", "process", "plugin"} <= checks(done, "ok")
    assert stage.authd("status", site=site)["brokers"], "the daemon goes on after it was held"
    plain = run("broker", "probe", "mosquitto", site=site, as_json=False)
    assert plain.code == 0
    assert plain.out.endswith("nothing to be mended\n")
    assert "?      fail_mode: what happens while authd does not answer was not tried" in plain.out


def test_the_snippet_makes_a_broker_that_is_clean(
    run: Run, stage: Stage, site: Site, start: Start
) -> None:
    snippet = run("broker", "snippet", "mosquitto", site=site).json
    place, built = "/usr/lib/authd-mqtt/authd_mosquitto.so", str(find_plugin())
    assert f"plugin {place}\n" in snippet["config"]
    if built != place:
        assert f"install -D -m 644 {built} {place}" in snippet["config"]
    lines = [
        line.replace(place, built)
        for line in snippet["config"].splitlines()
        if not line.startswith(("#", "listener"))
    ]
    assert len(lines) == 7
    # Its own settings come first in a configuration, so the listener of the test is above them.
    start(*lines, port=site.mqtt_port)
    attach(stage, site)
    done = probe(run, site, site.mqtt_port)
    assert (done.code, checks(done, "finding")) == (0, set()), done.out


def test_a_broker_that_lets_everybody_in_is_found_from_outside(
    run: Run, stage: Stage, site: Site, start: Start
) -> None:
    detach(stage, site)
    done = probe(run, site, start("allow_anonymous true"))
    assert done.code == 1
    assert {"anonymous", "stranger", "special_characters", "allow_anonymous"} <= checks(
        done, "finding"
    )
    assert {"plugin", "loaded", "attached", "audience"} <= checks(done, "finding")


def test_a_broker_that_fails_open_is_found_while_the_daemon_is_held(
    run: Run, site: Site, start: Start
) -> None:
    done = probe(run, site, start("allow_anonymous true"), "--stall")
    assert "fail_mode" in checks(done, "finding")


def test_certificates_that_become_user_names_are_found(
    run: Run, stage: Stage, site: Site, start: Start, tmp_path: Path
) -> None:
    other = free_port()
    start(
        *good_lines(site),
        f"listener {other} 127.0.0.1",
        "use_identity_as_username true",
        port=site.mqtt_port,
    )
    attach(stage, site)
    done = probe(run, site, site.mqtt_port)
    assert (done.code, checks(done, "finding")) == (1, {"use_identity_as_username"})


def test_a_broker_that_asks_no_daemon_is_found(
    run: Run, stage: Stage, site: Site, start: Start
) -> None:
    detach(stage, site)
    lines = good_lines(site)
    lines[3] = f"plugin_opt_authd_socket {site.run_dir}/nobody.sock"
    done = probe(run, site, start(*lines, port=site.mqtt_port))
    assert done.code == 1
    assert checks(done, "finding") == {"attached", "plugin_opt_authd_socket"}
    (attached,) = [one for one in done.json["findings"] if one["check"] == "attached"]
    assert "`groupadd -rf authd-broker`" in attached["advice"]
    assert "`usermod -aG authd-broker mosquitto`" in attached["advice"]


def test_a_plugin_replaced_under_a_running_broker_is_found(
    run: Run, stage: Stage, site: Site, start: Start
) -> None:
    copy = stage.directory / "authd_mosquitto.so"
    copy.write_bytes(Path(str(find_plugin())).read_bytes())
    lines = good_lines(site)
    lines[2] = f"plugin {copy}"
    start(*lines, port=site.mqtt_port)
    attach(stage, site)
    assert probe(run, site, site.mqtt_port).code == 0
    copy.unlink()
    copy.write_bytes(b"another")
    done = probe(run, site, site.mqtt_port)
    assert (done.code, checks(done, "finding")) == (1, {"loaded"})


def test_a_second_plugin_is_found(run: Run, stage: Stage, site: Site, start: Start) -> None:
    other = "/usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so"
    lines = [*good_lines(site), f"plugin {other}"]
    lines.append(f"plugin_opt_config_file {stage.directory / 'dynsec.json'}")
    (stage.directory / "dynsec.json").write_text("{}", "utf-8")
    start(*lines, port=site.mqtt_port)
    attach(stage, site)
    done = probe(run, site, site.mqtt_port)
    assert done.code == 1
    assert {"other_plugin", "other_loaded"} <= checks(done, "finding")


def test_what_is_refused_while_the_daemon_is_away_is_the_fail_mode(
    run: Run, stage: Stage, site: Site, start: Start
) -> None:
    start(*good_lines(site), port=site.mqtt_port)
    assert site.daemon is not None
    site.daemon.stop()
    try:
        done = probe(run, site, site.mqtt_port)
    finally:
        stage.start_daemon(site)
    assert (done.code, checks(done, "finding")) == (1, {"daemon"})
    assert "fail_mode" in checks(done, "ok")


def test_what_cannot_be_probed_is_an_error(run: Run, site: Site, tmp_path: Path) -> None:
    nobody = probe(run, site, free_port())
    assert (nobody.code, nobody.json["reason"]) == (2, "no_response")
    for wrong in (
        ["probe", "emqx"],
        ["snippet", "emqx"],
        ["probe", "mosquitto", "--name=nobody"],
        ["probe", "mosquitto", "--at=nonsense"],
        ["probe", "mosquitto", "--tls", f"--cafile={tmp_path}/none"],
    ):
        assert run("broker", *wrong, site=site).code == 2


def test_a_configuration_that_is_named_and_not_there_is_an_error(
    run: Run, site: Site, start: Start, tmp_path: Path
) -> None:
    done = probe(run, site, start("allow_anonymous true"), f"--config={tmp_path}/none")
    assert (done.code, done.json["reason"]) == (2, "bad_config")


def test_the_process_behind_a_port_is_found_with_its_version(start: Start) -> None:
    process = find_process(start("allow_anonymous true"))
    assert process is not None
    assert (process.program, process.plugins) == ("mosquitto", ())
    assert process.version.startswith("2.")
    assert find_process(free_port()) is None

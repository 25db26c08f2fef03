"""Debian's Mosquitto with the plugin, a real daemon, and real clients."""

import subprocess
import time

from authd.demo.clients import Client
from authd.demo.stage import Site, Stage, wait_until
from authd.device import DeviceKey


def new_device(stage: Stage, site: Site, name: str, *arguments: str) -> DeviceKey:
    stage.authd("device", "new", name, *arguments, site=site)
    return DeviceKey.load(stage.directory / f"{name}.key")


def client_of(site: Site, key: DeviceKey, will: tuple[str, str] | None = None) -> Client:
    return Client(site.mqtt_port, client_id=key.client_id, device=key, will=will)


def command_of(site: Site, program: str, key: DeviceKey, *arguments: str) -> list[str]:
    login = ["-u", key.username, "-P", key.password(site.endpoint), "-i", key.client_id]
    place = ["-h", "127.0.0.1", "-p", str(site.mqtt_port)]
    return [f"/usr/bin/{program}", *place, *login, *arguments]


def mosquitto_client(
    site: Site,
    program: str,
    key: DeviceKey,
    *arguments: str,
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        command_of(site, program, key, *arguments),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_mosquitto_pub_and_sub_do_what_is_granted(stage: Stage, site: Site) -> None:
    pump = new_device(stage, site, "pump", "--pub=site/pump")
    watch = new_device(stage, site, "watch", "--sub=site/#")
    sent = mosquitto_client(site, "mosquitto_pub", pump, "-t", "site/pump", "-m", "7", "-r")
    assert sent.returncode == 0, sent.stderr
    got = mosquitto_client(site, "mosquitto_sub", watch, "-t", "site/#", "-C", "1", "-W", "5")
    assert got.stdout == "7\n", got.stderr
    refused = mosquitto_client(site, "mosquitto_sub", watch, "-t", "#", "-C", "1", "-W", "2")
    assert "7" not in refused.stdout


def test_a36_a_revoked_device_loses_its_session_within_two_seconds(
    stage: Stage,
    site: Site,
) -> None:
    pump = new_device(stage, site, "pump", "--pub=site/pump")
    watch = new_device(stage, site, "watch", "--sub=site/#")
    with client_of(site, watch) as observer, client_of(site, pump, ("site/pump", "will")) as victim:
        assert observer.subscribe("site/#")
        victim.publish("site/pump", "before")
        assert observer.received("site/pump", "before")
        started = time.perf_counter()
        answer = stage.authd("revoke", "pump", site=site)
        wait_until(lambda: not victim.connected.is_set(), timeout_s=5, what="the session is gone")
        assert victim.lost_at - started < 2
        assert answer["state"] == "in force"
        assert [cut["outcome"] for cut in answer["cut"]] == ["kicked"]
        # A37: it comes back within a second, and never gets in.
        wait_until(lambda: victim.refused >= 2, timeout_s=10, what="reconnects are refused")
        assert victim.accepted == 1
        assert observer.never_received("will")


def test_a42_a_revocation_says_where_retained_messages_were_left(stage: Stage, site: Site) -> None:
    pump = new_device(stage, site, "pump", "--pub=site/+/temp")
    watch = new_device(stage, site, "watch", "--sub=site/#")
    lines = command_of(site, "mosquitto_pub", pump, "-t", "site/a/temp", "-r", "-q", "1", "-l")
    with (
        client_of(site, watch) as observer,
        subprocess.Popen(lines, stdin=subprocess.PIPE, text=True) as publisher,
    ):
        try:
            assert observer.subscribe("site/#")
            assert publisher.stdin is not None
            publisher.stdin.write("20\n")
            publisher.stdin.flush()
            assert observer.received("site/a/temp", "20")
            answer = stage.authd("revoke", "pump", site=site)
        finally:
            publisher.kill()
    left = {"broker": "mosquitto", "client_id": pump.client_id, "topic": "site/a/temp"}
    assert [cut["outcome"] for cut in answer["cut"]] == ["kicked"]
    assert (answer["retained"], answer["retained_more"]) == ([left], 0)


def test_a44_a_session_ends_with_its_grant(stage: Stage, site: Site) -> None:
    brief = new_device(stage, site, "brief", "--pub=site/brief", "--for=3s")
    with client_of(site, brief) as client:
        assert client.accepted == 1
        wait_until(lambda: not client.connected.is_set(), timeout_s=8, what="the session ends")
        wait_until(lambda: client.refused >= 1, timeout_s=8, what="it stays out")
        assert client.accepted == 1


def test_a_running_session_gains_a_right_without_reconnecting(stage: Stage, site: Site) -> None:
    pump = new_device(stage, site, "pump", "--pub=site/pump")
    watch = new_device(stage, site, "watch", "--sub=site/#")
    with client_of(site, watch) as observer, client_of(site, pump) as client:
        assert observer.subscribe("site/#")
        client.publish("site/extra", "too early")
        assert observer.never_received("too early")
        stage.authd("grant", "pump", "--pub=site/extra", site=site)
        deadline = time.perf_counter() + 5
        while not observer.received("site/extra", "now", within_s=0.3):
            client.publish("site/extra", "now")
            assert time.perf_counter() < deadline
        assert client.accepted == 1


def test_a47_the_sockets_answer_only_their_users(site: Site) -> None:
    assert (site.run_dir / "admin.sock").stat().st_mode & 0o777 == 0o600
    assert (site.run_dir / "broker.sock").stat().st_mode & 0o777 == 0o660
    nobody = ["/usr/sbin/runuser", "-u", "nobody", "--", "/usr/bin/curl", "-s", "--unix-socket"]
    target = [str(site.run_dir / "admin.sock"), "-d", "{}", "http://authd/v1/admin/status"]
    done = subprocess.run(
        [*nobody, *target],
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )
    assert done.returncode != 0 or "not_granted" in done.stdout


def test_live_sessions_go_on_while_the_daemon_is_away_and_are_known_when_it_is_back(
    stage: Stage,
    site: Site,
) -> None:
    pump = new_device(stage, site, "pump", "--pub=site/pump")
    watch = new_device(stage, site, "watch", "--sub=site/#")
    with client_of(site, watch) as observer, client_of(site, pump) as client:
        assert observer.subscribe("site/#")
        assert site.daemon is not None
        site.daemon.stop()
        client.publish("site/pump", "alone")
        assert observer.received("site/pump", "alone")
        late = new_client_refused(site, pump)
        assert late.accepted == 0
        stage.start_daemon(site)
        stage.await_status(
            site,
            lambda status: any(one["attached"] for one in status["brokers"]),
            what="the plugin attaches again",
        )
        client.publish("site/pump", "together")
        assert observer.received("site/pump", "together")
        assert client.accepted == 1
        sessions = stage.authd("sessions", "list", site=site)["sessions"]
        assert {one["client_id"] for one in sessions} == {pump.client_id, watch.client_id}
        stage.authd("revoke", "pump", site=site)
        wait_until(lambda: not client.connected.is_set(), timeout_s=5, what="the session is gone")


def new_client_refused(site: Site, key: DeviceKey) -> Client:
    client = Client(site.mqtt_port, client_id=f"{key.client_id}x", device=key)
    with client:
        return client

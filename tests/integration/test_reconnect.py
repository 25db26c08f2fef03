"""Reconnects that Mosquitto's plugin judges by itself, beside a real daemon."""

import time

import pytest

from authd.demo.clients import Client
from authd.demo.stage import Site, Stage, wait_until
from authd.device import DeviceKey


@pytest.fixture
def pump(stage: Stage, site: Site) -> DeviceKey:
    key_file = stage.directory / "pump.key"
    stage.authd("device", "new", "pump", "--pub=site/pump", f"--out={key_file}", site=site)
    return DeviceKey.load(key_file)


# As far ahead as the plugin judges itself: of what it let in, nothing is left to an unlucky second.
AHEAD_S = 4
STARTED_S = 3.0


def proof_of(site: Site, key: DeviceKey, *, ahead_s: int = 0) -> str:
    return key.password(site.endpoint, now=int(time.time()) + ahead_s)


def client(site: Site, key: DeviceKey, password: str) -> Client:
    return Client(site.mqtt_port, client_id=key.client_id, username=key.username, password=password)


def is_admitted(client: Client) -> bool:
    """Wait until the broker let a client in; one that was told "later" has come again by then."""
    wait_until(lambda: client.accepted > 0, timeout_s=5, what="the client is let in")
    return client.accepted == 1


def is_live(stage: Stage, site: Site, key: DeviceKey) -> bool | None:
    sessions = stage.authd("sessions", "list", site=site)["sessions"]
    return next((one["live"] for one in sessions if one["client_id"] == key.client_id), None)


def attached(stage: Stage, site: Site) -> None:
    stage.await_status(
        site,
        lambda status: any(one["attached"] for one in status["brokers"]),
        what="the plugin attaches again",
    )


def test_a_client_comes_back_while_the_daemon_is_away_and_the_daemon_learns_of_it(
    stage: Stage, site: Site, pump: DeviceKey
) -> None:
    attached(stage, site)
    time.sleep(STARTED_S)
    with client(site, pump, proof_of(site, pump)) as first:
        assert is_admitted(first)
    wait_until(lambda: is_live(stage, site, pump) is False, timeout_s=5, what="the client is away")
    assert site.daemon is not None
    site.daemon.stop()
    used = proof_of(site, pump, ahead_s=AHEAD_S)
    with client(site, pump, used) as back:
        assert is_admitted(back)
        with client(site, pump, used) as thief:
            assert thief.accepted == 0
        stage.start_daemon(site)
        attached(stage, site)
        wait_until(
            lambda: is_live(stage, site, pump) is True, timeout_s=5, what="the daemon was told"
        )
        stage.authd("revoke", "pump", site=site)
        wait_until(lambda: not back.connected.is_set(), timeout_s=5, what="it is cut")
    with client(site, pump, proof_of(site, pump)) as late:
        assert late.accepted == 0


def test_a4_what_the_plugin_accepted_is_used_up_for_the_next_run_of_the_broker(
    stage: Stage, site: Site, pump: DeviceKey
) -> None:
    attached(stage, site)
    time.sleep(STARTED_S)
    with client(site, pump, proof_of(site, pump)) as first:
        assert is_admitted(first)
    wait_until(lambda: is_live(stage, site, pump) is False, timeout_s=5, what="the client is away")
    used = proof_of(site, pump, ahead_s=AHEAD_S)
    with client(site, pump, used) as back:
        assert is_admitted(back)
        wait_until(
            lambda: is_live(stage, site, pump) is True, timeout_s=5, what="the daemon was told"
        )
    assert sum(one["effect"] == "allow" for one in site.decisions()) == 1, "it was not asked"
    assert site.broker is not None
    site.broker.stop()
    stage.start_broker(site)
    attached(stage, site)
    with client(site, pump, used) as thief:
        assert thief.accepted == 0
    with client(site, pump, proof_of(site, pump)) as again:
        assert is_admitted(again)

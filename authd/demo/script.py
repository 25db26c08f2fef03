"""The script: what is set up, shown, refused, cut, and found again."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

from authd.clock import SystemClock, SystemEntropy
from authd.core.encoding import encode_base64url
from authd.core.identity import SigningKey, key_id_text
from authd.core.proofs import password_key
from authd.demo.clients import Client
from authd.demo.narrator import Narrator
from authd.demo.stage import Site, Stage, StageError, wait_until
from authd.device import DeviceKey

_CUT_S: Final = 10.0
_PERMANENT_S: Final = 5.0


class Script:
    """One run of the demonstration."""

    def __init__(self, stage: Stage, narrator: Narrator) -> None:
        """Use a stage; nothing is started yet."""
        self._stage = stage
        self._tell = narrator
        self._entropy = SystemEntropy()
        self._now = SystemClock().now

    def run(self) -> None:
        """Play everything, in order.

        Raises:
            StageError: Something did not come up, so that there is nothing to show.
        """
        with ExitStack() as stack:
            self._set_up()
            self._issue()
            self._admit()
            self._fixed_password()
            self._refusals()
            self._gateway()
            self._late_joiner()
            self._revocation(stack)

    # --- 0: three daemons -----------------------------------------------------------------

    def _set_up(self) -> None:
        self._tell.chapter("Three daemons, three brokers, no server in the middle")
        stage = self._stage
        self.a = stage.add_site("A", with_mosquitto=True)
        self.b = stage.add_site("B", with_mosquitto=True)
        self.c = stage.add_site("C", with_mosquitto=False)
        self.d = stage.add_site("D", with_mosquitto=False)
        self._tell.brokers = [site.broker_kind for site in (self.a, self.b, self.c)]
        passphrase = f"--passphrase-file={stage.passphrase}"
        domain = stage.authd("init", *stage.setup_arguments(self.a), passphrase, site=self.a)
        stage.configure(self.a, replicate='"none"')
        self._tell.say(f"A made domain {domain['domain']}; its root key is encrypted")
        tickets = {
            "B": stage.authd("invite", "--name=b", site=self.a)["ticket"],
            "C": stage.authd("invite", "--name=c", "--operator", site=self.a)["ticket"],
        }
        stage.start_daemon(self.a)
        keys = [self._join(self.b, tickets["B"]), self._join(self.c, tickets["C"])]
        stage.authd("domain", "heartbeat", "add", *keys, passphrase, site=self.a)
        for site in (self.a, self.b, self.c):
            stage.await_status(site, _three_heartbeats, what=f"{site.name} is fresh")
        self._tell.claim("B and C joined by ticket, C as an operator", ok=True)
        self._tell.claim("root version 2 has three heartbeat keys, all live everywhere", ok=True)
        # Printed now, with every peer's address in it; used much later.
        self._late_ticket = stage.authd("invite", "--name=d", site=self.a)["ticket"]
        for site in (self.a, self.b):
            stage.start_broker(site)
        self._tell.say(f"brokers: {', '.join(self._tell.brokers)}")

    def _join(self, site: Site, ticket: str) -> str:
        answer = self._stage.authd(
            "join",
            "-",
            *self._stage.setup_arguments(site),
            site=site,
            stdin=f"{ticket}\n",
        )
        self._stage.configure(site, replicate='"none"')
        self._stage.start_daemon(site)
        return str(answer["heartbeat_key"])

    # --- 1: a device ----------------------------------------------------------------------

    def _issue(self) -> None:
        self._tell.chapter("1  A device is issued at A and found by B and C")
        self.thermo, issued = self._new_device(
            "thermo",
            "--pub=site/a/temp",
            "--sub=site/a/cmd/#",
        )
        self.observer, _ = self._new_device("observer", "--sub=site/#")
        self._tell.claim(
            "the device is a key with a signed grant",
            ok=issued["grant_bytes"] <= 600,  # noqa: PLR2004 - the bound of the format
            detail=f"key {issued['key_id']}, {issued['grant_bytes']} bytes",
        )

    def _new_device(self, name: str, *arguments: str) -> tuple[DeviceKey, dict[str, Any]]:
        answer = self._stage.authd("device", "new", name, *arguments, site=self.a)
        return DeviceKey.load(self._stage.directory / str(answer["key_file"])), answer

    # --- 2: admitted, and nothing else ----------------------------------------------------

    def _admit(self) -> None:
        self._tell.chapter("2  It does what it may, on all three, and nothing else")
        for site in (self.a, self.b, self.c):
            self._admit_at(site)
        for site in (self.b, self.c):
            why = self._stage.authd("trust", "why", self.thermo.username, site=site)
            source = why["paths"][0]["grants"][-1]["source"] if why["paths"] else "nowhere"
            self._tell.claim(
                f"{site.name} found the grant in the DHT",
                ok=source == "dht",
                detail=f"evidence: from {source}",
            )

    def _admit_at(self, site: Site) -> None:
        with (
            self._client(site, self.observer) as observer,
            self._client(site, self.thermo) as thermo,
        ):
            where = f"{site.name} ({site.broker_kind})"
            self._tell.claim(f"{where} admits it", ok=thermo.accepted == 1)
            observer.subscribe("site/#")
            thermo.publish("site/a/temp", f"21 at {site.name}")
            self._tell.claim(
                f"{where}: publish site/a/temp arrives",
                ok=observer.received("site/a/temp", f"21 at {site.name}"),
            )
            thermo.publish("site/a/door", "open")
            self._tell.claim(
                f"{where}: publish site/a/door does not",
                ok=observer.never_received("open"),
            )
            self._tell.claim(
                f"{where}: subscribe site/a/cmd/# is granted",
                ok=thermo.subscribe("site/a/cmd/#"),
            )
            for wider in ("#", "site/a/+/#", "$share/g/site/a/+/#"):
                self._tell.claim(
                    f"{where}: subscribe {wider} is refused",
                    ok=not thermo.subscribe(wider),
                )

    def _client(self, site: Site, device: DeviceKey, **more: Any) -> Client:  # noqa: ANN401 - passed on
        return Client(site.mqtt_port, client_id=device.client_id, device=device, **more)

    # --- 3: a fixed password --------------------------------------------------------------

    def _fixed_password(self) -> None:
        self._tell.chapter("3  A client that can only keep one fixed password")
        meter = self._stage.authd(
            "device",
            "new",
            "meter",
            "--password",
            "--pub=site/a/meter",
            site=self.a,
        )
        client = Client(
            self.a.mqtt_port,
            client_id=meter["client_id"],
            username=meter["key_id"],
            password=meter["password"],
        )
        with client:
            self._tell.claim("it is admitted by A, unmodified", ok=client.accepted == 1)
            again = client.reconnect() and client.reconnect()
            self._tell.claim("it reconnects twice with the same password", ok=again)

    # --- 4: refusals ----------------------------------------------------------------------

    def _refusals(self) -> None:
        self._tell.chapter("4  Refused, each with its sentence")
        key, site = self.thermo, self.a
        stranger = DeviceKey(
            key=SigningKey.from_seed(self._entropy.token(32)),
            domain=key.domain,
            client_id="",
        )
        self._refuse("a stranger's key", "unknown_key", stranger)
        self._refuse_expired()
        # So far ahead that the plugin, which knows a replay by itself, asks the daemon.
        replayed = key.password(site.endpoint, now=self._now() + 20)
        with Client(
            site.mqtt_port,
            client_id=key.client_id,
            username=key.username,
            password=replayed,
        ):
            pass
        self._refuse("a replayed proof", "replayed", key, password=replayed)
        self._refuse(
            "a proof made for another broker",
            "wrong_audience",
            key,
            password=key.password(site.other_endpoint),
        )
        self._refuse(
            "a proof made for another client id",
            "wrong_client_id",
            key,
            client_id="somebody-else",
        )
        self._refuse(
            "a clock that is five minutes ahead",
            "clock_skew",
            key,
            password=key.password(site.endpoint, now=self._now() + 300),
        )
        self._refuse_password_form()
        self._refuse_taken()

    def _refuse(
        self,
        what: str,
        reason: str,
        device: DeviceKey,
        *,
        client_id: str = "",
        username: str = "",
        password: str = "",
    ) -> None:
        """Connect until the refusal is final, then look up what the daemon said of it."""
        site, own_id = self.a, device.client_id or device.username
        deadline = time.perf_counter() + _PERMANENT_S
        while True:
            seen = len(site.decisions())
            client = Client(
                site.mqtt_port,
                client_id=client_id or own_id,
                username=username or device.username,
                password=password or device.password(site.endpoint, client_id=own_id),
            )
            with client:
                admitted = client.accepted > 0
            said = site.decisions()[seen:]
            decision = said[0] if said else {"reason": "", "detail": "the daemon was not asked"}
            temporary = decision["reason"] == "lookup_in_progress"
            if not temporary or time.perf_counter() > deadline:
                break
        ok = not admitted and decision["reason"] == reason
        self._tell.claim(what, ok=ok, detail=f"{decision['detail']} ({decision['reason']})")

    def _refuse_expired(self) -> None:
        brief, _ = self._new_device("brief", "--pub=site/a/brief", "--for=1s")
        time.sleep(1.5)
        self._refuse("an expired grant", "expired", brief)

    def _refuse_password_form(self) -> None:
        secret = encode_base64url(self._entropy.token(16))
        key = password_key(secret)
        self._stage.authd(
            "grant",
            encode_base64url(key.public),
            "--pub=site/a/x",
            site=self.a,
        )
        device = DeviceKey(key=key, domain=self.thermo.domain, client_id=key_id_text(key.public))
        self._refuse(
            "the password form on a grant that does not allow it",
            "form_not_allowed",
            device,
            password=secret,
        )

    def _refuse_taken(self) -> None:
        first, _ = self._new_device("first", "--pub=site/a/f", "--client-id=pump-1")
        second, _ = self._new_device("second", "--pub=site/a/s", "--client-id=pump-1")
        with self._client(self.a, first) as holder:
            self._refuse("a client id held by another key", "client_id_taken", second)
            self._tell.claim("its holder stays connected", ok=holder.connected.is_set())

    # --- 5: a gateway ---------------------------------------------------------------------

    def _gateway(self) -> None:
        self._tell.chapter("5  A gateway admits its sensor, offline")
        gateway, _ = self._new_device(
            "gateway",
            "--pub=site/b/#",
            "--sub=site/b/#",
            "--depth=1",
        )
        self._gateway_id = gateway.username
        self.sensor = self._by_gateway("sensor", "--pub=site/b/s1")
        greedy = self._by_gateway("greedy", "--pub=site/#")
        with self._client(self.b, self.observer) as observer:
            observer.subscribe("site/#")
            with self._client(self.b, self.sensor) as sensor:
                sensor.publish("site/b/s1", "7")
                self._tell.claim(
                    "the sensor gets in at B and its message arrives",
                    ok=sensor.accepted == 1 and observer.received("site/b/s1", "7"),
                    detail=f"the gateway granted it {len(self.sensor.path[-1].encoded)} bytes",
                )
            with self._client(self.b, greedy) as wide:
                wide.publish("site/a/temp", "forged")
                self._tell.claim(
                    "a grant wider than the gateway's own gives no more than that",
                    ok=wide.accepted == 1 and observer.never_received("forged"),
                )

    def _by_gateway(self, name: str, *arguments: str) -> DeviceKey:
        """Issue with the gateway's key file alone: no daemon, no state directory."""
        answer = self._stage.authd("device", "new", name, "--issuer=gateway.key", *arguments)
        return DeviceKey.load(self._stage.directory / str(answer["key_file"]))

    # --- 6: a late joiner -----------------------------------------------------------------

    def _late_joiner(self) -> None:
        self._tell.chapter("6  D joins late; the issuing daemon is stopped")
        if self.a.daemon is not None:
            self.a.daemon.stop()
        self._tell.say("A is stopped")
        self._join(self.d, self._late_ticket)
        self._stage.await_status(self.d, _fresh, what="D is fresh")
        with self._client(self.d, self.thermo) as thermo:
            self._until(lambda: thermo.accepted > 0)
            self._tell.claim(
                "D admits the device from what the network holds",
                ok=thermo.accepted > 0,
            )
        why = self._stage.authd("trust", "why", self.thermo.username, site=self.d)
        source = why["paths"][0]["grants"][-1]["source"] if why["paths"] else "nowhere"
        self._tell.claim("its evidence says where from", ok=source == "dht", detail=source)
        self._stage.start_daemon(self.a)
        self._stage.await_status(self.a, _fresh, what="A is fresh again")
        self._stage.await_status(self.a, _has_peers, what="A has found its peers again")
        self._stage.await_status(self.a, _attached, what="A's plugin is attached again")
        with self._client(self.a, self.thermo) as thermo:
            self._until(lambda: thermo.accepted > 0)
            self._tell.claim("A restarts and goes on", ok=thermo.accepted > 0)

    def _until(self, condition: Callable[[], bool]) -> None:
        try:
            wait_until(condition, timeout_s=_CUT_S, what="the client gets in")
        except StageError:
            return

    # --- 7: revocation --------------------------------------------------------------------

    def _revocation(self, stack: ExitStack) -> None:
        self._tell.chapter("7  Revoked at C, gone everywhere")
        sites = (self.a, self.b, self.c)
        observers = [stack.enter_context(self._client(site, self.observer)) for site in sites]
        for observer in observers:
            observer.subscribe("site/#")
        will = ("site/a/temp", "last will")
        victims = [
            stack.enter_context(self._client(site, self.thermo, will=will)) for site in sites
        ]
        self._tell.claim(
            "the device is live on A, B and C",
            ok=all(victim.connected.is_set() for victim in victims),
        )
        self._cut("the device", self.thermo.username, sites, victims)
        time.sleep(2.5)
        self._tell.claim(
            "there is no way back in",
            ok=all(victim.accepted == 1 and victim.refused > 0 for victim in victims),
            detail=f"{sum(victim.refused for victim in victims)} attempts were refused",
        )
        self._tell.claim(
            "no will was published",
            ok=all(observer.never_received("last will") for observer in observers),
        )
        sensors = [stack.enter_context(self._client(site, self.sensor)) for site in sites]
        self._until(lambda: all(sensor.connected.is_set() for sensor in sensors))
        live = all(sensor.connected.is_set() for sensor in sensors)
        self._tell.claim("the gateway's sensor is live on A, B and C", ok=live)
        self._cut("the sensor, by revoking its gateway,", self._gateway_id, sites, sensors)

    def _cut(
        self,
        what: str,
        key_id: str,
        sites: tuple[Site, ...],
        victims: list[Client],
    ) -> None:
        started = time.perf_counter()
        answer = self._stage.authd("revoke", key_id, "--reason=demonstration", site=self.c)
        try:
            wait_until(
                lambda: not any(victim.connected.is_set() for victim in victims),
                timeout_s=_CUT_S,
                what="every session is gone",
            )
        except StageError:
            self._tell.say("a session is still there")
        for site, victim in zip(sites, victims, strict=True):
            gone = victim.lost_at > started
            seconds = round(victim.lost_at - started, 3) if gone else _CUT_S
            self._tell.revoke_to_cut_s.append(seconds)
            self._tell.claim(
                f"{what} is gone from {site.name} ({site.broker_kind})",
                ok=gone and seconds < 2,  # noqa: PLR2004 - the promise
                detail=f"{seconds:.2f} s after the command began",
            )
        self._tell.claim(
            "the revocation is signed by most heartbeat keys",
            ok=answer["state"] == "in force",
            detail=str(answer["state"]),
        )


def _three_heartbeats(status: dict[str, Any]) -> bool:
    keys = status["domains"][0]["heartbeat_keys"]
    return len([key for key in keys if key["live"]]) == len(keys) == 3  # noqa: PLR2004 - A, B and C


def _fresh(status: dict[str, Any]) -> bool:
    domain = status["domains"][0]
    return bool(domain["fresh"]) and domain["root_version"] == 2  # noqa: PLR2004 - with three heartbeat keys


def _has_peers(status: dict[str, Any]) -> bool:
    return len(status["peers"]) >= 2  # noqa: PLR2004 - B and C; D may be on its way


def _attached(status: dict[str, Any]) -> bool:
    return any(one["attached"] for one in status["brokers"])

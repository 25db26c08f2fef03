"""Daemons on the same link, by multicast DNS (RFC 6762) and service discovery (RFC 6763).

What everybody on the link can see: an instance name drawn anew at each start, host address and
gossip port, the protocol version, and a tag of the domain by which its members know each other and
others learn nothing but that two daemons are of one domain. Answers are not signed, and anybody on
the link can give any: an address from here is tried, and the gossip handshake decides.
"""

import asyncio
import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import ifaddr
import structlog
from zeroconf import (
    BadTypeInNameException,
    Error,
    InterfaceChoice,
    IPVersion,
    ServiceStateChange,
    Zeroconf,
)
from zeroconf.asyncio import AsyncServiceBrowser, AsyncServiceInfo, AsyncZeroconf

from authd.core.addresses import join_address
from authd.core.identity import DomainId
from authd.discovery.rendezvous import Suggest
from authd.service.ports import Entropy

# RFC 6763 §7.2: at most 15 letters, digits and hyphens after the underscore.
SERVICE: Final = "_authd._tcp.local."
VERSION: Final = "1"
TAG_BYTES: Final = 4
_TAG_LABEL: Final = b"authd/mdns/1"
_INSTANCE_BYTES: Final = 8
# What is announced and not looked at yet; more than a link of daemons has, little for junk.
MAX_WAITING: Final = 32
_LOOKERS: Final = 8
_LOOK_MS: Final = 1_000
_MAX_ADDRESSES: Final = 4
# An instance is looked at again after so long, however often it is announced.
_AGAIN_S: Final = 60.0
_MAX_LOOKED_AT: Final = 256
# The library remembers whatever is said on the link for as long as that says.
_MAX_CACHED: Final = 2_048
_CHECK_S: Final = 5.0
_RETRY_S: Final = 30.0
_log = structlog.get_logger("authd.discovery")


def domain_tag(domain: DomainId) -> str:
    """Return the tag of a domain: the first 4 bytes of SHA-256(`authd/mdns/1` ‖ domain id), hex."""
    return hashlib.sha256(_TAG_LABEL + domain).digest()[:TAG_BYTES].hex()


class LanDiscovery:
    """Announces this node on its links and hands on what others announce; keep `run` running."""

    def __init__(
        self,
        *,
        domain: DomainId,
        host: str,
        port: Callable[[], int | None],
        suggest: Suggest,
        entropy: Entropy,
    ) -> None:
        """Prepare; nothing is sent before `run`.

        Args:
            domain: Whose nodes are looked for.
            host: Where gossip listens; an unspecified address means every interface but loopback.
            port: On which port; None while it does not.
            suggest: Takes what is found.
            entropy: The instance name.
        """
        self._tag = domain_tag(domain)
        self._host = host
        self._port = port
        self._suggest = suggest
        self._name = f"{entropy.token(_INSTANCE_BYTES).hex()}.{SERVICE}"
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)
        self._looked_at: OrderedDict[str, float] = OrderedDict()
        self.found = 0
        self.dropped = 0
        self.problem = ""

    async def run(self) -> None:
        """Announce and listen until cancelled; a link without multicast is tried again."""
        # It would write a line for every datagram that is none.
        logging.getLogger("zeroconf").disabled = True
        while True:
            try:
                await self._serve()
                wait_s = 0.0
            except Exception as error:  # noqa: BLE001 - the one net of this edge: a link is no reason to end gossip
                self.problem = f"{type(error).__name__}: {error}"
                _log.warning("mdns.failed", detail=self.problem)
                wait_s = _RETRY_S
            await asyncio.sleep(wait_s)

    async def _serve(self) -> None:
        """Serve until the library has cached too much to go on with."""
        addresses = own_addresses(self._host)
        multicast = AsyncZeroconf(
            interfaces=addresses or InterfaceChoice.Default,
            ip_version=None if addresses else IPVersion.V4Only,
        )
        try:
            port = self._port()
            if port is not None and addresses:
                info = AsyncServiceInfo(
                    SERVICE,
                    self._name,
                    port=port,
                    properties={"v": VERSION, "d": self._tag},
                    parsed_addresses=addresses,
                    server=f"{self._name.partition('.')[0]}.local.",
                )
                await (await multicast.async_register_service(info, cooperating_responders=True))
            browser = AsyncServiceBrowser(multicast.zeroconf, SERVICE, handlers=[self._on_change])
            self.problem = ""
            try:
                await self._listen(multicast.zeroconf)
            finally:
                await browser.async_cancel()
        finally:
            await multicast.async_close()

    async def _listen(self, zeroconf: Zeroconf) -> None:
        async with asyncio.TaskGroup() as group:
            lookers = [
                group.create_task(self._keep_looking(zeroconf), name=f"mdns-look-{number}")
                for number in range(_LOOKERS)
            ]
            while True:
                await asyncio.sleep(_CHECK_S)
                if sum(map(len, zeroconf.cache.cache.values())) > _MAX_CACHED:
                    break
                # The library tells of an instance once; what did not fit then may fit now.
                for record in zeroconf.cache.entries_with_name(SERVICE):
                    alias = getattr(record, "alias", "")
                    if alias:
                        self._offer(alias)
            for looker in lookers:
                looker.cancel()

    def _on_change(
        self,
        zeroconf: Zeroconf,  # noqa: ARG002 - the library calls with these names
        service_type: str,
        name: str,
        state_change: ServiceStateChange,
    ) -> None:
        if state_change is not ServiceStateChange.Removed and service_type == SERVICE:
            self._offer(name)

    def _offer(self, name: str) -> None:
        now = asyncio.get_running_loop().time()
        if name == self._name or now < self._looked_at.get(name, 0.0):
            return
        if self._waiting.full():
            self.dropped += 1
            return
        self._looked_at[name] = now + _AGAIN_S
        if len(self._looked_at) > _MAX_LOOKED_AT:
            self._looked_at.popitem(last=False)
        self._waiting.put_nowait(name)

    async def _keep_looking(self, zeroconf: Zeroconf) -> None:
        while True:
            await self._look(zeroconf, await self._waiting.get())

    async def _look(self, zeroconf: Zeroconf, name: str) -> None:
        try:
            info = AsyncServiceInfo(SERVICE, name)
            complete = info.load_from_cache(zeroconf)
            complete = complete or await info.async_request(zeroconf, _LOOK_MS)
        except (BadTypeInNameException, Error, OSError, ValueError):
            complete, info = False, None
        if info is None or not complete or not info.port:
            self.dropped += 1
            return
        wanted = {b"v": VERSION.encode(), b"d": self._tag.encode()}
        if any(info.properties.get(key) != value for key, value in wanted.items()):
            return
        for host in info.parsed_addresses(IPVersion.All)[:_MAX_ADDRESSES]:
            self.found += self._suggest(join_address(host, info.port), None)


def own_addresses(host: str) -> list[str]:
    """Return the addresses to announce and listen on.

    Args:
        host: Where gossip listens: an address, which is then all; an unspecified one means those
            of every interface, loopback left out.
    """
    if host not in {"", "0.0.0.0", "::"}:  # noqa: S104 - compared with, not bound
        return [host]
    addresses = [
        ip.ip
        for adapter in ifaddr.get_adapters()
        for ip in adapter.ips
        if isinstance(ip.ip, str) and not ip.ip.startswith("127.")
    ]
    return addresses[:_MAX_INTERFACES]


_MAX_INTERFACES: Final = 16

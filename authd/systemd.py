"""Telling systemd how we are: readiness, watchdog, stopping (sd_notify(3))."""

import os
import socket
from typing import Final

_MICROSECONDS: Final = 1_000_000


def notify(state: str) -> None:
    """Send one state, for example ``READY=1``; does nothing outside systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(state.encode(), name)


def watchdog_s() -> float | None:
    """Return how often the watchdog wants to hear of us, with a margin; None if it does not."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    return int(usec) / _MICROSECONDS / 3 if usec.isdigit() and int(usec) else None

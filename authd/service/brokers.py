"""Broker entries: what each configured broker is called, can enforce, and how it is told to cut."""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from authd.core.proofs import Audience

KINDS: Final = ("mosquitto", "embedded", "go-auth")
# Kinds whose enforcement point drops single rights in place; the others lose the session.
_SHRINKING: Final = frozenset({"embedded"})
# Kinds whose enforcement point says when a session begins and ends.
_REPORTING: Final = frozenset({"embedded", "mosquitto"})
# Kinds whose enforcement point can judge a reconnect by itself.
_VERIFYING: Final = frozenset({"mosquitto"})


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerEntry:
    """One broker.

    Attributes:
        name: Its id: in URLs, certificates, decisions and session names.
        kind: One of `KINDS`.
        audiences: Names it is dialled by; what a proof must be for.
        secret: 22 characters, for URLs; compared in constant time, never printed.
        on_revoke: What becomes of the will of a session that is cut: ``suppress``, ``publish``.
        prefixes: Topic filters it is announced for to the domain; none, and it is not announced.
        takeover: ``host:port`` where authd may take over a client id to end its session; empty
            turns that off.
    """

    name: str
    kind: str
    audiences: tuple[Audience, ...]
    secret: str = field(repr=False)
    on_revoke: str = "suppress"
    takeover: str = ""
    prefixes: tuple[str, ...] = ()

    @property
    def reports(self) -> bool:
        """Whether the broker says when a session begins and ends."""
        return self.kind in _REPORTING

    @property
    def verifies(self) -> bool:
        """Whether the broker can judge a pop of a session that it knows by itself."""
        return self.kind in _VERIFYING

    @property
    def shrinks(self) -> bool:
        """Whether a right can be taken from a live session without ending it."""
        return self.kind in _SHRINKING


class Brokers:
    """The configured brokers by name."""

    def __init__(self, entries: Iterable[BrokerEntry]) -> None:
        """Keep the entries; `replace` changes them at a reload."""
        self._entries = {entry.name: entry for entry in entries}

    def replace(self, entries: Iterable[BrokerEntry]) -> None:
        """Use other entries from now on."""
        self._entries = {entry.name: entry for entry in entries}

    def get(self, name: str) -> BrokerEntry | None:
        """Return an entry."""
        return self._entries.get(name)

    def all(self) -> list[BrokerEntry]:
        """Return every entry."""
        return list(self._entries.values())

    def authenticate(self, place: str) -> BrokerEntry | None:
        """Find the entry of ``<name>.<secret>``, as URLs carry it; None if they do not fit."""
        name, _, secret = place.rpartition(".")
        entry = self._entries.get(name)
        expected = entry.secret if entry else "?" * 22
        matches = hmac.compare_digest(expected.encode(), secret.encode("utf-8", "replace"))
        return entry if matches else None

    def is_sole(self, entry: BrokerEntry, audience: Audience) -> bool:
        """Say whether no other entry goes by an audience."""
        return not any(
            audience in other.audiences
            for other in self._entries.values()
            if other.name != entry.name
        )

    def other_audiences(self, entry: BrokerEntry) -> list[Audience]:
        """Return what the other brokers here go by, to explain a mismatch."""
        return [
            audience
            for other in self._entries.values()
            if other.name != entry.name
            for audience in other.audiences
            if audience not in entry.audiences
        ]

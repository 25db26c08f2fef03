"""Packets of enhanced authentication, taken apart line by line and put together again."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DOC: Final = Path(__file__).parents[2] / "docs" / "challenge.md"
METHOD: Final = b"authd-1"
_HEAD: Final = re.compile(r"([A-Z]+) +(client → broker|broker → client)")
_LINE: Final = re.compile(r"((?:[0-9a-f]{2} ?)+) {2,}(\S.*)")
_COLUMN: Final = 54
_WRAP: Final = 16
# What is drawn anew for each exchange, or depends on that.
DRAWN: Final = ("key id", "issuer", "client nonce", "server nonce", "signature", "time", "nonce")


@dataclass(frozen=True)
class Packet:
    """One packet: its name, its direction, and its bytes in parts with what each is."""

    name: str
    way: str
    parts: tuple[tuple[bytes, str], ...]

    @property
    def data(self) -> bytes:
        return b"".join(part for part, _ in self.parts)

    def shape(self) -> list[tuple[bytes | int, str]]:
        """Return the parts with what is drawn anew replaced by its length."""
        return [(len(part) if what.startswith(DRAWN) else part, what) for part, what in self.parts]

    def part(self, what: str) -> bytes:
        (found,) = [part for part, name in self.parts if name == what]
        return found


def read(page: str) -> list[list[Packet]]:
    """Read the traces of a page."""
    blocks = re.findall(r"```text\n(.*?)```", page, re.DOTALL)
    return [list(_read_block(block)) for block in blocks]


def _read_block(block: str) -> Iterator[Packet]:
    name = way = ""
    parts: list[tuple[bytes, str]] = []
    for line in map(str.strip, block.splitlines()):
        if head := _HEAD.match(line):
            if name:
                yield Packet(name, way, tuple(parts))
            name, way, parts = head[1], head[2], []
        elif found := _LINE.match(line):
            parts.append((bytes.fromhex(found[1]), found[2]))
        elif line:
            parts[-1] = (parts[-1][0] + bytes.fromhex(line), parts[-1][1])
    yield Packet(name, way, tuple(parts))


def write(packets: list[Packet]) -> str:
    """Write a trace as it stands on the page."""
    return "\n".join(map(_write_packet, packets))


def _write_packet(packet: Packet) -> str:
    lines = [f"{packet.name:8} {packet.way}, {len(packet.data)} bytes"]
    for part, what in packet.parts:
        rows = [part[at : at + _WRAP].hex(" ") for at in range(0, len(part), _WRAP)]
        lines += [f"  {rows[0]:{_COLUMN}}{what}", *(f"  {row}" for row in rows[1:])]
    return "\n".join(lines) + "\n"


# --- from bytes -------------------------------------------------------------------------------

_NAMES: Final = {0x10: "CONNECT", 0x20: "CONNACK", 0xF0: "AUTH"}
_REASONS: Final = {
    0x00: "success",
    0x18: "continue authentication",
    0x19: "re-authenticate",
    0x87: "not authorized",
}
# Of 16 bytes, or not there.
_ISSUER: Final = (0, "issuer of its grant: where to look, not signed")
_AUTH_DATA: Final = {
    1: ("single step", [(16, "key id"), (5, "time"), (8, "nonce"), _ISSUER, (64, "signature")]),
    2: ("hello", [(16, "key id"), (16, "client nonce"), _ISSUER]),
    3: ("challenge", [(16, "server nonce")]),
    4: ("response", [(64, "signature")]),
}
_NUMBERS: Final = {0x21: "receive maximum", 0x22: "topic alias maximum"}


class _Knife:
    """Cuts parts off the front of a packet."""

    def __init__(self, data: bytes) -> None:
        self.left = data
        self.parts: list[tuple[bytes, str]] = []

    def cut(self, count: int, what: str) -> bytes:
        part, self.left = self.left[:count], self.left[count:]
        assert len(part) == count
        self.parts.append((part, what))
        return part


def dissect(data: bytes, way: str) -> Packet:
    """Take one packet apart."""
    knife = _Knife(data)
    name = _NAMES[data[0]]
    length = 3 if data[1] & 0x80 else 2
    knife.cut(length, f"{name}, {len(data) - length} bytes follow")
    if name == "CONNECT":
        knife.cut(10, "protocol name, MQTT 5, flags: clean start; keep alive 30 s")
    elif name == "CONNACK":
        knife.cut(1, "no session present")
        _cut_reason(knife)
    elif knife.left:
        _cut_reason(knife)
    if knife.left:
        _cut_properties(knife)
    if name == "CONNECT":
        client_id = knife.left[2:].decode()
        knife.cut(len(knife.left), f"client id: `{client_id}`; no user name, no password")
    assert not knife.left
    return Packet(name, way, tuple(knife.parts))


def _cut_reason(knife: _Knife) -> None:
    code = knife.left[0]
    knife.cut(1, f"reason {code:#04x}: {_REASONS[code]}")


def _cut_properties(knife: _Knife) -> None:
    total = 2 if knife.left[0] & 0x80 else 1
    length = knife.left[0] & 0x7F | (knife.left[1] << 7 if total == 2 else 0)
    knife.cut(total, f"properties, {length} bytes")
    end = len(knife.left) - length
    while len(knife.left) > end:
        _cut_property(knife)


def _cut_property(knife: _Knife) -> None:
    identifier = knife.left[0]
    if identifier == 0x15:
        knife.cut(3 + len(METHOD), "authentication method: `authd-1`")
    elif identifier == 0x16:
        length = int.from_bytes(knife.left[1:3], "big")
        knife.cut(3, f"authentication data, {length} bytes")
        _cut_auth_data(knife, length)
    else:
        value = int.from_bytes(knife.left[1:3], "big")
        knife.cut(3, f"{_NUMBERS[identifier]}: {value}")


def _cut_auth_data(knife: _Knife, length: int) -> None:
    name, fields = _AUTH_DATA[knife.left[0]]
    knife.cut(1, name)
    optional = length - 1 - sum(size for size, _ in fields if size > 0)
    for size, what in fields:
        knife.cut(size or optional, what)

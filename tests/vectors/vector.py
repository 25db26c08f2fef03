"""What a vector is, and how its file looks.

A file is a header of ``name: value`` lines, a blank line, and hex of what is judged. Every file has
``kind``, ``expect`` (``ok`` or a reason code) and ``comment``; ``now`` where time matters, ``id``
where an id comes out, ``previous`` (hex) for the successor of a root, and for proofs ``username``,
``client-id``, ``audience`` and ``key`` (hex), for responses also ``hello`` and ``challenge``, for
rendezvous records ``domain`` (all hex).
"""

import base64
import textwrap
from dataclasses import dataclass, field
from typing import Final

from tests.vectors.wire import PROTECTED, cbor

NOW: Final = 1_800_000_000
WEAK: Final = (1).to_bytes(32, "little")
DOMAIN_ID: Final = bytes(range(16))
GRANT, REVOKE, HEARTBEAT, BROKER, ROOT = (
    f"authd/{kind}/1" for kind in ("grant", "revoke", "heartbeat", "broker", "root")
)


def text_id(data: bytes) -> str:
    """Write an id as people see it."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@dataclass(frozen=True, kw_only=True)
class Vector:
    """One scenario."""

    name: str
    kind: str
    expect: str
    comment: str
    body: bytes
    more: dict[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where it is written, under this folder."""
        return f"{self.kind}/{self.name}.txt"

    def render(self) -> str:
        """Write header and body."""
        lines = {"kind": self.kind, "expect": self.expect, **self.more, "comment": self.comment}
        header = "".join(f"{name}: {value}\n" for name, value in lines.items())
        return f"{header}\n" + "\n".join(textwrap.wrap(self.body.hex(), 96)) + "\n"


def payload_of(body: bytes) -> bytes:
    """Return the payload of an envelope that is well-formed."""
    start = 1 + len(cbor(PROTECTED)) + 1
    info = body[start] & 31
    return body[start + 1 + {24: 1, 25: 2}.get(info, 0) : -66]

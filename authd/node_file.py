"""``node.json``: what this state directory is part of, and the secrets of its broker entries."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from authd.core.encoding import encode_base64url
from authd.core.identity import DomainId, parse_id
from authd.errors import ConfigError, FormatError
from authd.service.ports import Entropy
from authd.store.keystore import write_private


@dataclass(slots=True, kw_only=True)
class NodeFile:
    """What a daemon must know before it can read its store.

    Attributes:
        domain: Own domain id, 22 characters.
        networked: Whether the peer port is open: set by the first invitation or join.
        peers: Addresses from the ticket, ``host:port``.
        broker_secrets: 22 characters each, by broker name.
    """

    domain: str
    networked: bool = False
    peers: list[str] = field(default_factory=list)
    broker_secrets: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def domain_id(self) -> DomainId:
        """The own domain.

        Raises:
            FormatError: The file was edited badly.
        """
        return DomainId(parse_id(self.domain))


def node_file_path(state_dir: Path) -> Path:
    """Return where it lies."""
    return state_dir / "node.json"


def load_node_file(state_dir: Path) -> NodeFile:
    """Read it.

    Raises:
        ConfigError: It is missing or damaged; says what to run.
    """
    path = node_file_path(state_dir)
    try:
        node = NodeFile(**json.loads(path.read_text("utf-8")))
        _ = node.domain_id
    except OSError as error:
        raise ConfigError(
            f"`{path}`: {error.strerror}; run `authd init` or `authd join` first",
        ) from error
    except (ValueError, TypeError, AttributeError, RecursionError, FormatError) as error:
        raise ConfigError(f"`{path}`: damaged") from error
    return node


def save_node_file(state_dir: Path, node: NodeFile) -> None:
    """Write it, whole or not at all.

    Raises:
        StoreError: It cannot be written.
    """
    text = json.dumps(asdict(node), indent=1) + "\n"
    write_private(node_file_path(state_dir), text, overwrite=True)


def ensure_secrets(state_dir: Path, node: NodeFile, brokers: list[str], entropy: Entropy) -> None:
    """Give every broker entry a secret of 128 bits.

    Raises:
        StoreError: The file cannot be written.
    """
    missing = [name for name in brokers if name not in node.broker_secrets]
    for name in missing:
        node.broker_secrets[name] = encode_base64url(entropy.token(16))
    if missing:
        save_node_file(state_dir, node)

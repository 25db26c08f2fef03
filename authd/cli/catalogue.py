"""Every command by name: where it is, and what it is for.

``authd --help`` is printed from here: the parser alone takes longer to load than the whole answer
may. What a command is for stands in its docstring too; a test holds the two together.
"""

from typing import Final, NamedTuple

ABOUT: Final = "Decentralized identity and authorization for MQTT brokers."
# The page is made for terminals of 80 columns, as the parser's own pages are.
_WIDTH: Final = 78
_HEAD: Final = f"""\
Usage: authd [OPTIONS] COMMAND [ARGS]...

  {ABOUT}

Options:
  --version  Show the version and exit.
  --help     Show this message and exit.

Commands:
"""


class Command(NamedTuple):
    """A command or group of commands: its module in `authd.cli`, and what it is for."""

    module: str
    purpose: str


COMMANDS: Final = {
    "backup": Command(
        "backup",
        "Write down what the network could not give back.",
    ),
    "restore": Command("backup", "Bring a backup back into an empty state directory."),
    "demo": Command("demo", "Show devices admitted, refused, explained and cut off."),
    "explain": Command("explain", "Say whether a key would be admitted, and why."),
    "grant": Command(
        "grant",
        "Grant topics to a key or a domain.",
    ),
    "init": Command("init", "Make a new domain on this host."),
    "inspect": Command("inspect", "Show what is inside; secrets are left out."),
    "invite": Command("invite", "Print a ticket for one new daemon."),
    "join": Command("join", "Join a domain with a ticket from `authd invite`."),
    "password": Command("password", "Make user name and password for one CONNECT."),
    "publish": Command("publish", "Publish a bundle of statements and records."),
    "revoke": Command("revoke", "Revoke a key or grant everywhere and cut its live sessions."),
    "revocations": Command("revoke", "List revocations, each pending or in force."),
    "shim": Command("shim", "Put fresh proofs into the CONNECTs of other clients."),
    "status": Command("status", "Show domain, freshness, peers, brokers and sessions."),
    "up": Command("up", "Run the daemon until SIGTERM."),
    "broker": Command("broker", "Brokers: their configuration, and its test."),
    "device": Command("device", "Devices: a device is its key."),
    "trust": Command("trust", "Which domains count here, and why a key does."),
    "domain": Command("heartbeat", "Change what the domain's root says."),
    "sessions": Command("sessions", "Live and durable sessions on the brokers."),
}


def overview() -> str:
    """Write what ``authd --help`` prints."""
    column = max(map(len, COMMANDS))
    room = _WIDTH - 6 - column
    rows = (f"  {name:{column}}  {_shorten(one.purpose, room)}\n" for name, one in COMMANDS.items())
    return _HEAD + "".join(rows)


def _shorten(line: str, room: int) -> str:
    """Keep the words that fit, as the parser does when it lists the commands of a group."""
    if len(line) <= room:
        return line
    return line[: line.rindex(" ", 0, room - 2)] + "..."

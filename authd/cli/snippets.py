"""Paste-ready ways to connect a device."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path

from authd.config import BrokerSettings
from authd.core.topics import Action
from authd.device import DeviceKey


def names_dialled(endpoints: Sequence[str]) -> list[str]:
    """Say by which names clients may dial the brokers: what is shown is for the first."""
    if len(endpoints) <= 1:
        return []
    return [
        f"brokers are dialled as {', '.join(f'`{one}`' for one in endpoints)};",
        "by another name nobody gets in: add it to `audiences` in authd.toml first.",
        "",
    ]


def pop_snippets(device: DeviceKey, key_file: Path, endpoint: str) -> list[str]:
    """Write how a client that can be programmed connects."""
    host, _, port = endpoint.rpartition(":")
    command = _mosquitto_command(device, host, port)
    return [
        f"mosquitto clients (one proof, good for a minute, made for `{endpoint}`):",
        f'  eval "$(authd password {shlex.quote(str(key_file))} {endpoint} --shell)"',
        f'  {command} -u "$AUTHD_USER" -P "$AUTHD_PASSWORD"',
        "",
        "paho-python (a fresh proof before each CONNECT, also reconnects):",
        "  import paho.mqtt.client as mqtt",
        "  from authd.device import DeviceKey",
        f"  key = DeviceKey.load({json.dumps(str(key_file))})",
        "  client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=key.client_id)",
        f'  client.on_pre_connect = key.on_pre_connect("{endpoint}")',
        f'  client.connect("{host}", {port}); client.loop_forever()',
    ]


def password_snippets(device: DeviceKey, secret: str, endpoint: str) -> list[str]:
    """Write how a client with one fixed password connects; the password is shown once."""
    host, _, port = endpoint.rpartition(":")
    command = _mosquitto_command(device, host, port)
    return [
        "For any client that keeps a fixed user name and password:",
        f"  host       {host}",
        f"  port       {port}",
        f"  client id  {device.client_id}",
        f"  user name  {device.username}",
        f"  password   {secret}",
        "",
        f"  {command} -u {device.username} -P '{secret}'",
        "",
        "The password is shown once and stored nowhere. It can be replayed by whoever reads it on",
        "the way: use TLS between client and broker.",
    ]


def join_group(group: str) -> str:
    """Write the commands that let Mosquitto's user open the socket."""
    name = shlex.quote(group)
    return f"`groupadd -rf {name}`, `usermod -aG {name} mosquitto`, then restart authd and broker"


def mosquitto_config(
    entry: BrokerSettings, socket: Path, plugin: Path, built: Path | None
) -> list[str]:
    """Write the lines of `mosquitto.conf` that let authd decide.

    ``built`` is where the plugin lies if it is not at its place yet, and how it gets there is said.
    """
    port = entry.endpoints[0].rpartition(":")[2]
    install = f"install -D -m 644 {shlex.quote(str(built))} {plugin}"
    return [
        f"# Mosquitto asks authd as `{entry.name}`; clients dial one of:",
        *(f"#   {endpoint}" for endpoint in entry.endpoints),
        "# The broker's user must be in the group `authd-broker`.",
        *([f"# The plugin is not there yet: {install}"] if built else []),
        "per_listener_settings false",
        "allow_anonymous false",
        "check_retain_source true",
        "persistent_client_expiration 7d",
        f"plugin {plugin}",
        f"plugin_opt_authd_socket {socket}",
        f"plugin_opt_authd_broker {entry.name}",
        f"listener {port}",
    ]


def _mosquitto_command(device: DeviceKey, host: str, port: str) -> str:
    scope = device.path[-1].scope
    where = f"-h {host} -p {port} -i {shlex.quote(device.client_id)}"
    publish = [entry.topic_filter for entry in scope if entry.actions & Action.PUB]
    if publish:
        return f"mosquitto_pub {where} -t {shlex.quote(_example(publish[0]))} -m hello"
    return f"mosquitto_sub {where} -t {shlex.quote(scope[0].topic_filter)}"


def _example(topic_filter: str) -> str:
    return "/".join("test" if level in ("+", "#") else level for level in topic_filter.split("/"))

"""Paste-ready ways to connect a device."""

from pathlib import Path

from authd.config import BrokerSettings
from authd.core.topics import Action
from authd.device import DeviceKey


def pop_snippets(device: DeviceKey, key_file: Path, endpoint: str) -> list[str]:
    """Write how a client that can be programmed connects."""
    host, _, port = endpoint.rpartition(":")
    command = _mosquitto_command(device, host, port)
    return [
        f"mosquitto clients (one proof, good for a minute, made for `{endpoint}`):",
        f'  eval "$(authd password {key_file} {endpoint} --shell)"',
        f'  {command} -u "$AUTHD_USER" -P "$AUTHD_PASSWORD"',
        "",
        "paho-python (a fresh proof before each CONNECT, also reconnects):",
        "  import paho.mqtt.client as mqtt",
        "  from authd.device import DeviceKey",
        f'  key = DeviceKey.load("{key_file}")',
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


def mosquitto_config(entry: BrokerSettings, socket: Path, plugin: Path) -> list[str]:
    """Write the lines of `mosquitto.conf` that let authd decide."""
    port = entry.endpoints[0].rpartition(":")[2]
    return [
        f"# Mosquitto asks authd as `{entry.name}`; clients dial one of:",
        *(f"#   {endpoint}" for endpoint in entry.endpoints),
        "# The broker's user must be in the group `authd-broker`.",
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
    where = f"-h {host} -p {port} -i {device.client_id}"
    publish = [entry.topic_filter for entry in scope if entry.actions & Action.PUB]
    if publish:
        return f"mosquitto_pub {where} -t '{_example(publish[0])}' -m hello"
    return f"mosquitto_sub {where} -t '{scope[0].topic_filter}'"


def _example(topic_filter: str) -> str:
    return "/".join("test" if level in ("+", "#") else level for level in topic_filter.split("/"))

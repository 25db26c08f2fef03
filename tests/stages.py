"""Real daemons for end-to-end tests, on the demonstration's stage."""

import json

from authd.demo.stage import Site, Stage

GO_AUTH = """
[[broker]]
name = "old"
kind = "go-auth"
audiences = ["127.0.0.1:{port}"]
"""


def lone_site(
    stage: Stage,
    name: str = "A",
    *,
    mosquitto: bool = False,
    more: str = "",
    start: bool = True,
) -> Site:
    """Make a domain with one daemon."""
    site = stage.add_site(name, with_mosquitto=mosquitto)
    passphrase = f"--passphrase-file={stage.passphrase}"
    stage.authd("init", *stage.setup_arguments(site), passphrase, site=site)
    add_config(site, GO_AUTH.format(port=site.spare_port) + more)
    if start:
        stage.start_daemon(site)
    return site


def add_config(site: Site, text: str) -> None:
    """Append tables to a site's configuration."""
    path = site.state / "authd.toml"
    path.write_text(path.read_text("utf-8") + text, "utf-8")


def go_auth_base(site: Site, broker: str = "old") -> str:
    """Return the URL of a broker entry's go-auth endpoints."""
    secrets = json.loads((site.state / "node.json").read_text("utf-8"))["broker_secrets"]
    return f"http://127.0.0.1:{site.http_port}/b/{broker}.{secrets[broker]}"

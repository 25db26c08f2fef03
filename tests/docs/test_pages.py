"""What the pages say more than once, they say alike."""

import re
from pathlib import Path

from authd.cli.broker import _PLUGIN

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_the_index_names_every_page() -> None:
    pages = {path.name for path in DOCS.glob("*.md")} - {"README.md"}
    pages |= {f"{path.parent.name}/README.md" for path in DOCS.glob("*/README.md")}
    linked = re.findall(r"\| \[[^]]+\]\(([^)]+)\)", (DOCS / "README.md").read_text("utf-8"))
    assert sorted(linked) == sorted(pages)


def test_the_plugin_lies_in_one_place() -> None:
    for page in (DOCS / "mosquitto.md", ROOT / "deploy" / "mosquitto.conf"):
        text = page.read_text("utf-8")
        assert re.findall(r"^plugin (/.*)$", text, re.MULTILINE) == [str(_PLUGIN)]
        installed = re.findall(
            r"install (.*) plugins/mosquitto/authd_mosquitto.so (.*)$", text, re.MULTILINE
        )
        assert installed == [("-D -m 644", str(_PLUGIN))]


def test_the_broker_in_the_example_is_the_one_that_init_makes() -> None:
    text = (DOCS / "mosquitto.md").read_text("utf-8")
    assert re.findall(r"^plugin_opt_authd_broker (.*)$", text, re.MULTILINE) == ["mosquitto"]

"""The pages of `docs/spec`: their examples are vectors, their indexes are complete."""

import re
from pathlib import Path

import pytest

from authd.core import topics
from authd.core.claims import LABELS, Claim, Kind
from authd.core.encoding import decode, encode
from authd.core.identity import SigningKey, key_id_text
from tests.conformance.test_statements import read
from tests.vectors.make import FOLDER

DOCS = Path(__file__).parents[2] / "docs"
SPEC = DOCS / "spec"
PAGES = sorted(SPEC.glob("*.md"))
EXAMPLE = re.compile(r"<!-- vector: (\S+) -->\n```hex\n(.*?)```", re.DOTALL)
EXAMPLES = [
    (page.name, name, body)
    for page in PAGES
    for name, body in EXAMPLE.findall(page.read_text(encoding="utf-8"))
]
WITH_EXAMPLES = {
    "broker.md",
    "bundle.md",
    "envelope.md",
    "grant.md",
    "heartbeat.md",
    "proofs.md",
    "records.md",
    "revoke.md",
    "root.md",
}


def page(name: str) -> str:
    return (SPEC / name).read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "vector", "body"), EXAMPLES)
def test_an_example_is_a_vector_that_passes(name: str, vector: str, body: str) -> None:
    scenario = read(FOLDER / f"{vector}.txt")
    assert bytes.fromhex(body) == scenario.body
    assert scenario.header["expect"] == "ok"


def test_every_page_of_a_format_has_an_example() -> None:
    assert {name for name, _, _ in EXAMPLES} == WITH_EXAMPLES


@pytest.mark.parametrize(
    ("name", "vector"), [("root.md", "root/first"), ("envelope.md", "grant/plain")]
)
def test_an_id_in_a_page_is_the_vectors(name: str, vector: str) -> None:
    assert f"`{read(FOLDER / f'{vector}.txt').header['id']}`" in page(name)


def test_the_password_of_the_proof_is_readable_in_its_page() -> None:
    scenario = read(FOLDER / "proof" / "pop.txt")
    assert scenario.body.decode("ascii") in page("proofs.md")
    assert f"`{scenario.header['username']}`" in page("proofs.md")


def test_the_example_of_keys_is_right() -> None:
    found = dict(re.findall(r"^(seed|key id|key) +(\S+)", page("keys.md"), re.MULTILINE))
    signing = SigningKey.from_seed(bytes.fromhex(found["seed"]))
    assert found["key"] == signing.public.hex()
    assert found["key id"] == key_id_text(signing.public)


def test_the_example_of_encoding_is_canonical() -> None:
    example = page("encoding.md").split("```")[1]
    data = bytes.fromhex(
        "".join(
            re.sub(r" {3,}\S.*", "", line[3:] if line[:3] == "   " else line)
            for line in example.strip().split("\n")
        )
    )
    assert encode(decode(data, max_bytes=100)) == data


def test_the_examples_of_topics_hold() -> None:
    lines = page("topics.md").split("```topics\n")[1].split("```")[0].strip().split("\n")
    for line in lines:
        function, first, second, expected = line.split()
        answer = getattr(topics, function)(first, second)
        assert {True: "true", False: "false", None: "-"}.get(answer, answer) == expected, line


def test_the_table_of_claims_and_labels_is_complete() -> None:
    text = page("envelope.md")
    for claim in Claim:
        number = str(int(claim)).replace("-", "\N{MINUS SIGN}")
        assert re.search(rf"\| (\*\*)?{number}(\*\*)? [a-zA-Z]", f"| {text}"), claim
    for kind in Kind:
        assert f"| {kind.name.lower()} | {int(kind)} | `{LABELS[kind]}` |" in text


@pytest.mark.parametrize("folder", ["spec", "adr"])
def test_an_index_names_every_page_once(folder: str) -> None:
    names = sorted(one.name for one in (DOCS / folder).glob("*.md") if one.name != "README.md")
    index = (DOCS / folder / "README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\|.*?\((\S+\.md)\)", index, re.MULTILINE)) == names

"""One truth for two languages: the plugin's verdicts on the published vectors are Python's."""

import subprocess
from pathlib import Path

import pytest

from tests.plugin.conftest import SOURCES
from tests.vectors.make import FOLDER
from tests.vectors.weak_keys import SMALL_ORDER, SPECCHECK

KINDS = ("proof", "counter", "single", "response")
FILES = sorted(path for kind in KINDS for path in (FOLDER / kind).glob("*.txt"))


@pytest.fixture(scope="module")
def driver() -> Path:
    subprocess.run(["/usr/bin/make", "-s", "-C", str(SOURCES), "vectors"], check=True)
    return SOURCES / "build" / "vectors"


def run(driver: Path, *arguments: str, lines: str = "") -> list[str]:
    done = subprocess.run(
        [str(driver), *arguments], check=True, capture_output=True, text=True, input=lines
    )
    return done.stdout.splitlines()


def expected(path: Path) -> tuple[str, bool]:
    """Return Python's verdict, and whether this form is the plugin's to judge."""
    head, _, body = path.read_text("ascii").partition("\n\n")
    verdict = next(line[8:] for line in head.splitlines() if line.startswith("expect: "))
    return verdict, path.parent.name == "proof" and b"." not in bytes.fromhex(body)


def test_a4_a5_a15_the_verdicts_of_c_are_those_of_python(driver: Path) -> None:
    """Equal where the plugin judges. Elsewhere it asks, and refuses only what is malformed."""
    said = dict(line.split("\t") for line in run(driver, *map(str, FILES)))
    assert len(said) == len(FILES) > 40
    for path in FILES:
        verdict, judged = expected(path)
        if judged:
            assert said[str(path)] == verdict, path.name
        else:
            assert said[str(path)] in ("ask", "malformed"), path.name
            assert said[str(path)] == "ask" or verdict in ("malformed", "limit_exceeded"), path.name


def test_a1_the_twelve_edge_cases_of_ed25519_are_refused_in_c(driver: Path) -> None:
    lines = "".join(f"{public} {message} {signature}\n" for message, public, signature in SPECCHECK)
    assert run(driver, "-", lines=lines) == ["bad_signature"] * 12


def test_a1_signatures_under_small_order_points_are_refused_in_c(driver: Path) -> None:
    """The trivial signature that OpenSSL takes for the neutral point, under every such point."""
    trivial = SMALL_ORDER[0] + "00" * 32
    asked = [(point, number) for point in SMALL_ORDER for number in range(64)]
    lines = "".join(f"{point} {number:02x} {trivial}\n" for point, number in asked)
    assert set(run(driver, "-", lines=lines)) == {"bad_signature"}


def test_a_good_signature_is_taken_in_c(driver: Path) -> None:
    """RFC 8032 §7.1, test 2, and the same with one bit changed anywhere."""
    public = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    signature = (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert run(driver, "-", lines=f"{public} 72 {signature}\n") == ["ok"]
    number = int.from_bytes(bytes.fromhex(signature))
    changed = "".join(f"{public} 72 {number ^ (1 << bit):0128x}\n" for bit in range(512))
    assert run(driver, "-", lines=changed) == ["bad_signature"] * 512

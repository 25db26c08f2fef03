"""Mutants of the plugin: one change each that would let somebody in, or worse, and what finds it.

``python -m tests.plugin.mutants [NAME…]`` builds each in a copy of the sources and runs the tests
named beside it in mutants.txt; one that no test finds is listed as alive, and the exit code is 1.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAKE = ("/usr/bin/make", "-s", "-C")


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        name: What the changed plugin does wrong.
        file: The source file.
        tests: File of tests and, behind a space, what their names contain.
        old: Text that occurs once in it.
        new: What replaces it.
    """

    name: str
    file: str
    tests: str
    old: str
    new: str


def read(block: str) -> Mutant:
    """Read one block of the list: three lines, then lines that go (`-`) and that come (`+`)."""
    name, file, tests, *lines = block.split("\n")
    old, new = ("\n".join(one[1:] for one in lines if one[0] == sign) for sign in "-+")
    return Mutant(name, file, tests, old, new)


def mutants() -> list[Mutant]:
    """Read the list beside this file."""
    blocks = Path(__file__).with_suffix(".txt").read_text().rstrip("\n").split("\n\n")
    return [read(block) for block in blocks]


def build(mutant: Mutant, folder: Path) -> Path:
    """Copy the sources and make the change.

    Raises:
        ValueError: The text to replace does not occur exactly once.
    """
    sources = folder / "plugins" / "mosquitto"
    ignore = shutil.ignore_patterns("build", "*.so")
    shutil.copytree(ROOT / "plugins" / "mosquitto", sources, ignore=ignore)
    (folder / "tests").symlink_to(ROOT / "tests")
    path = sources / mutant.file
    text = path.read_text()
    if text.count(mutant.old) != 1:
        raise ValueError(f"`{mutant.old}` occurs {text.count(mutant.old)} times in {mutant.file}")
    path.write_text(text.replace(mutant.old, mutant.new))
    return sources


def is_found(mutant: Mutant) -> bool:
    """Say whether the tests beside a mutant find it; one that does not compile is none."""
    with tempfile.TemporaryDirectory(prefix="authd-mutant-") as folder:
        sources = build(mutant, Path(folder))
        relaxed = "CFLAGS=-O1 -g -Wno-error -w"
        subprocess.run([*MAKE, str(sources), relaxed], check=True, env={**os.environ})
        name, _, chosen = mutant.tests.partition(" ")
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pytest", f"tests/plugin/{name}", "-x", "-q"),
                *("-p", "no:cacheprovider", *(("-k", chosen) if chosen else ())),
            ],
            cwd=ROOT,
            env={**os.environ, "AUTHD_PLUGIN_SOURCES": str(sources), "CFLAGS": "-O1 -g -w"},
            check=False,
            capture_output=True,
        )
        if done.returncode not in (0, 1):
            sys.stderr.write(done.stdout.decode()[-2000:])
        return done.returncode == 1


def main(names: Iterable[str]) -> int:
    """Try all mutants, or those whose names contain one of `names`."""
    chosen = [one for one in mutants() if not names or any(name in one.name for name in names)]
    alive = 0
    for mutant in chosen:
        found = is_found(mutant)
        alive += not found
        sys.stdout.write(f"{'found' if found else 'ALIVE'}  {mutant.name} ({mutant.tests})\n")
        sys.stdout.flush()
    sys.stdout.write(f"{len(chosen) - alive} of {len(chosen)} found\n")
    return 1 if alive else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

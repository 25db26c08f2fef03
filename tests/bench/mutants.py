"""Which small changes to ``authd.core`` no test notices: ``python -m tests.bench.mutants``.

Every mutation of `tests.bench.mutations` runs in a process forked from one that has the libraries
loaded. It meets the tests that execute the changed lines, as a coverage run recorded them: those of
its module first, then others, the quickest first, as many as a few seconds hold (``--thorough``:
all of them). Results go to a file, one line a
mutation, and are not computed again when the program is started again.
"""

import argparse
import ast
import importlib
import itertools
import json
import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_loader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Final

import coverage
import pytest

from tests.bench.mutations import Mutation, mutate, mutations_of

_PACKAGE: Final = "authd.core"
_TESTS: Final = ("tests/unit/core", "tests/conformance", "tests/property")
_DURATION: Final = re.compile(r"^([0-9.]+)s call +(\S.*)$", re.MULTILINE)
_PRELOADED: Final = ("hypothesis", "immutables", "nacl.bindings", "nacl.secret", "cryptography")
_SLOW_S: Final = 0.2
# CPU time, so that a busy host makes no mutation look as if it never ended.
_PATIENCE_S: Final = 20
_HANGS_S: Final = 900.0
# Other modules' tests are met, the quickest first, until they take so long in all.
_OTHERS_S: Final = 3.0
_MEMORY_BYTES: Final = 3 << 30
_OUTCOMES: Final = {0: "survived", 4: "unselectable", -signal.SIGXCPU: "timed out"}
# The number of no mutation: what shows that tests pass here when nothing is changed.
_NONE: Final = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one mutation."""

    module: str
    number: int
    line: int
    what: str
    outcome: str


class Coverage:
    """Which test executes which line, and how long the slow tests take."""

    def __init__(self, data: coverage.CoverageData, took_s: dict[str, float]) -> None:
        """Keep what a coverage run recorded."""
        self._data = data
        self._took_s = took_s

    def stages(self, path: Path, mutation: Mutation, *, thorough: bool) -> list[list[str]]:
        """Return the tests that execute a mutation: the module's own quick ones, then others."""
        lines = self._data.contexts_by_lineno(str(path))
        found = _between(lines, mutation.first, mutation.last)
        if not found and mutation.function is not None:
            found = _between(lines, *mutation.function)
        if not found:
            found = _between(lines, 1, max(lines, default=1))
        ordered = sorted(found, key=lambda test: (self._took_s.get(test, 0.0), test))
        home = (f"tests/unit/core/test_{path.stem}.", f"tests/unit/core/test_{path.stem}_")
        own = [one for one in ordered if one.startswith(home) and self._is_quick(one)]
        others = [one for one in ordered if one not in set(own)]
        spent = itertools.accumulate(self._took_s.get(one, 0.0) for one in others)
        in_time = [
            one
            for one, total_s in zip(others, spent, strict=True)
            if thorough or total_s < _OTHERS_S
        ]
        return [own, in_time]

    def _is_quick(self, test: str) -> bool:
        return self._took_s.get(test, 0.0) < _SLOW_S


def _between(lines: dict[int, list[str]], first: int, last: int) -> set[str]:
    contexts = {one for line in range(first, last + 1) for one in lines.get(line, ())}
    return {one.rpartition("|")[0] for one in contexts if one}


def record_coverage(tree: Path) -> Coverage:
    """Run the tests once, recording which executes what; a record that lies there is used."""
    kept, durations = tree / ".coverage", tree / ".durations.json"
    if not (kept.exists() and durations.exists()):
        durations.write_text(json.dumps(_run_covered(tree)), "utf-8")
    data = coverage.CoverageData(str(kept))
    data.read()
    return Coverage(data, json.loads(durations.read_text("utf-8")))


def _run_covered(tree: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "pytest", "-q", *_TESTS, f"--cov={_PACKAGE}"]
    options = ["--cov-context=test", "--cov-report=", "--durations=0", "--durations-min=0"]
    done = subprocess.run(
        [*command, *options], cwd=tree, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"the tests fail without any change:\n{done.stdout[-4_000:]}")
    return {test: float(seconds) for seconds, test in _DURATION.findall(done.stdout)}


class _Changed(MetaPathFinder, Loader):
    """Imports one module from a changed tree."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self._name = name
        self._path = path
        self._code = code

    def find_spec(self, fullname: str, *_: object) -> ModuleSpec | None:
        if fullname != self._name:
            return None
        return spec_from_loader(fullname, self, origin=str(self._path))

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self._path)
        exec(self._code, module.__dict__)  # noqa: S102 - the project's own code, changed


def run_tests(tree: Path, module: str, number: int, tests: Sequence[str]) -> str:
    """Run tests against a mutation in a process of its own; says ``killed`` or ``survived``."""
    child = os.fork()
    if child == 0:
        _run_and_exit(tree, module, number, tests)
    limit = time.monotonic() + _HANGS_S
    while time.monotonic() < limit:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return _OUTCOMES.get(os.waitstatus_to_exitcode(status), "killed")
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "timed out"


def _run_and_exit(tree: Path, module: str, number: int, tests: Sequence[str]) -> None:
    path = tree / "authd" / "core" / f"{module}.py"
    name = f"{_PACKAGE}.{module}"
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    patience_s = _PATIENCE_S + len(tests) // 10
    resource.setrlimit(resource.RLIMIT_CPU, (patience_s, patience_s + 5))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in range(3):
        os.dup2(nowhere, stream)
    os.chdir(tree)
    # Children test the tree, not the package that is installed.
    sys.path.insert(0, str(tree))
    for loaded in [one for one in sys.modules if one.split(".")[0] in {"authd", "tests"}]:
        del sys.modules[loaded]
    source = path.read_text("utf-8")
    changed = ast.parse(source) if number == _NONE else mutate(source, number, str(path))
    sys.meta_path.insert(0, _Changed(name, path, compile(changed, str(path), "exec")))
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:cov", "--hypothesis-seed=0"]
    # The table of attacks is not printed; libraries that are loaded already are no mistake here.
    options += ["-o", "addopts=--import-mode=importlib"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    code = 1
    try:
        code = int(pytest.main([*options, *tests]))
    finally:
        os._exit(code)


def judge(tree: Path, module: str, mutation: Mutation, stages: Sequence[Sequence[str]]) -> str:
    """Find out whether any test notices a mutation."""
    for tests in stages:
        outcome = run_tests(tree, module, mutation.number, tests) if tests else "survived"
        if outcome == "unselectable":
            # Names of tests follow from what was changed: all of their files, then.
            files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
            outcome = run_tests(tree, module, mutation.number, files)
        if outcome != "survived":
            return outcome
    return "survived"


def judge_all(
    tree: Path, modules: Sequence[str], results: Path, *, thorough: bool
) -> Iterator[Result]:
    """Judge every mutation that has no result yet; thoroughly, however long tests take."""
    known = {(one.module, one.number) for one in read_results(results)}
    recorded = record_coverage(tree)
    for name in _PRELOADED:
        importlib.import_module(name)
    for module in modules:
        path = tree / "authd" / "core" / f"{module}.py"
        left = [
            (one, recorded.stages(path, one, thorough=thorough))
            for one in mutations_of(path.read_text("utf-8"))
            if (module, one.number) not in known
        ]
        _check_unchanged(tree, module, [stages for _, stages in left])
        for mutation, stages in left:
            yield Result(
                module=module,
                number=mutation.number,
                line=mutation.line,
                what=mutation.what,
                outcome=judge(tree, module, mutation, stages),
            )


def _check_unchanged(tree: Path, module: str, all_stages: Sequence[list[list[str]]]) -> None:
    quick = {test for stages in all_stages for tests in stages for test in tests}
    if quick and run_tests(tree, module, _NONE, sorted(quick)) != "survived":
        raise SystemExit(f"{module}: tests fail here without any change")


def read_results(path: Path) -> list[Result]:
    """Read what is known already."""
    if not path.exists():
        return []
    return [Result(**json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def table(results: Sequence[Result], tree: Path) -> Iterator[str]:
    """Write counts by module, and every mutation that survived."""
    for module in dict.fromkeys(one.module for one in results):
        ours = [one for one in results if one.module == module]
        alive = [one for one in ours if one.outcome == "survived"]
        share = 100 * (len(ours) - len(alive)) / len(ours)
        yield f"{module:13} {len(ours):5} mutants {len(alive):4} survive {share:6.1f} % killed"
    for one in results:
        if one.outcome == "survived":
            lines = (tree / "authd" / "core" / f"{one.module}.py").read_text("utf-8").splitlines()
            yield f"{one.module}.py:{one.line} #{one.number} {one.what}"
            yield f"    {lines[one.line - 1].strip()}"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tree", type=Path, default=Path(__file__).resolve().parents[2])
    parser.add_argument("--results", type=Path, default=Path("mutants.jsonl"))
    parser.add_argument("--again", action="store_true", help="judge survivors again")
    parser.add_argument("--thorough", action="store_true", help="meet every test, however slow")
    parser.add_argument("modules", nargs="*")
    options = parser.parse_args()
    tree = options.tree.resolve()
    everything = sorted(path.stem for path in (tree / "authd" / "core").glob("[a-z]*.py"))
    if options.again:
        kept = [one for one in read_results(options.results) if one.outcome != "survived"]
        options.results.write_text("".join(json.dumps(asdict(one)) + "\n" for one in kept), "utf-8")
    with options.results.open("a", encoding="utf-8") as out:
        modules = options.modules or everything
        for result in judge_all(tree, modules, options.results, thorough=options.thorough):
            out.write(json.dumps(asdict(result)) + "\n")
            out.flush()
    sys.stdout.write("\n".join([*table(read_results(options.results), tree), ""]))


if __name__ == "__main__":
    main()

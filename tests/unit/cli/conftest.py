"""The command line in this process, and one real daemon to talk to."""

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from authd.cli import main
from authd.demo.stage import Site, Stage
from tests.stages import lone_site


@dataclass(frozen=True, slots=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        answer = json.loads(self.out)
        assert isinstance(answer, dict)
        return answer


Run = Callable[..., Done]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with its own state directory, unless told another."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("AUTHD_CONFIG", raising=False)

    def command(
        *arguments: str, site: Site | None = None, stdin: str = "", as_json: bool = True
    ) -> Done:
        state, run_dir = (site.state, site.run_dir) if site else (tmp_path / "state", "run")
        monkeypatch.setenv("AUTHD_STATE", str(state))
        monkeypatch.setenv("AUTHD_RUN_DIR", str(tmp_path / run_dir))
        monkeypatch.setattr(sys, "argv", ["authd", *arguments, *(["--json"] if as_json else [])])
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, out, err)

    return command


@pytest.fixture
def domain(run: Run, tmp_path: Path) -> Path:
    """A new domain in its state directory; no daemon runs."""
    assert run("init", "--unencrypted-root", "--peer=127.0.0.1:1").code == 0
    return tmp_path / "state"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A real daemon with an embedded broker."""
    with Stage(tmp_path_factory.mktemp("stage"), mosquitto=None, plugin=None) as stage:
        yield lone_site(stage)

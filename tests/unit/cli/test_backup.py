"""``authd restore``: what a backup brings back, what it refuses, and the daemon on it."""

import io
import shutil
import sqlite3
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from authd.config import load_settings
from authd.demo.stage import Stage
from authd.store.keystore import Keystore
from authd.store.sqlite import ALONE, RESTORED, SqliteStore
from tests.stages import lone_site
from tests.unit.cli.conftest import Run


@pytest.fixture
def archive(run: Run, domain: Path, tmp_path: Path) -> Path:
    assert run("device", "new", "lamp", "--pub=home/lamp").code == 0
    target = tmp_path / "backup.tar.gz"
    assert run("backup", str(target)).code == 0
    return target


def facts(state: Path) -> tuple[str | None, str | None]:
    with SqliteStore(state / "authd.db") as store:
        return store.meta(RESTORED), store.meta("stopped")


def test_a_backup_comes_back_whole_for_its_owner_alone_and_begins_a_new_list(
    run: Run, domain: Path, archive: Path, tmp_path: Path
) -> None:
    target = tmp_path / "new" / "state"
    done = run("restore", str(archive), f"--state={target}")
    assert (done.code, done.json["waits_for_peers"]) == (0, False)
    assert Keystore(target).names() == Keystore(domain).names()
    assert Keystore(target).subject("lamp") == Keystore(domain).subject("lamp")
    assert load_settings(target / "authd.toml").state_dir == target
    for path in target.rglob("*"):
        secret = path.name == "authd.db" or path.parent.name in {"keys", "subjects"}
        assert not (secret and path.stat().st_mode & 0o077), path
    assert target.stat().st_mode & 0o777 == 0o700
    assert facts(target) == ("waits", "no")
    assert run("restore", str(archive), "--alone", f"--state={tmp_path / 'b'}").code == 0
    assert facts(tmp_path / "b") == (ALONE, "no")
    said = run("restore", str(archive), f"--state={tmp_path / 'c'}", as_json=False).out
    assert "old daemon never runs again" in said
    assert "Counters" in said


def test_a_copy_says_that_it_is_one_before_anything_can_run_on_it(
    run: Run, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, seen = tmp_path / "new", []
    extract = tarfile.TarFile.extract

    def look(self: tarfile.TarFile, member: str, path: Path, **options: str) -> None:
        seen.append((member, (path / "node.json").exists(), facts(path)))
        extract(self, member, path, **options)  # type: ignore[arg-type]  # handed on as they are

    monkeypatch.setattr(tarfile.TarFile, "extract", look)
    assert run("restore", str(archive), f"--state={target}").code == 0
    assert seen == [("node.json", False, ("waits", "no"))]
    assert (target / "node.json").exists()


def test_nothing_is_ever_restored_over_something(run: Run, domain: Path, archive: Path) -> None:
    before = sorted(domain.rglob("*"))
    done = run("restore", str(archive))
    assert (done.code, done.json["reason"]) == (2, "conflict")
    assert sorted(domain.rglob("*")) == before


def odd(change: Callable[[tarfile.TarFile], None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        change(archive)
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return odd(lambda archive: archive.addfile(info))


ODD = {
    "nothing": b"",
    "text": b"no archive",
    "stranger": member("passwd"),
    "above": member("keys/../../x"),
    "absolute": member("/etc/x"),
    "link": member("keys", tarfile.SYMTYPE, "/etc"),
    "device": member("authd.db", tarfile.CHRTYPE),
    "empty": odd(lambda _: None),
    "half": member("node.json"),
}


@pytest.mark.parametrize("name", ODD)
def test_what_is_no_backup_is_refused_and_leaves_nothing(
    run: Run, tmp_path: Path, name: str
) -> None:
    source, target = tmp_path / "odd.tar.gz", tmp_path / "new"
    source.write_bytes(ODD[name])
    done = run("restore", str(source), f"--state={target}")
    assert (done.code, done.json["reason"]) == (2, "store_failed")
    assert str(source) in done.json["error"]
    assert list(target.iterdir()) == []
    assert not (tmp_path / "x").exists()


def test_a_backup_that_was_cut_short_is_refused(run: Run, archive: Path, tmp_path: Path) -> None:
    data = archive.read_bytes()
    archive.write_bytes(data[: len(data) // 2])
    target = tmp_path / "new"
    done = run("restore", str(archive), f"--state={target}")
    assert done.code == 2
    assert list(target.iterdir()) == []
    missing = run("restore", str(tmp_path / "none"), f"--state={target}")
    assert (missing.code, missing.json["reason"]) == (2, "store_failed")


def test_a_backup_with_a_damaged_database_says_so(run: Run, tmp_path: Path, archive: Path) -> None:
    opened, state = tmp_path / "opened", tmp_path / "damaged.tar.gz"
    with tarfile.open(archive) as file:
        file.extractall(opened, filter="data")
    (opened / "authd.db").write_bytes(b"\xa5" * 8_192)
    with tarfile.open(state, "w:gz") as file:
        for path in opened.iterdir():
            file.add(path, arcname=path.name)
    done = run("restore", str(state), f"--state={tmp_path / 'new'}")
    assert done.code == 2
    assert "damaged" in done.json["error"]
    assert list((tmp_path / "new").iterdir()) == []


def test_a_real_daemon_goes_on_from_a_backup_that_was_made_while_it_ran(
    run: Run, tmp_path: Path
) -> None:
    with Stage(tmp_path / "stage", mosquitto=None, plugin=None) as stage:
        site = lone_site(stage)
        assert run("device", "new", "kept", "--pub=site/kept", site=site).json["published"]
        assert run("revoke", "kept", site=site).code == 0
        archive = tmp_path / "backup.tar.gz"
        assert run("backup", str(archive), site=site).code == 0
        before = epoch(site.state)
        assert site.daemon is not None
        site.daemon.stop()
        shutil.rmtree(site.state)
        assert run("restore", str(archive), site=site).code == 0
        stage.start_daemon(site)
        status = run("status", site=site).json
        assert status["domains"][0]["fresh"]
        assert not status["waits_for_peers"]
        assert (status["revocations"], status["alarms"]) == (1, [])
        assert run("revocations", site=site).json["revocations"][0]["state"] == "in force"
        assert "WARNING" not in run("status", site=site, as_json=False).out
        assert epoch(site.state) > before
    assert facts(site.state) == ("", "cleanly")


def epoch(state: Path) -> int:
    connection = sqlite3.connect(state / "authd.db")
    found = connection.execute("SELECT DISTINCT epoch FROM chains").fetchall()
    connection.close()
    assert len(found) == 1
    return int(found[0][0])

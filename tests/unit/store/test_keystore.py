"""Key files: private, never overwritten, refused when others can read them, silent in errors."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from authd.core.encoding import encode_base64url
from authd.errors import AuthdError, ConfigError, ConflictError, FormatError, StoreError
from authd.store.keystore import Keystore, Subject, read_key, write_private
from authd.store.places import check_place

SEED = bytes(range(32))
SEED_TEXT = encode_base64url(SEED)


@pytest.fixture
def keystore(tmp_path: Path) -> Keystore:
    keystore = Keystore(tmp_path / "state")
    keystore.create()
    return keystore


@pytest.fixture
def key_file(keystore: Keystore, tmp_path: Path) -> Path:
    keystore.save("node", SEED)
    return tmp_path / "state" / "keys" / "node.key"


def test_keys_and_subjects_are_readable_by_their_owner_alone(
    keystore: Keystore, key_file: Path
) -> None:
    keystore.save_subject(Subject(name="lamp", key="k"))
    state = key_file.parent.parent
    for directory in (state, state / "keys", state / "subjects"):
        assert directory.stat().st_mode & 0o777 == 0o700
    for file in (key_file, state / "subjects" / "lamp.json"):
        assert file.stat().st_mode & 0o777 == 0o600
    assert sorted(one.name for one in state.rglob(".new-*")) == []


def test_a_key_is_never_overwritten(keystore: Keystore, key_file: Path) -> None:
    before = key_file.read_bytes()
    with pytest.raises(ConflictError, match="never overwritten"):
        keystore.save("node", bytes(32))
    assert key_file.read_bytes() == before
    assert keystore.load("node").seed == SEED
    assert keystore.names() == ["node"]
    assert keystore.has("node")
    assert not keystore.has("root")


def test_an_encrypted_key_needs_the_right_passphrase(keystore: Keystore, tmp_path: Path) -> None:
    keystore.save("root", SEED, passphrase=b"right")
    text = (tmp_path / "state" / "keys" / "root.key").read_text("utf-8")
    assert SEED_TEXT not in text
    assert keystore.is_encrypted("root")
    assert keystore.load("root", passphrase=b"right").seed == SEED
    with pytest.raises(ConfigError, match="passphrase is needed"):
        keystore.load("root")
    with pytest.raises(ConfigError, match="wrong passphrase") as caught:
        keystore.load("root", passphrase=b"guess")
    assert "guess" not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o601])
def test_a_key_that_others_can_read_is_refused(key_file: Path, mode: int) -> None:
    key_file.chmod(mode)
    with pytest.raises(ConfigError, match="chmod 600"):
        read_key(key_file)


def edit(**change: object) -> Callable[[str], str]:
    def changed(text: str) -> str:
        content = json.loads(text) | change
        return json.dumps({name: value for name, value in content.items() if value is not None})

    return changed


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: "",
        lambda text: text[:-20],
        lambda _: "[]",
        lambda _: "null",
        lambda _: '"text"',
        edit(seed=None),
        edit(seed=SEED_TEXT[:-1]),
        edit(seed=SEED_TEXT + "!"),
        edit(seed=7),
        edit(format="authd/key/9"),
        edit(format=None),
        edit(encrypted_seed="AAAA", salt="AAAA"),
        edit(encrypted_seed="AAAA"),
        edit(encrypted_seed=None, seed=None),
        lambda _text: "[" * 100_000,
    ],
)
def test_a49_a_damaged_key_file_is_named_and_nothing_of_it_is_told(
    key_file: Path, damage: Callable[[str], str]
) -> None:
    key_file.write_text(damage(key_file.read_text("utf-8")), "utf-8")
    with pytest.raises(ConfigError, match=r"node\.key") as caught:
        read_key(key_file, passphrase=b"secret words")
    chain: BaseException | None = caught.value
    while chain is not None:
        assert SEED_TEXT[:-1] not in str(chain)
        assert "secret words" not in str(chain)
        chain = chain.__cause__


def test_a_key_that_is_not_there_is_named(keystore: Keystore) -> None:
    for ask in (keystore.load, keystore.is_encrypted):
        with pytest.raises(ConfigError, match=r"root\.key"):
            ask("root")


def test_a_place_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")
    with pytest.raises(StoreError):
        Keystore(tmp_path / "file").create()
    with pytest.raises(StoreError):
        write_private(tmp_path / "missing" / "x", "", overwrite=False)
    with pytest.raises(StoreError):
        write_private(tmp_path, "", overwrite=True)
    assert [one.name for one in tmp_path.iterdir()] == ["file"], "nothing half written is left"


# --- subjects ---------------------------------------------------------------------------------


def test_subjects_are_found_again_and_replaced_by_their_newer_selves(keystore: Keystore) -> None:
    first = Subject(name="lamp", key="k", grants=["a"])
    newer = Subject(name="lamp", key="k", grants=["a", "b"], self_revocation="r")
    keystore.save_subject(first)
    keystore.save_subject(newer)
    keystore.save_subject(Subject(name="a.b-c_1", key="l"))
    assert keystore.subject("lamp") == newer
    assert keystore.subject("nobody") is None
    assert [one.name for one in keystore.subjects()] == ["a.b-c_1", "lamp"]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", ".hidden", "a b", "a\x00", "a\n"])
def test_a_subject_cannot_be_called_what_leads_elsewhere(keystore: Keystore, name: str) -> None:
    with pytest.raises(FormatError):
        keystore.save_subject(Subject(name=name, key="k"))
    with pytest.raises(FormatError):
        keystore.subject(name)


@pytest.mark.parametrize("text", ["", "[]", '{"name":"x"}', '{"name":"x","key":"k","more":1}'])
def test_a49_a_damaged_subject_is_named(keystore: Keystore, tmp_path: Path, text: str) -> None:
    path = tmp_path / "state" / "subjects" / "x.json"
    path.write_text(text, "utf-8")
    path.chmod(0o600)
    with pytest.raises(ConfigError, match=r"x\.json"):
        keystore.subjects()


# --- places -----------------------------------------------------------------------------------


def test_a_place_of_our_own_is_accepted_wherever_it_lies(tmp_path: Path) -> None:
    check_place(tmp_path)
    link = tmp_path / "link"
    inner = tmp_path / "inner"
    inner.mkdir(0o700)
    link.symlink_to(inner)
    check_place(link)


@pytest.mark.parametrize("mode", [0o777, 0o702, 0o707])
def test_a_place_where_others_can_replace_things_is_refused(tmp_path: Path, mode: int) -> None:
    inner = tmp_path / "open" / "run"
    inner.mkdir(parents=True)
    inner.parent.chmod(mode)
    with pytest.raises(ConfigError, match="others may write"):
        check_place(inner)
    inner.parent.chmod(0o1777)
    check_place(inner)


def test_a_place_below_a_directory_or_link_of_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs, link = tmp_path / "theirs", tmp_path / "link"
    (theirs / "run").mkdir(parents=True)
    link.symlink_to(tmp_path)
    if os.geteuid() == 0:
        os.chown(theirs, 4_242, 4_242)
        os.chown(link, 4_242, 4_242, follow_symlinks=False)
    else:
        # Without root nothing can be given away: then it is us who are somebody else.
        monkeypatch.setattr("os.geteuid", lambda: 4_242)
    for place in (theirs / "run", link):
        with pytest.raises(ConfigError, match="another user"):
            check_place(place)


def test_a_place_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AuthdError, match="missing"):
        check_place(tmp_path / "missing")


def test_root_does_not_take_a_daemons_file_away_by_rewriting_it(tmp_path: Path) -> None:
    path = tmp_path / "node.json"
    write_private(path, "1", overwrite=True)
    root = os.geteuid() == 0
    owner = (4_242, 4_243) if root else (os.geteuid(), path.stat().st_gid)
    if root:
        os.chown(path, *owner)
    write_private(path, "2", overwrite=True)
    status = path.stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (*owner, 0o600)
    assert path.read_text("utf-8") == "2"

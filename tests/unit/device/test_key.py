"""What a device imports: its key file, and a fresh proof for each CONNECT."""

import json
from pathlib import Path

import pytest

from authd.core.decision import ChallengeResponse, ConnectRequest, SingleStep
from authd.core.encoding import encode_base64url
from authd.core.grants import Form
from authd.core.identity import key_id_text
from authd.device import DeviceKey
from authd.errors import ConfigError, FormatError
from tests.unit.service.scenes import DEVICE, DEVICE_ID, TEMP, site_with_device
from tests.world import START, Domain, Site

SEED_TEXT = encode_base64url(DEVICE.seed)


def device(*, staple: bool = False) -> DeviceKey:
    domain = Domain()
    return DeviceKey(
        key=DEVICE,
        domain=domain.id,
        client_id=DEVICE_ID,
        path=(domain.grant(DEVICE.public, TEMP),),
        staple=staple,
    )


def test_a_key_file_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "device.key"
    path.write_text(device().dump(), "utf-8")
    loaded = DeviceKey.load(path)
    assert loaded.dump() == device().dump()
    assert loaded.username == key_id_text(DEVICE.public)


def test_a54_a_device_does_not_print_its_key() -> None:
    assert SEED_TEXT not in repr(device())
    assert repr(DEVICE.seed) not in repr(device())


@pytest.mark.parametrize("staple", [True, False])
async def test_its_passwords_are_admitted_each_once(tmp_path: Path, *, staple: bool) -> None:
    site = site_with_device(tmp_path)
    made = [device(staple=staple).password("BROKER:1883", now=START) for _ in range(3)]
    assert len(set(made)) == 3
    for password in made:
        assert (await site.connect(DEVICE, password=password)).allowed
    assert all(("." in password) is staple for password in made)


async def test_a_device_without_a_clock_counts(tmp_path: Path) -> None:
    site = Site(tmp_path, Domain())
    site.learn(
        site.domain.grant(
            DEVICE.public, TEMP, forms=[Form.COUNTER], audiences=[str(site.audience)]
        ),
    )
    for counter, allowed in ((1, True), (1, False), (2, True)):
        password = device().counter_password("BROKER:1883", counter)
        assert (await site.connect(DEVICE, password=password)).allowed is allowed


async def test_its_auth_data_is_admitted_in_one_step_or_by_a_challenge(tmp_path: Path) -> None:
    site = site_with_device(tmp_path)
    nonce, server_nonce = b"the client nonce", b"the server nonce"
    response = device().respond(b"\x03" + server_nonce, "BROKER:1883", nonce)
    for presented in (
        SingleStep(device().auth_data("BROKER:1883", now=START)),
        ChallengeResponse(hello=device().hello(nonce), nonce=server_nonce, response=response),
    ):
        decision = await site.service.decider.connect(
            ConnectRequest(broker="m", client_id=DEVICE_ID, username="", presented=presented),
        )
        assert decision.allowed


def test_an_odd_client_id_is_refused_before_anything_is_signed() -> None:
    with pytest.raises(FormatError):
        device().password("h:1", client_id="a/b")


def test_paho_gets_a_fresh_proof_before_each_connect() -> None:
    class Paho:
        def __init__(self) -> None:
            self.shown: list[tuple[str | None, str | None]] = []

        def username_pw_set(self, username: str | None, password: str | None = None) -> None:
            self.shown.append((username, password))

    client = Paho()
    before = device().on_pre_connect("h:1")
    for _ in range(2):
        before(client, None)
    assert {username for username, _ in client.shown} == {DEVICE_ID}
    assert len({password for _, password in client.shown}) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"format": "authd/device/2"},
        {"seed": SEED_TEXT + "x"},
        {"seed": SEED_TEXT[:20]},
        {"seed": None},
        {"seed": 7},
        {"domain": "x"},
        {"path": ["AAAA"]},
        {"path": 1},
        {"path": [1]},
    ],
    ids=str,
)
def test_a_damaged_key_file_is_named_and_its_seed_not_told(
    tmp_path: Path, change: dict[str, object]
) -> None:
    path = tmp_path / "device.key"
    path.write_text(json.dumps(json.loads(device().dump()) | change), "utf-8")
    with pytest.raises(ConfigError, match=r"device\.key") as caught:
        DeviceKey.load(path)
    assert SEED_TEXT[:20] not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "{}", "\xff", '"x"'])
def test_what_is_no_key_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "device.key"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"device\.key"):
        DeviceKey.load(path)
    with pytest.raises(ConfigError, match="missing"):
        DeviceKey.load(tmp_path / "missing")


def test_a_key_file_that_is_nested_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "deep.key"
    path.write_text("[" * 100_000)
    with pytest.raises(ConfigError, match="not a device's key file"):
        DeviceKey.load(path)

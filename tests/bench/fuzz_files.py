"""What is handed over in files, and what brokers send, as targets."""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, Final

from authd.core import limits
from authd.core.claims import Kind
from authd.core.encoding import decode, decode_base64url, encode, encode_base64url
from authd.core.identity import admit_key, parse_id
from authd.core.topics import check_granted_filter, covers, is_topic_filter, matches
from authd.device import DeviceKey
from authd.embedded.messages import Connect, Will, encode_connect, parse_connect
from authd.errors import (
    ConfigError,
    WeakKeyError,
)
from authd.http_api.bodies import parse_form, parse_json
from authd.service.issuing import (
    Bundle,
    Ticket,
    decode_bundle,
    decode_ticket,
    encode_bundle,
    encode_ticket,
)
from authd.service.ports import Item
from authd.store.keystore import read_key
from tests.bench.fuzz_inputs import encoded, odd_leaf, odd_value
from tests.bench.fuzz_target import (
    KEY,
    LAMP,
    PARSED,
    ROOT,
    Target,
    as_text,
    vectors_of,
)
from tests.unit.core.world import (
    id_of,
    make_grant,
)


def _changed(rng: Random, seed: bytes) -> bytes:
    return encoded(odd_value(rng, decode(seed, max_bytes=1 << 20)))


def parcels() -> list[Target]:
    grant = make_grant("X", "lamp").encoded
    bundle = Bundle(statements=(Item(Kind.GRANT, grant),), records=(b"record",))
    ticket = Ticket(
        domain=ROOT.domain,
        seed=bytes(32),
        operator=True,
        roots=(ROOT.encoded,),
        grants=(grant,),
        publisher=ROOT.publisher,
        peers=("a:1",),
    )
    return [
        Target(
            name="bundle",
            decode=decode_bundle,
            refusals=PARSED,
            seeds=[encode_bundle(bundle), *vectors_of("bundle")],
            resealed=lambda rng, _: _changed(rng, encode_bundle(bundle)),
            again=encode_bundle,
        ),
        Target(
            name="ticket",
            decode=decode_ticket,
            refusals=PARSED,
            seeds=[encode_ticket(ticket), *vectors_of("ticket")],
            again=encode_ticket,
            resealed=lambda rng, _: _changed(rng, encode_ticket(ticket)),
        ),
    ]


_FOLDER: Final = tempfile.TemporaryDirectory(prefix="authd-fuzz-")


def key_files() -> list[Target]:
    path = Path(_FOLDER.name) / "odd.key"
    device = DeviceKey(
        key=LAMP, domain=ROOT.domain, client_id="lamp", path=(make_grant("X", "lamp"),)
    )
    plain = json.dumps({"format": "authd/key/1", "seed": encode_base64url(bytes(32))})

    def reading(read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
        def from_file(data: bytes) -> object:
            path.write_bytes(data)
            path.chmod(0o600)
            return read(path)

        return from_file

    def changed(rng: Random, seed: bytes) -> bytes:
        content = json.loads(seed)
        value: Any = rng.choice((odd_leaf(rng), [], {}, None, True, 0.5, [None]))
        changed = {**content, rng.choice(list(content)): value}
        return json.dumps(changed, default=lambda data: data.decode("latin-1")).encode()

    return [
        Target(
            name="device key file",
            decode=reading(DeviceKey.load),
            refusals=(ConfigError,),
            seeds=[device.dump().encode()],
            resealed=lambda rng, _: changed(rng, device.dump().encode()),
        ),
        Target(
            name="host key file",
            decode=reading(read_key),
            refusals=(ConfigError,),
            seeds=[plain.encode()],
            resealed=lambda rng, _: changed(rng, plain.encode()),
        ),
    ]


def small() -> list[Target]:
    connect = Connect(
        client_id="lamp",
        username=id_of("lamp"),
        password="A" * 104,
        clean_session=True,
        keep_alive_s=60,
        will=Will(topic="a/b", message=b"gone", qos=1, retain=True),
    )

    def topic(text: str) -> object:
        if is_topic_filter(text):
            covers("a/+/#", text)
            matches(text, "a/b/c")
        return check_granted_filter(text)

    cbor = encode([1, -1, b"bytes", "text", [1, [2]], {1: 2, -3: {4: 5}}])
    filters = [b"a/#", b"+/b", b"$share/g/a/#", b"$authd/revoke", b"a//b"]
    body = b'{"username":"lamp","password":"secret","clientid":"lamp","acc":1,"topic":"a"}'
    return [
        Target(
            name="cbor",
            decode=lambda data: decode(data, max_bytes=limits.MAX_STATEMENT_BYTES),
            refusals=PARSED,
            seeds=[cbor, ROOT.encoded],
            resealed=_changed,
            again=encode,
        ),
        Target(
            name="base64url",
            decode=as_text(decode_base64url),
            refusals=PARSED,
            seeds=[b"AAECAwQ", b"_-8"],
            again=lambda data: encode_base64url(data).encode("latin-1"),
        ),
        Target(
            name="id", decode=as_text(parse_id), refusals=PARSED, seeds=[id_of("lamp").encode()]
        ),
        Target(name="key", decode=admit_key, refusals=(*PARSED, WeakKeyError), seeds=[KEY.public]),
        Target(name="topic filter", decode=as_text(topic), refusals=PARSED, seeds=filters),
        Target(
            name="mqtt connect",
            decode=parse_connect,
            refusals=PARSED,
            seeds=[encode_connect(connect)[3:], encode_connect(connect)[2:]],
        ),
        Target(name="json body", decode=parse_json, refusals=PARSED, seeds=[body]),
        Target(
            name="form body", decode=parse_form, refusals=PARSED, seeds=[b"username=a&password=%41"]
        ),
    ]

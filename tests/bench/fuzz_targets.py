"""Every decoder of the package."""

from tests.bench.fuzz_files import key_files, parcels, small
from tests.bench.fuzz_proofs import proofs
from tests.bench.fuzz_signed import records, roots, statements
from tests.bench.fuzz_target import Target
from tests.bench.fuzz_wire import datagrams, frames


def all_targets() -> list[Target]:
    """List them."""
    return [
        *statements(),
        *roots(),
        *records(),
        *proofs(),
        datagrams(),
        frames(),
        *parcels(),
        *key_files(),
        *small(),
    ]

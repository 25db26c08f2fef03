"""Write the vectors of all signed things: ``python -m tests.vectors.make``."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.vectors.make_bundles import bundles
from tests.vectors.make_grants import grants
from tests.vectors.make_proofs import proofs
from tests.vectors.make_records import records
from tests.vectors.make_rendezvous import rendezvous_records
from tests.vectors.make_roots import roots
from tests.vectors.make_statements import statements
from tests.vectors.vector import Vector

FOLDER: Final = Path(__file__).parent


def vectors() -> Iterator[Vector]:
    """Yield all of them."""
    for make in (grants, statements, roots, proofs, records, rendezvous_records, bundles):
        yield from make()


if __name__ == "__main__":
    for vector in vectors():
        target = FOLDER / vector.path
        target.parent.mkdir(exist_ok=True)
        target.write_text(vector.render(), encoding="ascii", newline="\n")

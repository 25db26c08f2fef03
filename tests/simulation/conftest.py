"""What simulated runs share."""

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import structlog

from tests.simulation.sites import Country, Playing
from tests.simulation.virtual import run


@pytest.fixture(autouse=True, scope="package")
def _quiet() -> None:
    """Leave out lines for people: thousands of nodes write them."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


@pytest.fixture
def play(tmp_path: Path, figures: Callable[[str], None]) -> Playing:
    """Return what runs an attack on a country of sites; its outcome is printed at the end."""

    def play(attack: Callable[[Country], Awaitable[str]], *, sites: int = 5) -> None:
        async def main() -> str:
            country = Country(tmp_path, sites=sites)
            async with country.running():
                return await attack(country)

        figures(f"simulated: {attack.__name__.replace('_', ' ')}: {run(main())}")

    return play

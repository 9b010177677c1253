"""A test of chance sees the same images whichever tests ran before it, so that what fails here fails again alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def wound_back(request: pytest.FixtureRequest) -> Iterator[None]:
    """The generator that a module calls RNG begins anew for each of its tests."""
    chance = getattr(request.module, "RNG", None)
    if not isinstance(chance, np.random.Generator):
        yield
        return
    beginning = chance.bit_generator.state
    yield
    chance.bit_generator.state = beginning

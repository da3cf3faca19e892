"""Fixtures of the gateway's tests."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.gateway.linear_worker import SHAPE
from tests.gateway.open_doors import Doors, opened


@pytest.fixture(scope="session")
def doors() -> Iterator[Doors]:
    """Shared: tests leave it as they found it."""
    yield from opened()


@pytest.fixture
def fresh_doors() -> Iterator[Doors]:
    """For tests that break or stop something."""
    yield from opened()


@pytest.fixture(scope="session")
def png() -> bytes:
    values = np.random.default_rng(5).integers(0, 256, (SHAPE[1], SHAPE[2], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG")
    return buffer.getvalue()

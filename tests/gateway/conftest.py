"""Fixtures of the gateway's tests."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser

from gateway.store.engine import Store, open_store
from tests.gateway.browser import chromium
from tests.gateway.linear_worker import SHAPE
from tests.gateway.open_doors import Doors, opened
from tests.gateway.stores import PostgresCluster, fill, private_postgres


@pytest.fixture(scope="session")
def doors() -> Iterator[Doors]:
    """Shared: tests leave it as they found it."""
    yield from opened()


@pytest.fixture
def fresh_doors() -> Iterator[Doors]:
    """For tests that break or stop something."""
    yield from opened()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


@pytest.fixture(scope="module")
def filled_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """With candidates enough for every test of a module."""
    opened = open_store(str(tmp_path_factory.mktemp("store") / "store.sqlite"))
    fill(opened, 60)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def png() -> bytes:
    values = np.random.default_rng(5).integers(0, 256, (SHAPE[1], SHAPE[2], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    with private_postgres() as cluster:
        yield cluster


@pytest.fixture(params=["sqlite", "postgresql"])
def new_address(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Makes addresses of empty stores."""
    if request.param == "postgresql":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        return cluster.new_database
    names = iter(range(10))
    return lambda: str(tmp_path / "not" / "yet" / f"{next(names)}.sqlite")


@pytest.fixture
def address(new_address: Callable[[], str]) -> str:
    return new_address()


@pytest.fixture
def store(address: str) -> Iterator[Store]:
    opened = open_store(address)
    yield opened
    opened.close()

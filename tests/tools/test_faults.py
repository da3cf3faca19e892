"""Every fault of `make faults`, on one real service."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.faults.befall import FAULTS, befall
from tools.faults.site import Site, started

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted, which needs root"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with started(Path(tmp_path_factory.mktemp("site"))) as running:
        yield running


@pytest.mark.parametrize("name", FAULTS)
def test_the_service_survives(site: Site, name: str) -> None:
    row = befall(site, name)
    assert row.is_held, row
    assert row.lost == 0
    assert row.tried > 0

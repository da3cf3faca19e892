"""Sources of randomness of the core's tests, the same in every run, and one thread for them."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks this small wait longer for a second thread than it computes."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20190602)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(20190602)

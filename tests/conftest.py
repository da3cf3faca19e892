"""Fixtures for every room: one thread, randomness, real data and reference checkpoints."""

import os
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch

from candor.data import cifar10
from candor.models.folder import save_model
from candor.nets.architectures import NetworkSpec, build_network
from tools.small_disk import small_disk

pytest_plugins = [
    "tests.fixtures.audit",
    "tests.fixtures.brought",
    "tests.fixtures.commands",
    "tests.fixtures.service",
]

with warnings.catch_warnings():
    # Both leave a file open when first imported; here, where it fails no test.
    warnings.simplefilter("ignore", ResourceWarning)
    import model_archiver.version  # noqa: F401
    import ts.version  # noqa: F401

_REPOSITORY = Path(__file__).resolve().parents[1]


def _outside_folder(variable: str, default: str) -> Path:
    folder = Path(os.environ.get(variable) or _REPOSITORY.parent / "shared" / default)
    if not folder.is_dir():
        pytest.skip(f"no folder {default!r} of real files; name one with {variable}")
    return folder


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Networks as small as those of the tests wait longer for a second thread than it computes."""
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


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The data sets, from CANDOR_DATA."""
    return _outside_folder("CANDOR_DATA", "data")


@pytest.fixture(scope="session")
def reference_dir() -> Path:
    """The checkpoints the paper's authors released, from CANDOR_REFERENCE."""
    return _outside_folder("CANDOR_REFERENCE", "reference")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB, to be filled up."""
    folder = tmp_path / "disk"
    with ExitStack() as mounted:
        try:
            mounted.enter_context(small_disk(folder, 8 << 20))
        except OSError as err:
            pytest.skip(str(err))
        yield folder


@pytest.fixture(scope="session")
def tiny_models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model store with one untrained ResNet-20 named ``tiny``."""
    folder = tmp_path_factory.mktemp("models")
    spec = NetworkSpec(
        architecture="cifar-resnet20", class_count=10, mean=cifar10.MEAN, std=cifar10.STD
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = build_network(spec)
    save_model(
        folder / "tiny",
        name="tiny",
        model_version="1.0",
        description="Untrained, for tests",
        spec=spec,
        state_dict=network.state_dict(),
        input_size=(32, 32),
        classes=cifar10.CLASS_NAMES,
        recipe={},
    )
    return folder


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """(8, 3, 32, 32) float32 in [0, 1], the same in every run."""
    return np.random.default_rng(7).random((8, 3, 32, 32), dtype=np.float32)

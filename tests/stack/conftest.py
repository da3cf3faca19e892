"""One real service for the whole session: JVM, two workers, gateway."""

import io
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from candor.contracts import api
from cli.archives import MODELS_DIR
from cli.stack import Stack, StackConfig
from gateway.client import CandorClient


@pytest.fixture(scope="session")
def stack_config(tiny_models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> StackConfig:
    """The untrained model, or the shipped ones where CANDOR_TEST_SHIPPED is set."""
    models_dir = MODELS_DIR if os.environ.get("CANDOR_TEST_SHIPPED") else tiny_models_dir
    return StackConfig(
        models_dir=models_dir, archives_dir=tmp_path_factory.mktemp("archives") / "built"
    )


@pytest.fixture(scope="session")
def stack(stack_config: StackConfig) -> Iterator[Stack]:
    with Stack(stack_config) as running:
        yield running


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[CandorClient]:
    with CandorClient(stack.grpc_address) as connected:
        yield connected


@pytest.fixture(scope="session")
def images(pictures: np.ndarray) -> list[api.ImageInput]:
    """Eight different pictures as PNG."""
    return [api.ImageInput(encoded=_png(picture)) for picture in pictures]


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.rint(picture.transpose(1, 2, 0) * 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()

"""One real service for the whole session: JVM, two workers a version, gateway, and a collector."""

import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.images.encode import encode_png
from candor.stack.archives import MODELS_DIR
from candor.stack.config import StackConfig
from candor.stack.supervisor import Stack
from tests.stack.collector import Collector, collecting
from tests.stack.versions import ROUTES, add_version


def _uses_shipped() -> bool:
    return bool(os.environ.get("CANDOR_TEST_SHIPPED"))


@pytest.fixture(scope="session")
def stack_config(tiny_models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> StackConfig:
    """Two versions of the untrained model, or the shipped ones where CANDOR_TEST_SHIPPED is set."""
    models_dir = MODELS_DIR if _uses_shipped() else tmp_path_factory.mktemp("store")
    if not _uses_shipped():
        for version in ("1.0", "1.1"):
            add_version(tiny_models_dir, models_dir, version)
    return StackConfig(
        models_dir=models_dir, archives_dir=tmp_path_factory.mktemp("archives") / "built"
    )


@pytest.fixture
def one_version(
    stack_config: StackConfig, tiny_models_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> StackConfig:
    """The untrained model alone, for what compiles it: two take twice as long."""
    if _uses_shipped():
        return stack_config
    return StackConfig(
        models_dir=tiny_models_dir, archives_dir=tmp_path_factory.mktemp("archive") / "built"
    )


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    with collecting() as listening:
        yield listening


@pytest.fixture(scope="session")
def stack(stack_config: StackConfig, collector: Collector) -> Iterator[Stack]:
    with ExitStack() as opened:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("CANDOR_OTLP_ENDPOINT", collector.endpoint)
            environment.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")  # milliseconds
            environment.setenv("CANDOR_ROUTES", json.dumps({} if _uses_shipped() else ROUTES))
            running = opened.enter_context(Stack(stack_config))
        yield running


@pytest.fixture(scope="session")
def client(stack: Stack) -> Iterator[CandorClient]:
    with CandorClient(stack.grpc_address) as connected:
        yield connected


@pytest.fixture(scope="session")
def images(images: np.ndarray) -> list[api.ImageInput]:
    """Eight different images as PNG."""
    return [api.ImageInput(encoded=encode_png(image)) for image in images]

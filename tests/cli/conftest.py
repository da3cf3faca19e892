"""What commands are tried on: an untrained model, a photo, random pictures laid out as CIFAR-10."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture(scope="session")
def model(tiny_models_dir: Path) -> Path:
    return tiny_models_dir / "tiny"


@pytest.fixture(scope="session")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    path.write_bytes(_png(np.random.default_rng(3).integers(0, 256, (48, 64, 3), np.uint8)))
    return path


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-10's Parquet layout with 24 random pictures a split."""
    root = tmp_path_factory.mktemp("data")
    folder = root / "cifar10" / "plain_text"
    folder.mkdir(parents=True)
    generator = np.random.default_rng(5)
    for split in ("train", "test"):
        pictures = generator.integers(0, 256, (24, 32, 32, 3), np.uint8)
        rows = [{"bytes": _png(p), "path": f"{i}.png"} for i, p in enumerate(pictures)]
        labels = [index % 10 for index in range(24)]
        table = pa.table({"img": rows, "label": pa.array(labels, pa.int64())})
        pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return root

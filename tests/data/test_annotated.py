"""Judged images as a data set: written, read, drawn from and joined."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from candor.data.annotated import (
    JudgedImage,
    drawn,
    joined,
    judged_beside,
    load_annotated,
    save_annotated,
)
from candor.data.errors import DataDamaged, DataMissing
from candor.data.images import ImageSet

CLASS_NAMES = ("cat", "dog")


def pixels_of(seed: int, size: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def judged(seed: int, *, label: int = 1, size: int = 8) -> JudgedImage:
    buffer = io.BytesIO()
    Image.fromarray(pixels_of(seed, size)).save(buffer, format="PNG")
    return JudgedImage(
        identifier=f"{seed}", png=buffer.getvalue(), label=label, verdict="unchanged", rmse=0.02
    )


@pytest.fixture
def training() -> ImageSet:
    return ImageSet(
        name="tiny/train",
        pixels=torch.zeros((4, 3, 8, 8), dtype=torch.uint8),
        labels=torch.tensor([0, 1, 0, 1]),
        class_names=CLASS_NAMES,
        identifiers=("a", "b", "c", "d"),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
    )


def test_pixels_and_labels_survive_the_file(training: ImageSet, tmp_path: Path) -> None:
    path = tmp_path / "new" / "annotations.parquet"
    save_annotated(path, [judged(5), judged(6, label=0)], CLASS_NAMES)
    extra = load_annotated(path, training)
    assert extra.labels.tolist() == [1, 0]
    assert extra.identifiers == ("5", "6")
    assert np.array_equal(extra.pixels[0].numpy(), pixels_of(5).transpose(2, 0, 1))
    both = joined(training, extra)
    assert (len(both), both.name, both.mean) == (6, training.name, training.mean)
    assert torch.equal(both.pixels[4:], extra.pixels)
    assert both.digest() != training.digest()


def test_draw_depends_on_its_seed_alone_and_repeats_nothing(training: ImageSet) -> None:
    draws = [drawn(training, 3, seed).identifiers for seed in (0, 0, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1
    assert all(len(set(one)) == 3 for one in draws)
    with pytest.raises(ValueError, match="control: expected .1, 4. .*, got 5"):
        drawn(training, 5, 0)


@pytest.mark.parametrize(
    ("rows", "names", "expected"),
    [
        ([judged(1)], ("cat", "cow"), "classes"),
        ([judged(1, label=2)], CLASS_NAMES, r"expected labels in \[0, 1\]"),
        ([judged(1, size=9)], CLASS_NAMES, r"expected shape \(3, 8, 8\), got \(3, 9, 9\)"),
        ([replace(judged(1), png=b"no")], CLASS_NAMES, "got text that begins .no. .2 bytes"),
        ([], CLASS_NAMES, "expected at least one image"),
    ],
)
def test_what_does_not_fit_is_rejected(
    training: ImageSet,
    tmp_path: Path,
    rows: list[JudgedImage],
    names: tuple[str, ...],
    expected: str,
) -> None:
    path = tmp_path / "annotations.parquet"
    save_annotated(path, rows, names)
    with pytest.raises(DataDamaged, match=expected):
        load_annotated(path, training)


def test_missing_and_foreign_files_are_told_apart(training: ImageSet, tmp_path: Path) -> None:
    path = tmp_path / "annotations.parquet"
    assert judged_beside(path).name == "annotations.judged.parquet"
    with pytest.raises(DataMissing, match="candor annotations export"):
        load_annotated(path, training)
    path.write_text("hello")
    with pytest.raises(DataDamaged, match="not a file of annotated images"):
        load_annotated(path, training)

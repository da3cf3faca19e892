"""Data sets as a model sees them: its pixels, its labels, whatever the data set's own are."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from candor.contracts.api import ImageInput, InputSpec
from candor.contracts.card import InputCard, ModelCard, Preprocessing
from candor.data.cifar10 import CLASS_NAMES
from candor.data.errors import DataDamaged, DataMissing
from candor.data.folder import load_labelled
from candor.data.registry import load_dataset, load_for_model
from candor.images.decode import decode
from candor.images.view import InputView
from tests import official_files
from tests.fixtures.audit import card
from tests.fixtures.brought import photographs
from tests.images.every_file import saved

CUT = Preprocessing(resize="shorter-edge", edge=(40,), interpolation="bicubic")


def card_of(
    classes: tuple[str, ...], rule: Preprocessing = CUT, size: tuple[int, int, int] = (3, 32, 32)
) -> ModelCard:
    update: dict[str, Any] = {
        "classes": classes,
        "preprocessing": rule,
        "input": InputCard(channels=size[0], height=size[1], width=size[2]),
    }
    return card().model_copy(update=update)


def as_served(content: bytes, model: ModelCard) -> np.ndarray:
    spec = InputSpec(**model.input.model_dump())
    return decode(ImageInput(encoded=content), spec, model.preprocessing)


def write(root: Path, names: tuple[str, ...], count: int = 2) -> Path:
    for place, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for number, image in enumerate(photographs(count, seed=place)):
            image.save(root / name / f"{number}.png")
    return root


def test_stored_images_are_seen_like_files_of_them(data_root: Path) -> None:
    model = card_of(CLASS_NAMES, size=(3, 24, 36))
    images = load_for_model("cifar10", "test", data_root, model)
    own = load_dataset("cifar10", "test", data_root)
    assert images.shape == (3, 24, 36)
    assert torch.equal(images.labels, own.labels)
    chosen = torch.tensor([0, 5, 23])
    for image, seen in zip(own.images(chosen), images.images(chosen), strict=True):
        levels = (image.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
        expected = as_served(saved(Image.fromarray(levels)), model)
        np.testing.assert_array_equal(seen.numpy(), expected)
    assert (
        images.digest()
        != load_for_model("cifar10", "test", data_root, card_of(CLASS_NAMES)).digest()
    )


def test_a_view_that_changes_nothing_leaves_data_set_and_digest(data_root: Path) -> None:
    for rule in (Preprocessing(), Preprocessing(resize="shorter-edge", edge=(32,))):
        images = load_for_model("cifar10", "test", data_root, card_of(CLASS_NAMES, rule))
        assert images.digest() == load_dataset("cifar10", "test", data_root).digest()


def test_labels_follow_the_names_of_the_model(data_root: Path) -> None:
    other = (*reversed(CLASS_NAMES), "tram")
    images = load_for_model("cifar10", "test", data_root, card_of(other))
    own = load_dataset("cifar10", "test", data_root)
    assert images.class_names == other
    names = [other[label] for label in images.labels]
    assert names == [CLASS_NAMES[label] for label in own.labels]


def test_a_model_without_names_takes_the_order_of_the_data(data_root: Path) -> None:
    images = load_for_model("cifar10", "test", data_root, card_of(tuple("0123456789")))
    assert torch.equal(images.labels, load_dataset("cifar10", "test", data_root).labels)


def test_a_class_that_the_model_lacks_is_named(data_root: Path) -> None:
    lacking = card_of(("plane", *CLASS_NAMES[1:]))
    with pytest.raises(ValueError, match="data: expected classes of the model.*'airplane'"):
        load_for_model("cifar10", "test", data_root, lacking)


def test_photographs_of_imagenet_are_seen_whole(tmp_path: Path) -> None:
    root = official_files.imagenet(tmp_path)
    synsets = ("n01440764", "n01443537")
    model = card_of(("tench", "goldfish"))
    images = load_for_model("imagenet", "test", root, model)
    assert images.class_names == ("tench", "goldfish")
    assert images.labels.tolist() == [0, 1]
    for place, name in enumerate(images.identifiers):
        content = (root / "imagenet" / "val" / name).read_bytes()
        seen = images.images(torch.tensor([place]))[0].numpy()
        np.testing.assert_array_equal(seen, as_served(content, model))
    turned = load_for_model("imagenet", "test", root, card_of(synsets[::-1]))
    assert turned.labels.tolist() == [1, 0]


def test_card_of_a_model_trained_on_imagenet_says_its_test_view(tmp_path: Path) -> None:
    root = official_files.imagenet(tmp_path)
    own = load_dataset("imagenet", "test", root)
    model = card_of(own.class_names, own.preprocessing, (3, 224, 224))
    seen = load_for_model("imagenet", "test", root, model)
    difference = (seen.images(slice(None)) - own.images(slice(None))).abs().max()
    assert float(difference) <= 1.01 / 255  # a rounding of the box


def test_regions_of_another_size_are_refused(tmp_path: Path) -> None:
    root = official_files.coco(tmp_path)
    classes = load_dataset("coco", "test", root).class_names
    with pytest.raises(ValueError, match=r"expected images of the model's size \(3, 32, 32\)"):
        load_for_model("coco", "test", root, card_of(classes))
    assert len(load_for_model("coco", "test", root, card_of(classes, size=(3, 96, 96))))


@pytest.mark.parametrize(
    ("folders", "labels"),
    [
        (("cat", "dog"), [2, 0]),
        (("0", "002"), [0, 2]),
        (("#1", "cat"), [1, 2]),
        (("dog",), [0]),
    ],
)
def test_folders_are_named_as_classes_or_by_index(
    tmp_path: Path, folders: tuple[str, ...], labels: list[int]
) -> None:
    root = write(tmp_path, folders, count=1)
    model = card_of(("dog", "bird", "cat"))
    images = load_for_model("folder", "test", root, model)
    assert images.labels.tolist() == labels
    assert images.class_names == model.classes


@pytest.mark.parametrize(
    ("folders", "classes", "message"),
    [
        (("cow",), ("dog", "cat"), "cow: expected a folder named as one of the model's 2 classes"),
        (("7",), ("dog", "cat"), "7: expected a folder named as one of the model's 2 classes"),
        (("0", "dog"), ("dog", "cat"), "expected one folder of class 0, got '0' and 'dog'"),
        (("crane",), ("crane", "gull", "crane"), "#0, #2, which share the name"),
    ],
)
def test_folders_that_are_no_class_are_named(
    tmp_path: Path, folders: tuple[str, ...], classes: tuple[str, ...], message: str
) -> None:
    root = write(tmp_path, folders)
    with pytest.raises(DataDamaged, match=message):
        load_for_model("folder", "test", root, card_of(classes))


def test_splits_of_a_tree_are_those_of_training(tmp_path: Path) -> None:
    root = write(tmp_path, ("cat", "dog"), count=10)
    model = card_of(("dog", "cat"))
    splits = {name: load_for_model("folder", name, root, model) for name in ("train", "test")}
    everything = load_labelled(root, None, InputView.of(model), model.classes)
    own = load_dataset("folder", "test", root, image_size=32)
    assert splits["test"].identifiers == own.identifiers
    assert {len(images) for images in splits.values()} == {16, 4}
    assert len(everything) == 20
    single = write(tmp_path / "single", ("cat", "dog"), count=1)
    with pytest.raises(DataDamaged, match="expected images for train, got none"):
        load_for_model("folder", "train", single, model)
    with pytest.raises(DataMissing, match="the test split"):
        load_for_model("folder", "test", tmp_path / "nowhere", model)


def test_digest_of_images_left_on_disk_covers_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("candor.data.folder._HELD_BYTES", 0)
    root = write(tmp_path, ("cat", "dog"))
    rules = (CUT, Preprocessing(), CUT.model_copy(update={"interpolation": "bilinear"}))
    models = [card_of(("cat", "dog"), rule) for rule in rules]
    digests = {load_for_model("folder", "test", root, model).digest() for model in models}
    assert len(digests) == 3

"""The CIFAR-10 reader on a small Parquet file in the layout of the official one."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from candor.data.cifar10 import CLASS_NAMES, load_cifar10
from candor.data.errors import DataDamaged, DataMissing
from candor.data.registry import dataset_names, load_dataset


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


BLACK = png(np.zeros((32, 32, 3), np.uint8))


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


@pytest.fixture
def write(tmp_path):
    def write(encoded, labels, *, paths=None, folder="cifar10", split="test"):
        paths = paths or [f"{row}.png" for row in range(len(encoded))]
        struct = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        rows = [{"bytes": b, "path": p} for b, p in zip(encoded, paths, strict=True)]
        table = pa.table({"img": pa.array(rows, struct), "label": pa.array(labels, pa.int64())})
        path = tmp_path / folder / "plain_text" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(table, path)
        return tmp_path

    return write


def test_images_labels_and_names_are_read(write, images):
    root = write([png(image) for image in images], [0, 9, 3, 3, 1])
    data = load_cifar10(root, "test")
    assert len(data) == 5
    assert (data.pixels.shape, data.pixels.dtype) == ((5, 3, 32, 32), torch.uint8)
    assert (data.pixels.permute(0, 2, 3, 1).numpy() == images).all()
    assert (data.labels.tolist(), data.labels.dtype) == ([0, 9, 3, 3, 1], torch.int64)
    assert (data.name, data.class_names) == ("cifar10/test", CLASS_NAMES)
    assert data.identifiers == ("0.png", "1.png", "2.png", "3.png", "4.png")


def test_images_are_floats_from_0_to_1(write):
    extremes = np.zeros((32, 32, 3), np.uint8)
    extremes[0, 0] = 255
    images = load_cifar10(write([png(extremes)], [0]), "test").images(slice(0, 1))
    assert images.dtype == torch.float32
    assert (images.min().item(), images.max().item()) == (0.0, 1.0)


def test_folder_of_the_data_set_may_be_named_itself(write, images):
    root = write([png(images[0])], [2], folder=".")
    assert load_cifar10(root, "test").labels.tolist() == [2]


def test_nameless_image_is_identified_by_its_row(write, images):
    root = write([png(images[0]), png(images[1])], [1, 2], paths=[None, "x.png"])
    assert load_cifar10(root, "test").identifiers == ("test/0", "x.png")


def test_digest_depends_on_pixels_and_labels(write, images):
    data = load_cifar10(write([png(image) for image in images[:2]], [0, 1]), "test")
    before = data.digest()
    data.labels[0] = 1
    relabelled = data.digest()
    data.pixels[0, 0, 0, 0] ^= 1
    assert len({before, relabelled, data.digest()}) == 3


def test_missing_file_is_reported_with_the_places_looked_at(tmp_path):
    with pytest.raises(DataMissing, match=r"plain_text(.|\n)*CANDOR_DATA") as caught:
        load_cifar10(tmp_path, "train")
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("kept", [0, 4, 200, -10])
def test_damaged_file_is_rejected(write, images, kept):
    root = write([png(image) for image in images], [0] * 5)
    (path,) = root.rglob("*.parquet")
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataDamaged, match="is not the expected Parquet file"):
        load_cifar10(root, "test")


@pytest.mark.parametrize(
    "columns",
    [
        {"label": [0]},
        {"image": [{"bytes": b"", "path": ""}], "label": [0]},
        {"img": [1], "label": [0]},
        {"img": [{"other": b""}], "label": [0]},
        {"img": [{"bytes": BLACK, "path": ""}], "label": ["cat"]},
        {"img": [{"bytes": BLACK, "path": ""}], "label": [None]},
        {"img": [{"bytes": BLACK, "path": ""}], "label": [0.5]},
        {"img": [{"bytes": "text", "path": ""}], "label": [0]},
        {"img": [None], "label": [0]},
    ],
    ids=[
        "no-img",
        "other-name",
        "img-numbers",
        "img-other-fields",
        "label-text",
        "label-null",
        "label-fraction",
        "bytes-text",
        "img-null",
    ],
)
def test_other_columns_are_rejected(write, images, columns):
    root = write([png(images[0])], [0])
    (path,) = root.rglob("*.parquet")
    pq.write_table(pa.table(columns), path)
    with pytest.raises(DataDamaged):
        load_cifar10(root, "test")


@pytest.mark.parametrize("label", [-1, 10])
def test_label_out_of_range_is_rejected(write, images, label):
    with pytest.raises(DataDamaged, match=r"expected labels in \[0, 9\]"):
        load_cifar10(write([png(images[0])] * 2, [0, label]), "test")


@pytest.mark.parametrize(
    "content",
    [b"", b"no image", None, png(np.zeros((28, 28, 3), np.uint8)), "cut"],
    ids=["empty", "text", "null", "28x28", "cut"],
)
def test_bad_image_is_rejected_with_its_row(write, images, content):
    content = png(images[1])[:100] if content == "cut" else content
    with pytest.raises(DataDamaged, match="row 1"):
        load_cifar10(write([png(images[0]), content], [0, 0]), "test")


def test_unknown_split_and_data_set_are_rejected(tmp_path):
    with pytest.raises(ValueError, match="^split: expected .*, got 'valid'"):
        load_cifar10(tmp_path, "valid")
    with pytest.raises(ValueError, match="^data: expected .*cifar10.*, got 'mnist'"):
        load_dataset("mnist", "train", tmp_path)
    assert "cifar10" in dataset_names()

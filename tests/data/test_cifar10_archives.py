"""CIFAR-10's archives on small files in the official format: three layouts, the same pixels."""

import io
import pickle
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from candor.data import cifar10_archives
from candor.data.cifar10 import load_cifar10
from candor.data.errors import DataDamaged, DataMissing
from tests.official_files import archive, binary_batch, hostile_pickle, python2_batch

COUNT = 4  # images a file, where a real one has 10,000
BATCHES = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(cifar10_archives, "BATCH_COUNT", COUNT)


@pytest.fixture
def batches(rng):
    """Rows (COUNT, 3072) uint8, labels and names by the name of a batch."""
    return {
        name: (
            rng.integers(0, 256, (COUNT, 3072), dtype=np.uint8),
            rng.integers(0, 10, COUNT).tolist(),
            [f"{name}_{row}.png" for row in range(COUNT)],
        )
        for name in (*BATCHES, "test_batch")
    }


def python_files(batches):
    files = {name: python2_batch(*batch) for name, batch in batches.items()}
    return files | {"batches.meta": pickle.dumps({b"num_vis": 3072}, 2), "readme.html": b"<html>"}


def binary_files(batches):
    files = {f"{name}.bin": binary_batch(*batch[:2]) for name, batch in batches.items()}
    return files | {"batches.meta.txt": b"airplane\n"}


LAYOUTS = {
    "python": ("cifar-10-batches-py", "cifar-10-python.tar.gz", python_files),
    "binary": ("cifar-10-batches-bin", "cifar-10-binary.tar.gz", binary_files),
}


def write(root, layout, files, *, is_packed):
    folder, packed, _ = LAYOUTS[layout]
    if is_packed:
        archive(root / packed, {f"{folder}/{name}": content for name, content in files.items()})
        return
    (root / folder).mkdir()
    for name, content in files.items():
        (root / folder / name).write_bytes(content)


def write_parquet(root, batches):
    def png(row):
        stream = io.BytesIO()
        Image.fromarray(row.reshape(3, 32, 32).transpose(1, 2, 0)).save(stream, "PNG")
        return stream.getvalue()

    (root / "plain_text").mkdir()
    for split, names in (("train", BATCHES), ("test", ("test_batch",))):
        rows = [
            {"bytes": png(row), "path": path}
            for name in names
            for row, path in zip(batches[name][0], batches[name][2], strict=True)
        ]
        labels = [label for name in names for label in batches[name][1]]
        table = pa.table({"img": rows, "label": pa.array(labels, pa.int64())})
        pq.write_table(table, root / "plain_text" / f"{split}-00000-of-00001.parquet")


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_layout_gives_the_same_images(batches, tmp_path, split):
    roots = [tmp_path / "parquet"]
    roots[0].mkdir()
    write_parquet(roots[0], batches)
    for layout, (_, _, files) in LAYOUTS.items():
        for is_packed in (False, True):
            roots.append(tmp_path / f"{layout}-{is_packed}")
            (roots[-1] / "cifar10").mkdir(parents=True)
            write(roots[-1] / "cifar10", layout, files(batches), is_packed=is_packed)
    expected, *others = [load_cifar10(root, split) for root in roots]
    names = BATCHES if split == "train" else ("test_batch",)
    rows = np.concatenate([batches[name][0] for name in names])
    assert (expected.pixels.numpy() == rows.reshape(-1, 3, 32, 32)).all()
    assert expected.labels.tolist() == [label for name in names for label in batches[name][1]]
    for other in others:
        assert other.digest() == expected.digest()
        assert other.name == expected.name
        assert len(set(other.identifiers)) == len(expected)
    assert others[0].identifiers == others[1].identifiers == expected.identifiers


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kept", [0, 10, 5000, -30])
def test_cut_archive_is_rejected(batches, tmp_path, layout, kept):
    write(tmp_path, layout, LAYOUTS[layout][2](batches), is_packed=True)
    path = tmp_path / LAYOUTS[layout][1]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataDamaged, match=f"{path.name}.*(cannot be read|is missing)"):
        load_cifar10(tmp_path, "train")


def test_archive_with_a_flipped_bit_is_rejected(batches, tmp_path):
    write(tmp_path, "binary", binary_files(batches), is_packed=True)
    path = tmp_path / "cifar-10-binary.tar.gz"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataDamaged, match="cannot be read"):
        load_cifar10(tmp_path, "train")


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kept", [0, 1, 3073, -1, -3073])
def test_cut_batch_is_rejected(batches, tmp_path, layout, is_packed, kept):
    files = LAYOUTS[layout][2](batches)
    name = next(name for name in files if name.startswith("data_batch_3"))
    files[name] = files[name][:kept]
    write(tmp_path, layout, files, is_packed=is_packed)
    with pytest.raises(DataDamaged, match=name):
        load_cifar10(tmp_path, "train")


@pytest.mark.parametrize("is_packed", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_missing_batch_is_named(batches, tmp_path, layout, is_packed):
    files = LAYOUTS[layout][2](batches)
    name = next(name for name in files if name.startswith("test_batch"))
    del files[name]
    write(tmp_path, layout, files, is_packed=is_packed)
    assert len(load_cifar10(tmp_path, "train")) == 5 * COUNT
    with pytest.raises(DataDamaged, match=f"{name} is missing"):
        load_cifar10(tmp_path, "test")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_label_past_9_is_rejected_with_its_row(batches, tmp_path, layout):
    batches["test_batch"][1][2] = 10
    write(tmp_path, layout, LAYOUTS[layout][2](batches), is_packed=True)
    with pytest.raises(DataDamaged, match=r"test_batch.*labels\[2\]: expected \[0, 9\], got 10"):
        load_cifar10(tmp_path, "test")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda rows, labels, names: (rows, labels[:-1], names),
            "labels: expected 4 entries, got 3",
        ),
        (
            lambda rows, labels, names: (rows, labels, names[:-1]),
            "filenames: expected 4 entries, got 3",
        ),
        (
            lambda rows, labels, names: (rows[:-1], labels, names),
            "data: expected 12288 bytes, got 9216",
        ),
    ],
)
def test_wrong_counts_are_rejected_by_field(batches, tmp_path, change, message):
    batches["test_batch"] = change(*batches["test_batch"])
    write(tmp_path, "python", python_files(batches), is_packed=True)
    with pytest.raises(DataDamaged, match=message):
        load_cifar10(tmp_path, "test")


@pytest.mark.parametrize("is_packed", [False, True])
def test_pickle_that_names_code_runs_none_of_it(batches, tmp_path, is_packed):
    trace = tmp_path / "trace"
    files = python_files(batches) | {"test_batch": hostile_pickle(trace)}
    write(tmp_path, "python", files, is_packed=is_packed)
    with pytest.raises(DataDamaged, match="test_batch is not the official pickle.*it names"):
        load_cifar10(tmp_path, "test")
    assert not trace.exists()


@pytest.mark.parametrize(
    "content",
    [
        {b"labels": [0], b"filenames": [b""], b"data": b"bytes"},
        {b"labels": 3, b"filenames": [], b"data": b""},
        [1, 2],
        {b"filenames": [], b"data": b""},
    ],
    ids=["data-no-array", "labels-number", "list", "no-labels"],
)
def test_other_pickles_are_rejected(batches, tmp_path, content):
    files = python_files(batches) | {"test_batch": pickle.dumps(content, protocol=3)}
    write(tmp_path, "python", files, is_packed=False)
    with pytest.raises(DataDamaged, match="test_batch is not the official pickle"):
        load_cifar10(tmp_path, "test")


def test_array_of_another_type_is_rejected(batches, tmp_path):
    content = python2_batch(*batches["test_batch"]).replace(b"U\x02u1", b"U\x02i2")
    write(tmp_path, "python", python_files(batches) | {"test_batch": content}, is_packed=True)
    with pytest.raises(DataDamaged, match="no array of bytes"):
        load_cifar10(tmp_path, "test")


def test_huge_member_is_rejected_unread(batches, tmp_path):
    files = binary_files(batches) | {"data_batch_1.bin": bytes(10**6)}
    write(tmp_path, "binary", files, is_packed=True)
    with pytest.raises(
        DataDamaged, match="data_batch_1.bin: expected at most .* bytes, got 1000000"
    ):
        load_cifar10(tmp_path, "train")


def test_archive_of_too_many_members_is_rejected(tmp_path):
    archive(tmp_path / "cifar-10-python.tar.gz", {str(number): b"" for number in range(65)})
    with pytest.raises(DataDamaged, match="more than 64 members"):
        load_cifar10(tmp_path, "train")


def test_link_in_an_archive_is_not_followed(batches, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(binary_batch(*batches["test_batch"][:2]))
    with tarfile.open(tmp_path / "cifar-10-binary.tar.gz", "w:gz") as tar:
        link = tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
        link.type, link.linkname = tarfile.SYMTYPE, str(secret)
        tar.addfile(link)
    with pytest.raises(DataDamaged, match="test_batch.bin is missing"):
        load_cifar10(tmp_path, "test")


def test_missing_data_names_every_layout(tmp_path):
    with pytest.raises(DataMissing) as caught:
        load_cifar10(tmp_path, "test")
    for folder, packed, _ in LAYOUTS.values():
        assert str(tmp_path / "cifar10" / folder) in str(caught.value)
        assert str(tmp_path / packed) in str(caught.value)


def test_official_counts_are_required(batches, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10_archives, "BATCH_COUNT", 10_000)
    for layout, (_, packed, files) in LAYOUTS.items():
        folder = tmp_path / layout
        folder.mkdir()
        write(folder, layout, files(batches), is_packed=True)
        with pytest.raises(DataDamaged, match=f"{packed}: data_batch_1.*: expected 307"):
            load_cifar10(folder, "train")


def test_real_images_are_the_same_in_every_layout(data_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10_archives, "BATCH_COUNT", 10_000)
    real = load_cifar10(data_dir, "test")
    assert len(real) == 10_000
    batch = (real.pixels.flatten(1).numpy(), real.labels.tolist())
    names = [f"{row}.png" for row in range(10_000)]
    for layout, files in (
        ("python", {"test_batch": python2_batch(*batch, names)}),
        ("binary", {"test_batch.bin": binary_batch(*batch)}),
    ):
        root = tmp_path / layout
        root.mkdir()
        write(root, layout, files, is_packed=False)
        assert load_cifar10(root, "test").digest() == real.digest()

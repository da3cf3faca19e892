"""Small data sets in the formats of the official ones, for the tests of every room."""

import io
import json
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

# JSRT's tables: name, subtlety, size in mm, age, sex, x, y, diagnosis, place, disease.
NODULE_ROW = "{name}\t5\t{size}\t53\tmale\t{x}\t{y}\tmalignant\tl.upper lobe\tlung cancer"
NORMAL_ROW = "{name}\t59\tfemale\tnon-nodule"


def python2_batch(pixels: np.ndarray, labels: list[int], names: list[str]) -> bytes:
    """A pickle as Python 2 wrote CIFAR-10's: protocol 2, its strings as bytes."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value  # SHORT_BINSTRING

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    def item(key: bytes, value: bytes) -> bytes:
        return text(key) + value + b"s"

    def listed(values: list[bytes]) -> bytes:
        return b"](" + b"".join(values) + b"e"

    kind = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) * 2 + number(0) + b"tb"
    content = pixels.tobytes()
    state = b"(" + number(1) + number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86" + kind
    state += b"\x89T" + struct.pack("<i", len(content)) + content + b"tb"  # BINSTRING
    start = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    array = start + number(0) + b"\x85" + text(b"b") + b"\x87R" + state
    fields = item(b"batch_label", text(b"training batch 1 of 5"))
    fields += item(b"labels", listed([number(label) for label in labels]))
    fields += item(b"data", array)
    fields += item(b"filenames", listed([text(name.encode()) for name in names]))
    return b"\x80\x02}" + fields + b"."


def binary_batch(pixels: np.ndarray, labels: list[int]) -> bytes:
    rows = zip(labels, pixels, strict=True)
    return b"".join(bytes([label]) + row.tobytes() for label, row in rows)


def archive(path: Path, members: dict[str, bytes]) -> None:
    """A ``.tar.gz`` of regular files in its one folder."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def photo(path: Path, *, size: tuple[int, int] = (40, 30), seed: int = 0, **options: Any) -> Path:
    """A noisy image of (width, height); the suffix of the path decides its format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def imagenet(root: Path) -> Path:
    """Two classes with three images for training and one for testing."""
    for place, wnid in enumerate(("n01440764", "n01443537")):
        for number in range(3):
            name = f"{wnid}_{number}.JPEG"
            photo(root / "imagenet" / "train" / wnid / name, size=(60, 50), seed=place + 2 * number)
        name = f"ILSVRC2012_val_{place:08}.JPEG"
        photo(root / "imagenet" / "val" / wnid / name, size=(50, 70), seed=9 + place)
    return root


def coco(root: Path, **changes: Any) -> Path:
    """Two images and three objects of two categories a split, and what ``changes`` replace."""
    for split in ("train2017", "val2017"):
        for number in (1, 2):
            path = root / "coco" / split / f"{number:012}.jpg"
            photo(path, size=(64, 48), seed=number)
        content = {
            "images": [
                {"id": number, "file_name": f"{number:012}.jpg", "width": 64, "height": 48}
                for number in (1, 2)
            ],
            "categories": [{"id": 18, "name": "dog"}, {"id": 1, "name": "person"}],
            "annotations": [
                annotation(id=11, image_id=1, category_id=1, bbox=[0, 0, 30.5, 48]),
                annotation(id=12, image_id=2, category_id=18, bbox=[10.25, 8, 20, 12.5]),
                annotation(id=13, image_id=2, category_id=1, bbox=[40, 0, 24, 40]),
            ],
        } | changes
        path = root / "coco" / "annotations" / f"instances_{split}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    return root


def annotation(**values: Any) -> dict[str, Any]:
    return {"iscrowd": 0, "area": 1.0, "segmentation": [], **values}


def film(path: Path, pixels: np.ndarray | None = None) -> Path:
    """A radiograph of ``pixels`` (2048, 2048), or of zeros in a file without blocks on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if pixels is not None:
        path.write_bytes(pixels.astype(">u2").tobytes())
        return path
    with path.open("wb") as file:
        file.truncate(2 * 2048 * 2048)
    return path


def jsrt(root: Path, *, nodules: int = 3, normal: int = 2) -> Path:
    """Films of 0s, the nodules of 15 mm at (700, 900) and on."""
    home = root / "jsrt"
    names = [f"JPCLN{number:03}.IMG" for number in range(1, nodules + 1)]
    others = [f"JPCNN{number:03}.IMG" for number in range(1, normal + 1)]
    for name in names + others:
        film(home / "All247images" / name)
    rows = [
        NODULE_ROW.format(name=name, size=15, x=700 + place, y=900)
        for place, name in enumerate(names)
    ]
    (home / "CLNDAT_EN.txt").write_text("\r\n".join(rows) + "\r\n")
    rows = [NORMAL_ROW.format(name=name) for name in others]
    (home / "CNNDAT_EN.TXT").write_text("\r\n".join(rows) + "\r\n\r\n")
    return root


def folder(root: Path, splits: tuple[str, ...] = ("train", "test"), count: int = 5) -> Path:
    """``count`` images of two classes, in splits or, with none, side by side."""
    for split in splits or ("",):
        for place, class_name in enumerate(("cats", "dogs")):
            for number in range(count):
                seed = number + 10 * place + (100 if split == "test" else 0)
                photo(root / split / class_name / f"{number}.png", size=(20, 14), seed=seed)
    return root


def hostile_pickle(path: Path) -> bytes:
    """A pickle that would create the file ``path`` if anything that it names were run."""

    class Hostile:
        def __reduce__(self) -> Any:
            return (Path.touch, (path,))

    return pickle.dumps({b"data": Hostile()}, protocol=2)

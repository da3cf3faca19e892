"""ImageNet, COCO and folders of images on small files in their official layouts."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from candor.data import folder as folder_module
from candor.data.coco import load_coco
from candor.data.errors import DataDamaged, DataMissing
from candor.data.folder import load_folder
from candor.data.imagenet import load_imagenet
from candor.data.images import ImageSet
from candor.data.lazy import LazyImages
from candor.data.photos import PhotoDecoder, View, held_out
from tests import official_files
from tests.official_files import annotation, photo

LAST = 1.0 - 1e-9  # the largest draw


def decoder_of(path, view, **options):
    return PhotoDecoder(
        name="x", folder=path.parent, files=[path.name], view=view, formats=("PNG",), **options
    )


def draws(edge=0.0, across=0.0, down=0.0):
    return np.array([edge, across, down, 0.0])


@pytest.mark.parametrize("size", [(40, 30), (30, 40), (34, 34)])
def test_crop_at_the_stored_size_is_exact(tmp_path, size):
    path = photo(tmp_path / "a.png", size=size)
    edge = min(size)
    pixels = np.asarray(Image.open(path)).transpose(2, 0, 1)
    decoder = decoder_of(path, View(20, edge, edge, edge))
    top, left = (size[1] - 20) // 2, (size[0] - 20) // 2
    assert (decoder.central(0) == pixels[:, top : top + 20, left : left + 20]).all()
    assert (decoder.drawn(0, draws()) == pixels[:, :20, :20]).all()
    assert (decoder.drawn(0, draws(LAST, LAST, LAST)) == pixels[:, -20:, -20:]).all()


@pytest.mark.parametrize("draw", [0.0, 0.5, LAST])
def test_shorter_edge_is_drawn_before_the_crop(tmp_path, draw):
    """Against resizing the whole image; the crop's outermost pixels may differ."""
    path = photo(tmp_path / "a.png", size=(90, 60))
    edge = 24 + int(draw * 13)
    whole = Image.open(path).resize((round(90 * edge / 60), edge), Image.Resampling.LANCZOS)
    expected = np.asarray(whole).transpose(2, 0, 1)[:, :20, :20].astype(int)
    cut = decoder_of(path, View(20, 24, 36, 30)).drawn(0, draws(draw)).astype(int)
    assert np.abs(cut - expected)[:, :-2, :-2].max() <= 1


def test_image_of_any_shape_fits(tmp_path):
    for place, size in enumerate([(1, 1), (1, 300), (300, 2), (7, 500)]):
        decoder = decoder_of(photo(tmp_path / f"{place}.png", size=size), View(16, 16, 24, 18))
        for cut in (decoder.central(0), decoder.drawn(0, draws(LAST, LAST, LAST))):
            assert (cut.shape, cut.dtype) == ((3, 16, 16), np.uint8)


def test_grey_and_turned_images_come_upright_in_colour(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: turn by 90 degrees clockwise to view
    stored = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    Image.fromarray(stored).save(tmp_path / "a.png", exif=exif)
    cut = decoder_of(tmp_path / "a.png", View(3, 3, 3, 3)).drawn(0, draws())
    assert (cut == np.rot90(stored, -1)[:3, :3]).all()


def test_held_out_is_a_fifth_that_does_not_change():
    names = [f"JPCLN{number:03}.IMG" for number in range(1, 155)]
    assert len(held_out(names)) == 30
    assert held_out(names) == held_out(names[::-1])
    assert [len(held_out(names[:count])) for count in (2, 5, 93)] == [1, 1, 18]


def test_imagenet_is_read_from_its_tree(tmp_path):
    data = load_imagenet(official_files.imagenet(tmp_path), "train")
    assert (len(data), data.shape) == (6, (3, 224, 224))
    assert data.class_names == ("n01440764", "n01443537")
    assert data.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.identifiers[3] == "n01443537/n01443537_0.JPEG"
    test = load_imagenet(tmp_path, "test")
    assert (test.name, test.labels.tolist()) == ("imagenet/test", [0, 1])
    images = test.images(slice(0, 2))
    assert (images.shape, images.dtype) == ((2, 3, 224, 224), torch.float32)
    assert 0.0 <= images.min() < images.max() <= 1.0
    assert torch.equal(images[1], test.images(torch.tensor([1]))[0])


def test_imagenet_view_is_the_papers(tmp_path):
    decoder = load_imagenet(official_files.imagenet(tmp_path), "train").decoder
    assert dataclasses.astuple(decoder.view) == (224, 256, 480, 256)


def test_file_that_is_no_jpeg_is_named_when_it_is_read(tmp_path):
    root = official_files.imagenet(tmp_path)
    bad = root / "imagenet" / "train" / "n01440764" / "n01440764_1.JPEG"
    bad.write_text("not image")
    data = load_imagenet(root, "train")
    data.images(slice(0, 1))
    with pytest.raises(
        DataDamaged,
        match="n01440764_1.JPEG: expected JPEG or PNG, got text that begins 'not image' ",
    ):
        data.images(slice(0, 2))
    with pytest.raises(DataDamaged, match="^imagenet: .*n01440764_1.JPEG: expected JPEG"):
        list(data.training_batches([(torch.tensor([1]), 0)]))
    bad.write_bytes((bad.parent / "n01440764_2.JPEG").read_bytes()[:200])
    with pytest.raises(DataDamaged, match=r"n01440764_1.JPEG: .* that is truncated"):
        data.images(slice(1, 2))


def test_missing_imagenet_split_says_what_to_get(tmp_path):
    with pytest.raises(DataMissing, match="ILSVRC2012_img_val.tar") as caught:
        load_imagenet(tmp_path, "test")
    assert str(tmp_path / "imagenet" / "val") in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda home: [p.unlink() for p in (home / "val" / "n01440764").iterdir()], "no images"),
        (lambda home: (home / "train" / "n99").mkdir(), "class n99 is in only one"),
        (lambda home: photo(home / "val" / "n01440764" / "a.bmp"), "a.bmp: expected the ending"),
    ],
)
def test_damaged_imagenet_tree_is_rejected(tmp_path, spoil, message):
    root = official_files.imagenet(tmp_path)
    spoil(root / "imagenet")
    with pytest.raises(DataDamaged, match=message):
        load_imagenet(root, "test")


def test_flat_validation_folder_is_rejected(tmp_path):
    photo(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(DataDamaged, match="expected at least 2 folders of classes, got 0"):
        load_imagenet(tmp_path, "test")


def test_coco_objects_are_images_of_their_boxes(tmp_path):
    data = load_coco(official_files.coco(tmp_path), "train")
    assert (data.class_names, data.shape) == (("person", "dog"), (3, 96, 96))
    assert (data.labels.tolist(), data.identifiers) == ([0, 1, 0], ("11", "12", "13"))
    assert dataclasses.astuple(data.decoder.view) == (96, 96, 120, 108)
    image = Image.open(tmp_path / "coco" / "train2017" / "000000000002.jpg")
    # The dog's box is 20 x 12.5 pixels; its shorter edge becomes 108, and 96 x 96 are cropped.
    edge = 96 * 12.5 / 108
    left, top = 10.25 + (20 - edge) / 2, 8 + (12.5 - edge) / 2
    box = (left, top, left + edge, top + edge)
    expected = np.asarray(image.resize((96, 96), Image.Resampling.LANCZOS, box=box))
    assert torch.equal(data.images(slice(1, 2))[0] * 255, torch.tensor(expected).permute(2, 0, 1))


def test_coco_crowds_and_boxes_under_a_pixel_are_left_out(tmp_path):
    rows = [
        annotation(id=1, image_id=1, category_id=1, bbox=[0, 0, 9, 9], iscrowd=1),
        annotation(id=2, image_id=1, category_id=1, bbox=[5, 5, 0.5, 20]),
        annotation(id=3, image_id=1, category_id=18, bbox=[5, 5, 1, 1]),
        annotation(id=4, image_id=1, category_id=18, bbox=[-0.3, 40, 70, 8.4]),
    ]
    data = load_coco(official_files.coco(tmp_path, annotations=rows), "test")
    assert data.identifiers == ("3", "4")
    assert data.decoder.boxes.tolist() == [[5, 5, 6, 6], [0, 40, 64, 48]]
    assert data.images(slice(0, 2)).shape == (2, 3, 96, 96)


GOOD = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 9, 9]}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"annotations": [GOOD, GOOD | {"image_id": 7}]},
            r"annotations\[1\].image_id: expected .*, got 7",
        ),
        (
            {"annotations": [GOOD | {"category_id": 3}]},
            r"annotations\[0\].category_id: expected .*, got 3",
        ),
        (
            {"annotations": [GOOD | {"bbox": [0, 0, 9]}]},
            r"\[0\].bbox: expected .*, got \[0, 0, 9\]",
        ),
        ({"annotations": [GOOD | {"bbox": [65, 0, 9, 9]}]}, r"\[0\].bbox: expected a box in 64"),
        ({"annotations": [GOOD | {"bbox": [0, 0, -1, 9]}]}, r"\[0\].bbox"),
        ({"annotations": [GOOD | {"bbox": [-9, 0, 8, 9]}]}, r"\[0\].bbox"),
        ({"annotations": [GOOD | {"bbox": [0, float("nan"), 8, 9]}]}, "expected finite numbers"),
        ({"annotations": [GOOD | {"bbox": ["a", 0, 1, 9]}]}, r"annotations\[0\]"),
        ({"annotations": [{"id": 1}]}, r"annotations\[0\].*image_id"),
        ({"annotations": [3]}, r"annotations\[0\]"),
        ({"annotations": []}, "annotations has no objects"),
        ({"annotations": None}, "annotations: expected a list"),
        (
            {"images": [{"id": 1, "file_name": "x.jpg"}]},
            "file_name of id 1: expected .*, got 'x.jpg'",
        ),
        ({"images": [{"file_name": "x.jpg"}]}, "images or categories lack 'id'"),
        ({"categories": [{"id": 1}]}, "images or categories lack 'name'"),
    ],
)
def test_broken_coco_reference_is_named(tmp_path, changes, message):
    official_files.coco(tmp_path, **changes)
    with pytest.raises(DataDamaged, match=f"instances_val2017.json.*{message}"):
        load_coco(tmp_path, "test")


def _rewritten(root, split, change):
    path = root / "coco" / "annotations" / f"instances_{split}2017.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _without_persons(content):
    content["categories"] = [{"id": 18, "name": "dog"}]
    content["annotations"] = [row for row in content["annotations"] if row["category_id"] == 18]


def test_coco_split_that_lacks_a_category_keeps_the_labels_of_training(tmp_path):
    root = official_files.coco(tmp_path)
    _rewritten(root, "val", _without_persons)
    training, test = load_coco(root, "train"), load_coco(root, "test")
    assert test.class_names == training.class_names == ("person", "dog")
    assert test.labels.tolist() == [1]


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([{"id": 18, "name": "cat"}], r"id 18: .* 'dog', got 'cat'"),
        ([{"id": 18, "name": "dog"}, {"id": 2, "name": "car"}], r"id 2: .* none, got 'car'"),
        ([{"id": 18, "name": "person"}, {"id": 1, "name": "dog"}], r"id 1: .* 'person', got 'dog'"),
        ([{"id": 18, "name": "dog"}, {"id": 18, "name": "x"}], r"categories\[1\].id: .*, got 18"),
        ([{"id": 18, "name": "dog"}, {"id": 1, "name": "dog"}], r"\[1\].name: .*, got 'dog'"),
        ([{"id": "18", "name": "dog"}], r"categories\[0\].id: expected an integer.*'18'"),
    ],
)
def test_coco_categories_of_another_taxonomy_are_refused(tmp_path, categories, message):
    root = official_files.coco(tmp_path)
    _rewritten(root, "val", lambda content: content.update(categories=categories))
    with pytest.raises(DataDamaged, match=f"instances_val2017.json: .*{message}"):
        load_coco(root, "test")


def test_photographs_that_change_places_change_the_digest(tmp_path):
    root = official_files.imagenet(tmp_path)
    before = load_imagenet(root, "train")
    first, second = (root / "imagenet" / "train" / name for name in before.identifiers[:2])
    size = max(first.stat().st_size, second.stat().st_size)
    for path in (first, second):  # of one size, which alone tells nothing
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
    digest = before.digest()
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert load_imagenet(root, "train").digest() != digest


def test_coco_image_smaller_than_its_boxes_is_rejected(tmp_path):
    root = official_files.coco(tmp_path)
    photo(root / "coco" / "val2017" / "000000000002.jpg", size=(30, 20))
    with pytest.raises(
        DataDamaged,
        match=r"000000000002.jpg: expected at least \(30.25, 20.5\) pixels.* got \(30, 20\)",
    ):
        load_coco(root, "test").images(slice(1, 2))


def test_cut_or_missing_coco_annotations_are_named(tmp_path):
    path = official_files.coco(tmp_path) / "coco" / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(DataDamaged, match="instances_val2017.json is no JSON"):
        load_coco(tmp_path, "test")
    path.write_text(json.dumps([]))
    with pytest.raises(DataDamaged, match="images: expected a list"):
        load_coco(tmp_path, "test")
    path.unlink()
    with pytest.raises(DataMissing, match=r"annotations_trainval2017.zip(.|\n)*--data-dir"):
        load_coco(tmp_path, "test")


@pytest.mark.parametrize("test_name", ["test", "val"])
def test_folder_with_splits_is_read_as_they_are(tmp_path, test_name):
    official_files.folder(tmp_path, ("train", test_name))
    train, test = (load_folder(tmp_path, split, 12) for split in ("train", "test"))
    assert isinstance(train, ImageSet)
    assert train.class_names == test.class_names == ("cats", "dogs")
    assert train.labels.tolist() == test.labels.tolist() == [0] * 5 + [1] * 5
    assert train.identifiers[5] == "dogs/0.png"
    assert (train.shape, train.name) == ((3, 12, 12), "folder/train")


def test_folder_without_splits_is_split_by_name(tmp_path):
    official_files.folder(tmp_path, ())
    train, test = (load_folder(tmp_path, split, 12) for split in ("train", "test"))
    assert set(train.identifiers).isdisjoint(test.identifiers)
    assert (train.labels.tolist(), test.labels.tolist()) == ([0] * 4 + [1] * 4, [0, 1])
    for name in ("cats/b.png", "cats/a.png"):
        photo(tmp_path / name)
    assert len(load_folder(tmp_path, "train", 12)) == 10


def test_folder_statistics_are_those_of_its_training_images(tmp_path):
    official_files.folder(tmp_path)
    train, test = (load_folder(tmp_path, split, 12) for split in ("train", "test"))
    images = train.images(slice(None)).double()
    assert train.mean == pytest.approx(images.mean((0, 2, 3)).tolist())
    assert train.std == pytest.approx(images.std((0, 2, 3), correction=0).tolist())
    assert (test.mean, test.std) == (train.mean, train.std)


def test_large_folder_stays_on_disk_with_the_same_images(tmp_path, monkeypatch):
    official_files.folder(tmp_path)
    held = load_folder(tmp_path, "train", 12)
    monkeypatch.setattr(folder_module, "_HELD_BYTES", 10)
    lazy = load_folder(tmp_path, "train", 12)
    assert isinstance(lazy, LazyImages)
    assert torch.equal(lazy.images(slice(None)), held.images(slice(None)))
    plan = [(torch.tensor([3, 0]), 1), (torch.tensor([7]), 2)]
    batches = zip(lazy.training_batches(plan), held.training_batches(plan), strict=True)
    for batch, other in batches:
        assert torch.equal(batch.stored, other.stored)
        assert torch.equal(batch.labels, other.labels)
    assert load_folder(tmp_path, "train", 10).images(slice(0, 1)).shape == (1, 3, 10, 10)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: photo(root / "test" / "birds" / "a.png"), "'birds' is in only one"),
        (
            lambda root: (root / "train" / "cats" / "notes.txt").touch(),
            "notes.txt: expected the ending",
        ),
        (
            lambda root: (root / "train" / "cats" / "0.png").write_text(""),
            "0.png: expected one BMP or JPEG or PNG or WEBP",
        ),
        (lambda root: (root / "train" / "empty").mkdir(), "empty has no images"),
    ],
)
def test_damaged_folder_is_rejected(tmp_path, spoil, message):
    official_files.folder(tmp_path)
    spoil(tmp_path)
    with pytest.raises(DataDamaged, match=message):
        load_folder(tmp_path, "test", 12)


def test_folder_without_enough_to_split_is_rejected(tmp_path):
    photo(tmp_path / "cats" / "a.png")
    with pytest.raises(DataDamaged, match="expected at least 2 folders of classes, got 1"):
        load_folder(tmp_path, "train", 12)
    photo(tmp_path / "dogs" / "a.png")
    with pytest.raises(DataDamaged, match="a.png: expected at least 2 images in a class"):
        load_folder(tmp_path, "train", 12)


def test_missing_part_of_a_folder_says_how_to_lay_it_out(tmp_path):
    with pytest.raises(DataMissing, match="train/CLASS"):
        load_folder(tmp_path, "train", 12)
    official_files.folder(tmp_path, ("train",))
    with pytest.raises(DataMissing, match="the test split is missing") as caught:
        load_folder(tmp_path, "test", 12)
    assert str(tmp_path / "val") in str(caught.value)


@pytest.mark.parametrize("size", [0, 7, 1025])
def test_folder_needs_a_size(tmp_path, size):
    with pytest.raises(ValueError, match=rf"^image_size: expected \[8, 1024\] .*, got {size}"):
        load_folder(tmp_path, "train", size)


def test_a_folder_stored_in_another_spelling_is_the_same_class(tmp_path: Path) -> None:
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for root, spelling in ((tmp_path / "a", composed), (tmp_path / "b", decomposed)):
        for class_name in (spelling, "tea"):
            for number in range(4):
                path = root / class_name / f"{spelling}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
    one, other = (load_folder(tmp_path / name, "test", 8) for name in ("a", "b"))
    assert one.class_names == other.class_names == (composed, "tea")
    assert one.identifiers == other.identifiers
    assert one.digest() == other.digest()


@pytest.mark.parametrize("names", [("caf\u00e9", "cafe\u0301"), ("cats", "do\u202egs")])
def test_folders_that_cannot_be_two_classes_are_named(
    tmp_path: Path, names: tuple[str, str]
) -> None:
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(DataDamaged, match=r"U\+0301|U\+202E"):
        load_folder(tmp_path, "test", 8)


JUNK = ("Thumbs.db", "desktop.ini", ".DS_Store", "._0.png", "Icon\r", "~$0.png", "Picasa.ini")
JUNK_FOLDERS = (
    "__MACOSX",
    "@eaDir",
    ".ipynb_checkpoints",
    "$RECYCLE.BIN",
    ".Trash-1000",
    "#snapshot",
)


def test_what_systems_leave_is_passed_over_and_counted(tmp_path, caplog):
    root = official_files.folder(tmp_path)
    clean = load_folder(root, "train", 16)
    for place in (root / "train", root / "train" / "cats"):
        for name in JUNK:
            (place / name).write_bytes(b"junk")
        for name in JUNK_FOLDERS:
            photo(place / name / "0.png")
    found = load_folder(root, "train", 16)
    assert found.class_names == ("cats", "dogs")
    assert found.digest() == clean.digest()
    count = 2 * (len(JUNK) + len(JUNK_FOLDERS))
    assert f"{count} files that systems leave were passed over" in caplog.text


def test_class_left_out_by_a_broken_link_is_named(tmp_path):
    root = official_files.folder(tmp_path)
    (root / "train" / "birds").symlink_to(tmp_path / "gone")
    with pytest.raises(DataDamaged, match=r"train/birds: expected a folder .* broken link"):
        load_folder(root, "train", 16)


def test_class_with_nothing_but_junk_is_named(tmp_path):
    root = official_files.folder(tmp_path)
    (root / "train" / "birds").mkdir()
    (root / "train" / "birds" / "Thumbs.db").touch()
    with pytest.raises(DataDamaged, match="birds has no images"):
        load_folder(root, "train", 16)


@pytest.mark.parametrize("kind", ["broken link", "folder"])
def test_photo_that_is_no_file_is_named(tmp_path, kind):
    root = official_files.folder(tmp_path)
    odd = root / "train" / "cats" / "odd.png"
    odd.mkdir() if kind == "folder" else odd.symlink_to("gone.png")
    with pytest.raises(DataDamaged, match=f"odd.png: expected a file, got a {kind}"):
        load_folder(root, "train", 16)

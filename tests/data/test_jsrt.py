"""JSRT on films and tables in the official format, and the kornia augmentations."""

import math

import numpy as np
import pytest
import torch
from torch import Generator

from candor.data.augment import WINDOW_SIZE, _warped, random_flip, random_radiograph
from candor.data.errors import DataDamaged, DataMissing
from candor.data.jsrt import CLASS_NAMES, WHITE, Film, FilmDecoder, load_jsrt
from candor.data.registry import load_dataset
from tests.official_files import NODULE_ROW, film, jsrt

SIZE = 2048
NEXT = ((128, 129), (129, 128))  # the middle's neighbours, across and down


@pytest.fixture(scope="module")
def slope(tmp_path_factory):
    """A film whose values are row + column, all below 4096."""
    rows, columns = np.mgrid[:SIZE, :SIZE]
    path = tmp_path_factory.mktemp("film") / "JPCLN001.IMG"
    return film(path, rows + columns)


def value_of(x, y):
    return round(x) + round(y)


def test_region_is_cut_around_the_nodule(slope):
    decoder = FilmDecoder([Film(slope, (700.0, 900.0), 40.0)])
    region = decoder.central(0)
    assert (region.shape, region.dtype) == ((1, 256, 256), np.int16)
    assert region[0, 128, 128] == 1600
    assert region[0, 0, 0] == 1600 - 256
    assert (np.diff(region[0], axis=0) == 1).all()


def test_training_window_is_centred_on_points_of_the_nodule_alone(slope, rng):
    decoder = FilmDecoder([Film(slope, (700.0, 900.0), 40.0)])
    centres = []
    for draws in rng.random((60, 4)):
        window = decoder.drawn(0, draws)
        assert window.shape == (1, WINDOW_SIZE, WINDOW_SIZE)
        centres.append(window[0, WINDOW_SIZE // 2, WINDOW_SIZE // 2] - 1600)
    assert np.abs(centres).max() <= 40 * math.sqrt(2) + 1
    assert np.ptp(centres) > 40


def test_training_window_without_a_nodule_is_anywhere(slope, rng):
    decoder = FilmDecoder([Film(slope, (1000.0, 1000.0), None)])
    middle = WINDOW_SIZE // 2
    centres = [decoder.drawn(0, draws)[0, middle, middle] for draws in rng.random((40, 4))]
    assert min(centres) < 1400
    assert max(centres) > 2600


@pytest.mark.parametrize("centre", [(0.0, 0.0), (2047.0, 2047.0), (2.0, 2040.0)])
def test_film_is_reflected_past_its_border(slope, centre):
    window = FilmDecoder([Film(slope, centre, 0.0)]).drawn(0, np.zeros(4))[0]
    middle = WINDOW_SIZE // 2
    assert window[middle, middle] == value_of(*centre)
    corner = [abs(value - middle) for value in centre]  # a mirror at 0 turns signs
    assert window[0, 0] == value_of(*corner)
    ends = [value + middle - 1 for value in centre]
    corner = [end if end <= 2047 else 2 * 2047 - end for end in ends]
    assert window[-1, -1] == value_of(*corner)


def test_tables_and_films_become_labelled_images(tmp_path):
    train, test = (load_jsrt(jsrt(tmp_path), split) for split in ("train", "test"))
    assert (train.class_names, train.white) == (CLASS_NAMES, WHITE)
    assert (len(train), len(test)) == (3, 2)
    assert sorted(train.identifiers + test.identifiers) == [
        *(f"JPCLN00{number}.IMG" for number in (1, 2, 3)),
        *(f"JPCNN00{number}.IMG" for number in (1, 2)),
    ]
    for data in (train, test):
        is_nodule = [name.startswith("JPCLN") for name in data.identifiers]
        assert data.labels.tolist() == [int(value) for value in is_nodule]
        for name, film_ in zip(data.identifiers, data.decoder.films, strict=True):
            if name.startswith("JPCLN"):
                assert film_.centre == (700 + int(name[5:8]) - 1, 900)
                assert film_.radius == pytest.approx(15 / 0.175 / 2)
            else:
                assert film_.radius is None
                assert all(128 <= value <= 1920 for value in film_.centre)
    assert test.images(slice(0, 2)).shape == (2, 1, 256, 256)


def test_values_are_on_the_12_bit_scale(tmp_path):
    root = jsrt(tmp_path, nodules=2, normal=2)
    for path in root.rglob("*.IMG"):
        film(path, np.full((SIZE, SIZE), WHITE))
    data = load_jsrt(root, "test")
    assert data.images(slice(0, 1)).unique().tolist() == [1.0]
    film(root / "jsrt" / "All247images" / data.identifiers[0], np.full((SIZE, SIZE), 4096))
    with pytest.raises(DataDamaged, match=r"IMG: expected values in \[0, 4095\], got 4096"):
        data.images(slice(0, 1))


@pytest.mark.parametrize("size", [0, 2 * SIZE**2 - 1, 2 * SIZE**2 + 2])
def test_film_of_another_size_is_rejected(tmp_path, size):
    root = jsrt(tmp_path)
    with (root / "jsrt" / "All247images" / "JPCLN002.IMG").open("r+b") as file:
        file.truncate(size)
    with pytest.raises(DataDamaged, match=f"JPCLN002.IMG: expected 8388608 bytes, got {size}"):
        load_jsrt(root, "train")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            NODULE_ROW.format(name="JPCLN001.IMG", size=15, x=2048, y=9),
            r"x: expected \[0, 2047\], got 2048",
        ),
        (
            NODULE_ROW.format(name="JPCLN001.IMG", size=15, x=9, y=-1),
            r"y: expected \[0, 2047\], got -1",
        ),
        (NODULE_ROW.format(name="JPCLN001.IMG", size="big", x=9, y=9), "size, x or y: could not"),
        (
            NODULE_ROW.format(name="JPCLN001.IMG", size=900, x=9, y=9),
            r"size: expected \[0, 200\], got 900",
        ),
        ("JPCLN001.IMG\t5\t15", "row of JPCLN001.IMG: size, x or y"),
        ("JPCLN002.IMG\t5\t15", "line 2: name: expected .*, got 'JPCLN002.IMG'"),
        ("hello", "line 1: name: expected JPCLNNNN.IMG once each, got 'hello'"),
    ],
)
def test_bad_row_is_rejected_by_field(tmp_path, row, message):
    table = jsrt(tmp_path) / "jsrt" / "CLNDAT_EN.txt"
    table.write_text("\n".join([row, *table.read_text().splitlines()[1:]]))
    with pytest.raises(DataDamaged, match=message):
        load_jsrt(tmp_path, "train")


def test_nodule_of_unknown_size_is_a_point(tmp_path):
    table = jsrt(tmp_path) / "jsrt" / "CLNDAT_EN.txt"
    table.write_text(table.read_text().replace("\t15\t", "\t?\t"))
    films = load_jsrt(tmp_path, "train").decoder.films
    assert {film_.radius for film_ in films} == {0.0, None}


def test_films_and_rows_must_match(tmp_path):
    root = jsrt(tmp_path)
    extra = film(root / "jsrt" / "All247images" / "JPCNN009.IMG")
    with pytest.raises(DataDamaged, match=r"JPCNN009.IMG has a film but no row of .*CNNDAT_EN.TXT"):
        load_jsrt(root, "train")
    extra.unlink()
    (root / "jsrt" / "All247images" / "JPCNN001.IMG").unlink()
    with pytest.raises(DataDamaged, match=r"JPCNN001.IMG has a row of .*CNNDAT_EN.TXT, no film"):
        load_jsrt(root, "train")


def test_missing_table_or_films_say_what_to_get(tmp_path):
    with pytest.raises(DataMissing, match=r"CLNDAT_EN.TXT is missing(.|\n)*All247images.zip"):
        load_jsrt(tmp_path, "train")
    for path in jsrt(tmp_path).rglob("*.IMG"):
        path.unlink()
    with pytest.raises(DataMissing, match=r"every film of CLNDAT_EN.txt is missing"):
        load_jsrt(tmp_path, "train")


def test_widest_view_of_a_radiograph_stays_within_its_window():
    """Every rotation of the smallest scale and the steepest shears; outside the window is 0."""
    for shear in (0.0, 1.0):
        views = _warped(
            torch.ones(1, 1, WINDOW_SIZE, WINDOW_SIZE).expand(91, -1, -1, -1),
            shear=torch.full((91,), shear),
            rotation=torch.linspace(0, 1, 91),
            scale=torch.zeros(91),
        )
        assert views.shape == (91, 1, 256, 256)
        assert views.min() > 0.999


def test_radiograph_views_cover_the_ranges_of_the_paper(monkeypatch):
    """The linear part of each view, found from two images that are the coordinates themselves."""
    monkeypatch.setattr("candor.data.augment._ERASED_SIDE", 0)
    count = 64
    places = torch.linspace(0, 1, WINDOW_SIZE).expand(count, 1, WINDOW_SIZE, WINDOW_SIZE)
    seeds = [Generator().manual_seed(7) for _ in range(2)]
    across = random_radiograph(places, padding=0, generator=seeds[0])
    down = random_radiograph(places.transpose(2, 3), padding=0, generator=seeds[1])
    moved = [
        [
            views[:, 0, row, column] - views[:, 0, 128, 128]
            for row, column in ((128, 129), (129, 128))
        ]
        for views in (across, down)
    ]
    step = (WINDOW_SIZE - 1) * torch.stack([torch.stack(pair, -1) for pair in moved], -2)
    linear = torch.linalg.inv(step)  # from the window to the view: rotation, scale, shear
    scales = torch.linalg.det(linear).sqrt()
    assert 0.605 < scales.min() < 0.66
    assert 1.5 < scales.max() < 1.655
    angles = torch.rad2deg(torch.atan2(linear[:, 1, 0], linear[:, 0, 0]))
    assert -45.1 < angles.min() < -40
    assert 40 < angles.max() < 45.1
    upright = torch.linalg.inv(_rotations(angles)) @ linear / scales[:, None, None]
    shears = torch.rad2deg(torch.atan(upright[:, 0, 1]))
    assert -30.2 < shears.min() < -26
    assert 26 < shears.max() < 30.2


def _rotations(angles):
    cosines, sines = torch.deg2rad(angles).cos(), torch.deg2rad(angles).sin()
    return torch.stack([cosines, -sines, sines, cosines], dim=-1).view(-1, 2, 2)


def test_erased_squares_are_black_or_white_and_up_to_64_pixels():
    grey = torch.full((1, 1, WINDOW_SIZE, WINDOW_SIZE), 0.5).expand(300, -1, -1, -1)
    views = random_radiograph(grey, padding=0, generator=Generator().manual_seed(3))[:, 0]
    is_erased = (views - 0.5).abs() > 1e-3
    sides = is_erased.any(1).sum(1)
    assert torch.equal(sides, is_erased.any(2).sum(1))
    assert torch.equal(sides**2, is_erased.flatten(1).sum(1))
    assert (sides.min(), sides.max()) == (0, 64)
    colours = [views[place][is_erased[place]].unique() for place in range(300)]
    assert all(len(colour) == 1 for colour, side in zip(colours, sides, strict=True) if side)
    white = sum(float(colour[0]) for colour in colours if len(colour))
    assert white / 300 == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_flip_turns_half_of_the_images(batch, generator):
    images = torch.rand(batch, 3, 5, 6)
    before = images.clone()
    for flipped, image in zip(
        random_flip(images, padding=0, generator=generator), before, strict=True
    ):
        assert torch.equal(flipped, image) or torch.equal(flipped, image.flip(2))
    row = torch.arange(2.0).expand(2000, 1, 1, 2)
    is_flipped = random_flip(row, padding=0, generator=generator)[:, 0, 0, 0] == 1
    assert is_flipped.float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert torch.equal(images, before)


@pytest.mark.parametrize("augment", [random_flip, random_radiograph])
def test_same_seed_gives_the_same_views_and_no_padding_is_taken(augment):
    images = torch.rand(4, 1, WINDOW_SIZE, WINDOW_SIZE)
    state = torch.get_rng_state()
    first, second, other = (
        augment(images, padding=0, generator=Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match="^crop_padding: expected 0 .*, got 4"):
        augment(images, padding=4, generator=Generator())


def test_size_of_a_data_set_with_its_own_cannot_be_set(tmp_path):
    jsrt(tmp_path)
    assert load_dataset("jsrt", "test", tmp_path, image_size=256).augment is random_radiograph
    with pytest.raises(ValueError, match="^image_size: expected 256 for data 'jsrt', got 32"):
        load_dataset("jsrt", "test", tmp_path, image_size=32)

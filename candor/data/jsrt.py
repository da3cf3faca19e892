"""Chest radiographs of the JSRT database, with and without a nodule."""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from candor.data.augment import REGION_SIZE, WINDOW_SIZE
from candor.data.errors import DataDamaged, check_split, home_of, missing, places_of
from candor.data.lazy import LazyImages, file_digest
from candor.data.photos import held_out
from candor.files.reading import MIB, read_file

CLASS_NAMES = ("non-nodule", "nodule")
WHITE = 4095  # 12 bits
FILM_SIZE = 2048
HIT_PIXELS = 143.0  # 2.5 cm (II-B)
_PIXEL_MM = 0.175
_TABLES = {"JPCLN": "CLNDAT_EN.TXT", "JPCNN": "CNNDAT_EN.TXT"}
_REMEDY = (
    "Get All247images.zip and ClinicalInformation.zip (the Digital Image Database page of the "
    "Japanese Society of Radiological Technology, db.jsrt.or.jp), unpack them"
)


@dataclass(frozen=True, slots=True)
class Film:
    """One radiograph.

    Attributes:
        path: file of 2048 x 2048 big-endian 16-bit integers of 12 bits, without a header.
        centre: (x, y) of the nodule in pixels; without a nodule, of the region used for tests.
        radius: radius of the nodule in pixels; None without a nodule.
    """

    path: Path
    centre: tuple[float, float]
    radius: float | None


@dataclass(frozen=True, slots=True)
class FilmDecoder:
    """Cuts regions of 256 x 256 pixels from films; a `candor.data.lazy.Decoder`.

    For training a region comes as the window of 704 x 704 pixels around it, which
    `random_radiograph` rotates and scales.  Beyond its border a film is continued by reflection.
    """

    films: Sequence[Film]

    @property
    def shape(self) -> tuple[int, int, int]:
        return 1, REGION_SIZE, REGION_SIZE

    def central(self, index: int) -> np.ndarray:
        return _window(self.films[index].path, self.films[index].centre, REGION_SIZE)

    def drawn(self, index: int, draws: np.ndarray) -> np.ndarray:
        """A window around a point of the nodule, or of the whole film without one.  (III-I4)"""
        film = self.films[index]
        if film.radius is None:
            centre = _anywhere(draws[0], draws[1])
        else:
            distance = film.radius * math.sqrt(draws[0])  # uniform over the disc
            angle = 2.0 * math.pi * draws[1]
            x, y = film.centre
            centre = (x + distance * math.cos(angle), y + distance * math.sin(angle))
        return _window(film.path, centre, WINDOW_SIZE)

    def fingerprint(self, index: int) -> str:
        film = self.films[index]
        return f"{file_digest(film.path)} {film.centre} {film.radius}"


def load_jsrt(root: Path, split: str) -> LazyImages:
    """Regions of one split, "nodule" (malignant or benign) or "non-nodule".  (III-I4)

    Arguments and errors are those of `load_films`.
    """
    films = load_films(root, split)
    return LazyImages(
        name=f"jsrt/{split}",
        labels=torch.tensor([int(film.radius is not None) for film in films]),
        class_names=CLASS_NAMES,
        identifiers=tuple(film.path.name for film in films),
        mean=(0.5,),  # each image is standardised in the network
        std=(0.25,),
        white=WHITE,
        decoder=FilmDecoder(films),
    )


def load_films(root: Path, split: str) -> list[Film]:
    """Films of one split, those with a nodule first.

    The reader expects ``CLNDAT_EN.txt``, ``CNNDAT_EN.TXT`` and the ``JPC*.IMG`` that they name in
    ``root/jsrt`` or in folders in it.  The paper tests on 48 of the 247 films without naming them;
    this reader tests on a fifth of each class, by the hash of the name, which is 30 and 18.

    Args:
        root: the data directory; ``root`` may also be the ``jsrt`` folder itself.
        split: "train" or "test".
    Raises:
        DataMissing: a table, or every film of a table, does not exist.
        DataDamaged: a row of another form, a film without a row or a row without its film, a film
            of another size.  A value above 12 bits is found when a region is read.
    """
    check_split(split)
    home = home_of("jsrt", root)
    files = {path.name.upper(): path for path in [*home.glob("*"), *home.glob("*/*")]}
    places = places_of("jsrt", root, "", "*")
    films: list[Film] = []
    for prefix, table in _TABLES.items():
        if table not in files:
            raise missing("jsrt", f"the table {table}", places, _REMEDY)
        found = _films(files[table], prefix, files)
        tested = held_out([film.path.name for film in found])
        films += [film for film in found if (film.path.name in tested) == (split == "test")]
    return films


def regions(film: Film, centres: Sequence[tuple[float, float]]) -> Tensor:
    """(N, 1, 256, 256) float32 in [0, 1] around points (x, y) of a film, as a network sees them.

    Raises:
        DataDamaged: a value above 12 bits.
    """
    windows = np.stack([_window(film.path, centre, REGION_SIZE) for centre in centres])
    return torch.from_numpy(windows).float() / WHITE


def _films(table: Path, prefix: str, files: Mapping[str, Path]) -> list[Film]:
    """Films of a table in the order of their names."""
    rows = _rows(table, prefix)
    present = {name for name in files if name.startswith(prefix) and name.endswith(".IMG")}
    if not present:
        place = table.parent / f"{prefix}*.IMG"
        raise missing("jsrt", f"every film of {table.name}", [place], _REMEDY)
    for name in sorted(rows.keys() ^ present):
        where = f"a film but no row of {table}" if name in present else f"a row of {table}, no film"
        raise DataDamaged(f"jsrt: {name} has {where}")
    for name in sorted(rows):
        size = files[name].stat().st_size
        if size != 2 * FILM_SIZE**2:
            raise DataDamaged(f"jsrt: {files[name]}: expected {2 * FILM_SIZE**2} bytes, got {size}")
    return [_film(files[name], table, rows[name]) for name in sorted(rows)]


def _rows(table: Path, prefix: str) -> dict[str, list[str]]:
    """Fields by name of the film; the tables are separated by tabs and have no head."""
    rows: dict[str, list[str]] = {}
    # The tables come in Latin letters, with any of the three ends of line.
    for number, line in enumerate(read_file(table, MIB).decode("latin-1").splitlines(), 1):
        fields = [field.strip() for field in line.split("\t")]
        if fields == [""]:
            continue
        name = fields[0].upper()
        if not (name.startswith(prefix) and name.endswith(".IMG")) or name in rows:
            raise DataDamaged(
                f"jsrt: {table} line {number}: name: expected {prefix}NNN.IMG once each, got "
                f"{fields[0]!r}"
            )
        rows[name] = fields
    return rows


def _film(path: Path, table: Path, fields: Sequence[str]) -> Film:
    """From name, subtlety, size in mm, age, sex, x, y, diagnosis ...; "?" is an unknown size."""
    if table.name.upper() == _TABLES["JPCNN"]:
        digest = hashlib.sha256(path.name.encode()).digest()
        x, y = np.frombuffer(digest[:8], "<u4") / 2.0**32
        return Film(path, _anywhere(x, y), None)
    try:
        size = 0.0 if fields[2] == "?" else float(fields[2])
        x, y = float(fields[5]), float(fields[6])
    except (IndexError, ValueError) as err:
        raise DataDamaged(f"jsrt: {table}: row of {fields[0]}: size, x or y: {err}") from err
    for name, value, high in (("size", size, 200.0), ("x", x, FILM_SIZE - 1), ("y", y, 2047)):
        if not 0.0 <= value <= high:
            raise DataDamaged(
                f"jsrt: {table}: row of {fields[0]}: {name}: expected [0, {high:g}], got {value:g}"
            )
    return Film(path, (x, y), size / _PIXEL_MM / 2.0)


def _anywhere(across: float, down: float) -> tuple[float, float]:
    """Centre of a region within the film, from two numbers in [0, 1)."""
    low, room = REGION_SIZE / 2, FILM_SIZE - REGION_SIZE
    return low + across * room, low + down * room


def _window(path: Path, centre: tuple[float, float], size: int) -> np.ndarray:
    """(1, size, size) int16 around ``centre``, whose nearest pixel lies at [size // 2]."""
    film = np.memmap(path, dtype=">u2", mode="r", shape=(FILM_SIZE, FILM_SIZE))
    x, y = centre
    part: np.ndarray = film[np.ix_(_span(y, size), _span(x, size))]
    if part.max() > WHITE:
        raise DataDamaged(f"jsrt: {path}: expected values in [0, {WHITE}], got {part.max()}")
    return part.astype(np.int16).reshape(1, size, size)


def _span(middle: float, size: int) -> np.ndarray:
    """Rows or columns (size,) around ``middle``, reflected at the border."""
    last = FILM_SIZE - 1
    nearest = min(max(round(middle), 0), last)
    places: np.ndarray = last - np.abs(last - np.abs(np.arange(size) - size // 2 + nearest))
    return places

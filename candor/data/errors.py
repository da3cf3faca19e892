"""Errors of data sets on disk, with one wording for all of them."""

from collections.abc import Sequence
from pathlib import Path

SPLITS = ("train", "test")


class DataMissing(FileNotFoundError):
    """A data set was not found; the message names the places and how to get it."""


class DataDamaged(ValueError):
    """A file of a data set exists but its content is not what its name promises."""


class ReadersFailed(ValueError):
    """The processes that decode images ended or cannot be started."""


def check_split(split: str) -> None:
    """Raises ValueError unless ``split`` is one of `SPLITS`."""
    if split not in SPLITS:
        raise ValueError(f"split: expected one of {SPLITS}, got {split!r}")


def missing(name: str, what: str, looked: Sequence[Path], remedy: str) -> DataMissing:
    """The error that ``what`` of data set ``name`` was not found.

    Args:
        looked: the places that were searched.
        remedy: how to get it, without a full stop.
    """
    places = "\n  ".join(str(path) for path in looked)
    return DataMissing(
        f"{name}: {what} is missing. Searched:\n  {places}\n{remedy}, put it there, "
        "or name its folder with --data-dir or CANDOR_DATA."
    )


def places_of(name: str, root: Path, *relative: str) -> list[Path]:
    """Where the files ``relative`` of a data set can be, see `home_of`."""
    return [home / path for home in (root / name, root) for path in relative]


def home_of(name: str, root: Path) -> Path:
    """Folder of a data set: ``root/name``, or ``root`` if that is the folder itself."""
    return root / name if (root / name).is_dir() else root

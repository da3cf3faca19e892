"""What can be wrong with a data set on disk, said in one way."""

from collections.abc import Sequence
from pathlib import Path

SPLITS = ("train", "test")


class DataMissing(FileNotFoundError):
    """A data set is not where it was looked for; the message says where and how to get it."""


class DataDamaged(ValueError):
    """A data set file is there but cannot be what it claims to be."""


def check_split(split: str) -> None:
    """Raises ValueError unless ``split`` is one of `SPLITS`."""
    if split not in SPLITS:
        raise ValueError(f"split: got {split!r}, allowed {SPLITS}")


def missing(name: str, what: str, looked: Sequence[Path], remedy: str) -> DataMissing:
    """The error for ``what`` of data set ``name``; ``remedy`` says how to get it."""
    places = "\n  ".join(str(path) for path in looked)
    return DataMissing(
        f"{name}: {what} is missing. Looked for:\n  {places}\n{remedy}, put it there, "
        "or name its folder with --data-dir or CANDOR_DATA."
    )


def places_of(name: str, root: Path, *relative: str) -> list[Path]:
    """Where the files ``relative`` of a data set may lie, see `home_of`."""
    return [home / path for home in (root / name, root) for path in relative]


def home_of(name: str, root: Path) -> Path:
    """Folder of a data set: ``root/name``, or ``root`` where it is the folder itself."""
    return root / name if (root / name).is_dir() else root

"""Datasets by registered name.  Imports data siblings only."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from candor.data.cifar10 import load_cifar10
from candor.data.images import ImageSet

_DATASETS: Mapping[str, Callable[[Path, str], ImageSet]] = {"cifar10": load_cifar10}


def dataset_names() -> tuple[str, ...]:
    """Names that `load_dataset` accepts, sorted."""
    return tuple(sorted(_DATASETS))


def default_data_dir() -> Path:
    """Cache folder of the user: ``$XDG_CACHE_HOME/candor/data`` or ``~/.cache/candor/data``."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / "candor" / "data"


def load_dataset(name: str, split: str, root: Path) -> ImageSet:
    """One split of a registered data set.

    Raises:
        ValueError: unknown name or split; the message lists what is allowed.
        DataMissing, DataDamaged: see the data set's module.
    """
    if name not in _DATASETS:
        raise ValueError(f"data: got {name!r}, allowed {dataset_names()}")
    return _DATASETS[name](root, split)

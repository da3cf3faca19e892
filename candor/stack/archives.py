"""TorchServe archives of the shipped models: built when their inputs change, else left alone."""

import filecmp
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from model_archiver.model_archiver_config import ModelArchiverConfig
from model_archiver.model_packaging_utils import ModelExportUtils

from candor.contracts.names import (
    VERSION_PATTERN,
    normalised,
    runtime_name,
    split_name,
    version_order,
    versioned,
)
from candor.files.reading import GIB, KIB, UnusableFile, read_file
from candor.files.writing import write_folder
from candor.stack.errors import ArchiveError

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS_DIR = REPOSITORY / "model_store"
ARCHIVES_DIR = REPOSITORY / "build" / "archives"
# Of the shipped store: the model of a request that names none, and what it is compared with.
DEFAULT_MODEL = "imagenette-robust"
PLAIN_MODEL = "imagenette-plain"

_MODEL_FILES = ("card.json", "weights.safetensors")
_MAX_BYTES = 4 * GIB  # of one file; a model that is loaded has a bound of its own
_GRAPH_FILE = "graph.json"  # of a network that came as ONNX
_CONFIG_FILE = "model-config.yaml"
_MANIFEST_FILE = "MAR-INF/MANIFEST.json"
_DIGEST_FILE = "inputs.sha256"
_PACKAGES = ("candor", "torchserve", "torch-model-archiver")
_WORKER = {
    # Seconds for one call before its worker is replaced; sooner than the gateway gives up at its
    # `worker_call_seconds`, 30, or jobs that wait behind a hung worker would count as its victims.
    "responseTimeout": 20,
    "startupTimeout": 120,
    "maxRetryTimeoutInSec": 120,
    "deviceType": "cpu",
}


@dataclass(frozen=True, slots=True)
class Role:
    """One of the two kinds of worker of a model: its handler and TorchServe settings.

    The number of search workers is set when TorchServe starts; they share the cores (0).
    """

    name: str
    settings: Mapping[str, Any]

    @property
    def handler(self) -> Path:
        return REPOSITORY / "handlers" / f"{self.name}_handler.py"

    @property
    def config(self) -> str:
        return yaml.safe_dump({**_WORKER, **self.settings}, sort_keys=False)


ROLES = (
    Role(
        "predict",
        {
            "minWorkers": 1,
            "maxWorkers": 1,
            "batchSize": 16,
            "maxBatchDelay": 2,
            "handler": {"threads": 1},
        },
    ),
    Role(
        "search",
        {
            "batchSize": 1,
            "maxBatchDelay": 0,
            "handler": {"threads": 0},
        },
    ),
)


def build_archives(models_dir: Path, archives_dir: Path) -> tuple[str, ...]:
    """Bring the archives of every model up to date and name them as they are served, sorted.

    Of several versions of a model the oldest comes first.

    Raises:
        ArchiveError: there is no model, one cannot be loaded, or a folder is not named as its card.
    """
    names = _served_names(models_dir)
    archives_dir.mkdir(parents=True, exist_ok=True)
    for name in names:
        _update_model(name, model_folder(models_dir, name), archives_dir)
    return names


def model_folder(models_dir: Path, served: str) -> Path:
    """``NAME`` is in a folder of that name, ``NAME@VERSION`` in one of the version below it.

    The folder's name may have another spelling of the same text.
    """
    name, version = split_name(served)
    folder = models_dir / name
    if not name.isascii() and not folder.exists() and models_dir.is_dir():
        spellings = (path for path in models_dir.iterdir() if normalised(path.name) == name)
        folder = next(spellings, folder)
    return folder / version if version else folder


def archive_names(models: tuple[str, ...]) -> tuple[str, ...]:
    """The TorchServe model names that serve these models."""
    return tuple(runtime_name(model, role.name) for model in models for role in ROLES)


def _served_names(models_dir: Path) -> tuple[str, ...]:
    if not models_dir.is_dir():
        raise ArchiveError(f"models: {models_dir} is not a folder")
    folders = sorted(p for p in models_dir.iterdir() if p.is_dir() and p.name[0] != ".")
    names = tuple(name for folder in folders for name in _names_in(folder))
    if not names:
        raise ArchiveError(f"models: {models_dir} has no folder with {' and '.join(_MODEL_FILES)}")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ArchiveError(
            f"models: {models_dir}: expected one folder for {twice[0]}, got two spellings of it"
        )
    return names


def _names_in(folder: Path) -> list[str]:
    """The model's own name, or one for each version; none where it is no model's folder."""
    name = str(normalised(folder.name))
    versions = [
        path.name for path in folder.iterdir() if path.name[0] != "." and _looks_like_model(path)
    ]
    for one in versions:
        if not re.fullmatch(VERSION_PATTERN, one):
            raise ArchiveError(
                f"{folder.name}: expected a version of up to three numbers, like 1.2, got {one!r}"
            )
    if not _looks_like_model(folder):
        return [versioned(name, one) for one in sorted(versions, key=version_order)]
    if versions:
        raise ArchiveError(f"{folder.name}: expected a model or folders of versions, got both")
    return [name]


def _looks_like_model(path: Path) -> bool:
    return any((path / name).exists() for name in _MODEL_FILES)


def _update_model(served: str, folder: Path, archives_dir: Path) -> None:
    digests = {role.name: _digest(served, folder, role) for role in ROLES}
    archives = {role.name: archives_dir / runtime_name(served, role.name) for role in ROLES}
    stale = [
        role
        for role in ROLES
        if not _is_built(folder, role, digests[role.name], archives[role.name])
    ]
    if not stale:
        return
    model_version = _checked_version(served, folder)
    for role in stale:
        _build(folder, role, model_version, digests[role.name], archives[role.name])


def _inputs(folder: Path, role: Role) -> list[Path]:
    """What an archive has copies of."""
    graphs = [_GRAPH_FILE] if (folder / _GRAPH_FILE).exists() else []
    return [*(folder / name for name in (*_MODEL_FILES, *graphs)), role.handler]


def _digest(served: str, folder: Path, role: Role) -> str:
    digest = hashlib.sha256()
    try:
        for path in _inputs(folder, role):
            digest.update(hashlib.sha256(read_file(path, _MAX_BYTES)).digest())
    except UnusableFile as err:
        raise ArchiveError(f"{served}: {err}") from err
    except OSError as err:
        raise ArchiveError(f"{served}: cannot read {err.filename}: {err.strerror}") from err
    digest.update(role.config.encode())
    digest.update(" ".join(map(version, _PACKAGES)).encode())
    return digest.hexdigest()


def _is_built(folder: Path, role: Role, digest: str, archive: Path) -> bool:
    """Whether the archive was built from these inputs and is undamaged."""
    stamp = archive / _DIGEST_FILE
    if not stamp.is_file() or read_file(stamp, KIB).strip() != digest.encode():
        return False
    originals = _inputs(folder, role)
    copies = [archive / original.name for original in originals]
    return all(
        copy.is_file() and filecmp.cmp(copy, original, shallow=False)
        for copy, original in zip(copies, originals, strict=True)
    )


def _checked_version(served: str, folder: Path) -> str:
    """The version on the card, once the folder has loaded and its card agrees with its name."""
    from candor.models.folder import load_model  # torch: seconds, needed only to build

    try:
        card = load_model(folder).card
    except (OSError, ValueError) as err:
        raise ArchiveError(f"{served}: cannot be loaded: {err}") from err
    name, folder_version = split_name(served)
    if card.name != name:
        raise ArchiveError(f"{served}: its card is of {card.name!r}; the names must agree")
    if folder_version not in ("", card.version):
        raise ArchiveError(f"{served}: its card is of version {card.version}; they must agree")
    return card.version


def _build(folder: Path, role: Role, model_version: str, digest: str, archive: Path) -> None:
    contents = {
        **{path.name: read_file(path, _MAX_BYTES) for path in _inputs(folder, role)},
        _CONFIG_FILE: role.config.encode(),
        _MANIFEST_FILE: _manifest(archive.name, role, model_version).encode(),
        _DIGEST_FILE: f"{digest}\n".encode(),  # last: it says that the others are whole
    }
    write_folder(archive, contents, keeps_others=False)


def _manifest(name: str, role: Role, model_version: str) -> str:
    config = ModelArchiverConfig(
        model_name=name,
        handler=role.handler.name,
        version=model_version,
        config_file=_CONFIG_FILE,
        archive_format="no-archive",
    )
    return str(ModelExportUtils.generate_manifest_json(config))

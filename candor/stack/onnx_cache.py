"""The ONNX files of model folders, kept in the user's cache."""

import hashlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from candor.data.registry import default_data_dir
from candor.files.writing import write_file
from candor.models.folder import load_model, read_card
from candor.models.onnx.export import export_onnx


def cached_export(folder: Path, notify: Callable[[str], None]) -> Path:
    """The ONNX file of a model folder, written when the folder or the exporter has changed.

    Args:
        notify: takes one sentence for people before an export, which takes seconds.
    Raises:
        ArtifactError: the folder is missing, damaged or contradicts itself.
    """
    card = read_card(folder)
    inputs = " ".join((card.model_dump_json(), *map(version, ("candor", "torch", "onnxscript"))))
    name = f"{card.name}-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}.onnx"
    path = default_data_dir().parent / "onnx" / name
    if not path.exists():
        notify(f"exporting {folder} to {path}, takes some seconds the first time ...")
        write_file(path, export_onnx(load_model(folder)))
    return path

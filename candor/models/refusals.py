"""Files that hold code: recognised by what they are, and refused with the command that helps."""

import zipfile
from pathlib import Path

from candor.files.reading import check_file, open_file

_SAVE = "safetensors.torch.save_file({}, 'weights.safetensors')"
_WEIGHTS = _SAVE.format("model.state_dict()")
_SCRIPT = _SAVE.format("torch.jit.load(FILE).state_dict()")
_PROGRAM = "torch.onnx.export(torch.export.load(FILE).module(), INPUTS, 'model.onnx')"
_KERAS = "tf2onnx.convert.from_keras(keras.models.load_model(FILE), output_path='model.onnx')"
_TENSORFLOW = "python -m tf2onnx.convert --saved-model FOLDER --output model.onnx"
# By the ending of the name: what it is called, and the remedy.
_BY_SUFFIX = {
    ".pt2": ("a program of torch.export", _PROGRAM),
    ".keras": ("a network of Keras", _KERAS),
    ".h5": ("a network of Keras", _KERAS),
    ".hdf5": ("a network of Keras", _KERAS),
    ".ptl": ("TorchScript", _SCRIPT),
    ".torchscript": ("TorchScript", _SCRIPT),
    ".pkl": ("a pickle", _WEIGHTS),
    ".pickle": ("a pickle", _WEIGHTS),
    ".joblib": ("a pickle", _WEIGHTS),
    ".npz": ("a file of arrays whose names its own code gives", _WEIGHTS),
    ".pb": ("a graph of TensorFlow", _TENSORFLOW),
    ".tflite": ("a graph of TensorFlow Lite", "python -m tf2onnx.convert --tflite FILE"),
}
_HDF5 = b"\x89HDF\r\n\x1a\n"


def refusal(path: Path, most: int) -> str:
    """Why this file is refused and what to do instead; empty where it may be read.

    Args:
        most: bytes that it may have.
    Raises:
        OSError: it cannot be read, or is larger.
    """
    check_file(path, most)
    found = _by_content(path, most) or _BY_SUFFIX.get(path.suffix.lower())
    if found is None:
        return ""
    kind, remedy = found
    return (
        f"{path}: expected weights, got {kind}; such files can run code when they are read and are "
        f"refused; on the machine that made it, write another with: {remedy}"
    )


def _by_content(path: Path, most: int) -> tuple[str, str] | None:
    with open_file(path, most) as stream:
        if stream.read(len(_HDF5)) == _HDF5:
            return _BY_SUFFIX[".h5"]
        try:
            with zipfile.ZipFile(stream) as archive:
                names = archive.namelist()
        except (zipfile.BadZipFile, NotImplementedError, ValueError):
            return None
    parts = [name.partition("/")[2] or name for name in names]
    if any(name.endswith("model.weights.h5") for name in names):
        return _BY_SUFFIX[".keras"]
    if "constants.pkl" in parts or any(part.startswith("code/") for part in parts):
        return _BY_SUFFIX[".torchscript"]
    if any(part.startswith(("models/", "serialized_exported_program")) for part in parts):
        return _BY_SUFFIX[".pt2"]
    return None

"""Reader of the checkpoints that the paper's authors released.

Their files are pickles that name a function of the authors' program; `safe_pickle` reads them
without importing or calling it.  The tensors are then checked one by one against the network they
must fill.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from candor.data.cifar10 import CLASS_NAMES
from candor.files.reading import read_file
from candor.models.families.safe_pickle import UnsafeCheckpoint, load_state
from candor.nets.architectures import NetworkSpec, architecture_names, build_network

_PARTS = ("model_params", "training_options")
INPUT_SIZE = (3, 32, 32)
ORIGIN = "checkpoint released by the authors of arXiv 1906.02896"
MAX_BYTES = 256 * 1024 * 1024  # ResNet-170 is 11 MB
MAX_WIDTH_FACTOR = 32  # a stem may claim any width without having the memory of it

_BLOCK_KEY = re.compile(r"pipe\.([123])\.(\d{1,3})\.main\.0\.weight")
_KNEE_KEY = re.compile(r"pipe\.(?:[123]\.\d{1,3}\.(?:pre\.1|main\.2)|5)\.d")
_THEIR_BLOCK_PARTS = {
    "norm1": "pre.0",
    "conv1": "main.0",
    "norm2": "main.1",
    "conv2": "main.3",
    "shortcut": "shortcut",
}
_THEIR_OUTER_PARTS = {"stem": "pipe.0", "norm": "pipe.4", "head": "pipe.7"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleasedCheckpoint:
    """One released checkpoint in our terms.

    Attributes:
        spec: builds the network that ``state_dict`` fills.
        state_dict: contiguous CPU tensors by our names.
        class_names: of CIFAR-10, in the order of the outputs.
        recipe: JSON-able: ``origin``, ``sha256`` of the file, ``training_options``.
    """

    spec: NetworkSpec
    state_dict: Mapping[str, Tensor]
    class_names: tuple[str, ...]
    recipe: Mapping[str, Any]


def read_released(path: Path) -> ReleasedCheckpoint:
    """Read a checkpoint released with arXiv 1906.02896 without running code it names.

    Args:
        path: a ``torch.save`` file (stream or zip) of ``model_params`` and ``training_options``.
    Raises:
        FileNotFoundError: no such file.
        UnusableFile: it is too large, or no file.
        UnsafeCheckpoint: it names or calls anything beyond tensors; the message names it.
        ValueError: it is damaged, or no network of this family; the message names file and reason.
    """
    content = read_file(path, MAX_BYTES)  # once: what was checked is what is read
    try:
        return converted(load_state(content), hashlib.sha256(content).hexdigest())
    except UnsafeCheckpoint as err:
        raise UnsafeCheckpoint(f"{path}: {err}") from err
    except ValueError as err:
        raise ValueError(f"{path}: {err}") from err


def is_released(content: Any) -> bool:
    """Whether the content of a checkpoint has the parts of the authors' files."""
    return isinstance(content, dict) and all(dict.__contains__(content, part) for part in _PARTS)


def converted(content: Any, digest: str) -> ReleasedCheckpoint:
    """A checkpoint from the content of its file.

    Args:
        content: as `safe_pickle.load_state` returns it.     digest: SHA-256 of the file.
    Raises:
        ValueError: no network of this family; the message names the reason.
    """
    tensors, options = _parts(content)
    spec = _spec(tensors, options)
    return ReleasedCheckpoint(
        spec=spec,
        state_dict=_renamed(tensors, spec),
        class_names=CLASS_NAMES,
        recipe={"origin": ORIGIN, "sha256": digest, "training_options": _plain_options(options)},
    )


def _parts(content: Any) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not isinstance(content, dict):
        raise ValueError(f"expected a dict, got a {type(content).__name__}")
    parts = []
    for key in _PARTS:
        # dict.get, dict.items: a pickle may shadow methods of an OrderedDict with attributes.
        part = dict.get(content, key)
        if not isinstance(part, dict):
            raise ValueError(f"{key}: missing or not a dict")
        parts.append(dict(dict.items(part)))
    for name, value in parts[0].items():
        if not isinstance(name, str) or type(value) is not Tensor:
            raise ValueError(f"model_params: {name!r} is not a named tensor")
    return parts[0], parts[1]


def _spec(tensors: dict[str, Tensor], options: dict[str, Any]) -> NetworkSpec:
    stem = _tensor(tensors, "pipe.0.weight", 4)
    head = _tensor(tensors, "pipe.7.weight", 4)
    offset = _tensor(tensors, "input_offset", 2)
    width_factor, rest = divmod(stem.shape[0], 16)
    if rest or not 1 <= width_factor <= MAX_WIDTH_FACTOR or stem.shape[1] != 3:
        raise ValueError(f"pipe.0.weight: expected shape (16 k, 3, 3, 3), got {tuple(stem.shape)}")
    if head.shape[0] != len(CLASS_NAMES):
        raise ValueError(f"pipe.7.weight: expected {len(CLASS_NAMES)} classes, got {head.shape[0]}")
    if offset.shape != (2, 3) or not offset.isfinite().all() or not (offset[1] > 0).all():
        raise ValueError("input_offset: expected (2, 3), a mean and a positive std a channel")
    architecture = _architecture(tensors)
    knee = _knee(tensors, options)
    return NetworkSpec(
        architecture=architecture,
        class_count=len(CLASS_NAMES),
        mean=_shortest(offset[0]),
        std=_shortest(offset[1]),
        activation="relu" if knee is None else "hhrelu",
        curvature=1.0 if knee is None else 1.0 / (2.0 * knee),
        width_factor=width_factor,
    )


def _architecture(tensors: dict[str, Tensor]) -> str:
    counts = [0, 0, 0]
    for key in tensors:
        if match := _BLOCK_KEY.fullmatch(key):
            counts[int(match[1]) - 1] += 1
    name = f"cifar-resnet{6 * counts[0] + 2}"
    if len(set(counts)) != 1 or name not in architecture_names():
        raise ValueError(f"expected the blocks of {architecture_names()}, got {counts} a stage")
    return name


def _knee(tensors: dict[str, Tensor], options: dict[str, Any]) -> float | None:
    """Where their Half-Huber ReLU becomes linear, 1/(2d) of Eq. 11; None for ReLU."""
    knees = [float(tensor) for key, tensor in tensors.items() if _is_knee(key, tensor)]
    if bool(knees) != bool(options.get("robust_additions")):
        raise ValueError(
            f"robust_additions: got {options.get('robust_additions')!r}, "
            f"although the file has {len(knees)} knees of activations"
        )
    if not knees:
        return None
    if len(set(knees)) != 1 or not 0.0 < knees[0] < math.inf:
        raise ValueError("pipe.5.d: expected one positive knee for the whole network")
    activation_count = 2 * sum(_BLOCK_KEY.fullmatch(key) is not None for key in tensors) + 1
    if len(knees) != activation_count:
        raise ValueError(f"pipe.5.d: expected {activation_count} knees, got {len(knees)}")
    return knees[0]


def _is_knee(key: str, tensor: Tensor) -> bool:
    return _KNEE_KEY.fullmatch(key) is not None and tensor.shape == () and _is_float32(tensor)


def _renamed(tensors: dict[str, Tensor], spec: NetworkSpec) -> dict[str, Tensor]:
    with torch.device("meta"):  # shapes only: no memory, and the global generator stays put
        expected = build_network(spec).state_dict()
    renamed = {}
    used = {"input_offset"} | {key for key in tensors if _is_knee(key, tensors[key])}
    for ours, shape_holder in expected.items():
        theirs = _their_name(ours)
        used.add(theirs)
        if theirs not in tensors and ours.endswith("num_batches_tracked"):
            renamed[ours] = torch.zeros((), dtype=torch.int64)  # absent before torch 0.4.1
            continue
        renamed[ours] = _converted(theirs, _tensor(tensors, theirs), shape_holder)
    if unknown := sorted(tensors.keys() - used):
        raise ValueError(f"{unknown[0]}: no such tensor in a network of this family")
    return renamed


def _their_name(ours: str) -> str:
    part, *rest = ours.split(".")
    if part != "stages":
        return ".".join([_THEIR_OUTER_PARTS[part], *rest])
    stage, block, layer, leaf = rest
    return f"pipe.{int(stage) + 1}.{block}.{_THEIR_BLOCK_PARTS[layer]}.{leaf}"


def _converted(name: str, tensor: Tensor, expected: Tensor) -> Tensor:
    shape = tuple(expected.shape)
    # Their head is a 1x1 convolution over the pooled features: the same linear map.
    theirs = (*shape, 1, 1) if name == "pipe.7.weight" else shape
    if tuple(tensor.shape) != theirs or tensor.dtype != expected.dtype:
        got = f"{tuple(tensor.shape)} of {tensor.dtype}"
        raise ValueError(f"{name}: expected {theirs} of {expected.dtype}, got {got}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name}: expected finite values")
    return tensor.detach().reshape(shape).clone(memory_format=torch.contiguous_format)


def _tensor(tensors: dict[str, Tensor], name: str, dimensions: int | None = None) -> Tensor:
    if name not in tensors:
        raise ValueError(f"{name}: missing")
    tensor = tensors[name]
    if dimensions is not None and (tensor.dim() != dimensions or not _is_float32(tensor)):
        got = f"{tuple(tensor.shape)} of {tensor.dtype}"
        raise ValueError(f"{name}: expected {dimensions} dimensions of float32, got {got}")
    return tensor


def _is_float32(tensor: Tensor) -> bool:
    return tensor.dtype == torch.float32


def _shortest(values: Tensor) -> tuple[float, ...]:
    """The shortest decimals that are the same float32 numbers: 0.4914, not 0.49140000343."""
    return tuple(float(str(np.float32(value))) for value in values.tolist())


def _plain_options(options: dict[str, Any]) -> dict[str, Any]:
    """Options that are plain values; the architecture is in the spec already."""
    return {key: value for key, value in options.items() if type(key) is str and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (bool, int, str)

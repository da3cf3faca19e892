"""Reader of the checkpoints that the paper's authors released.

Their files are pickles that name a function of the authors' program.  Nothing they name is ever
imported or called: every pickle in the file is scanned first and may name only what a state dict
needs; then torch's own restricted unpickler reads the same bytes, with an inert stand-in for names
of ``__main__``.  The tensors are then checked one by one against the network they must fill.
"""

import hashlib
import io
import math
import pickletools
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from candor.data.cifar10 import CLASS_NAMES
from candor.nets.architectures import NetworkSpec, architecture_names, build_network

ORIGIN = "checkpoint released by the authors of arXiv 1906.02896"
MAX_BYTES = 256 * 1024 * 1024  # ResNet-170 is 11 MB
MAX_WIDTH_FACTOR = 32  # a stem may claim any width without having the memory of it

_ZIP_MAGIC = b"PK\x03\x04"
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # first pickle of a torch.save stream
_LEGACY_PICKLES = 5  # magic, protocol, system, the object, storage keys; raw storages follow
_ALLOWED_GLOBALS = frozenset(
    {"collections OrderedDict", "torch._utils _rebuild_tensor_v2"}
    | {f"torch {kind}Storage" for kind in ("Float", "Double", "Half", "Long", "Int")}
)
# Opcodes that build objects or name globals in ways no state dict needs.
_REFUSED_OPCODES = frozenset({"OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"})
_STRING_OPCODES = frozenset({"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "UNICODE"})
_MEMO_OPCODES = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})

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


class UnsafeCheckpoint(ValueError):
    """The file names or calls something that no checkpoint of weights needs; nothing was run."""


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
        UnsafeCheckpoint: it names or calls anything beyond tensors; the message names it.
        ValueError: it is damaged, or no network of this family; the message says file and reason.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"{path}: got {size} bytes, allowed at most {MAX_BYTES}")
    content = path.read_bytes()  # once: what was checked is what is read
    try:
        return _imported(_load(content), hashlib.sha256(content).hexdigest())
    except UnsafeCheckpoint as err:
        raise UnsafeCheckpoint(f"{path}: {err}") from err
    except ValueError as err:
        raise ValueError(f"{path}: {err}") from err


class _Inert:
    """Stands for a name of the authors' ``__main__``; refuses to be called."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, *args: object) -> NoReturn:
        raise UnsafeCheckpoint(f"refused global: it calls {self._name}")


def _load(content: bytes) -> Any:
    if not content:
        raise ValueError("the file is empty")
    names: set[str] = set()
    for pickle_stream in _pickles(content):
        names |= _scanned_names(pickle_stream)
    inert = [(_Inert(name), name) for name in sorted(names)]
    try:
        with torch.serialization.safe_globals(inert):  # type: ignore[arg-type]
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except UnsafeCheckpoint:
        raise
    except Exception as err:  # on garbage the unpickler raises nearly anything
        reason = str(err).partition("\n")[0][:200]
        raise ValueError(f"not a readable checkpoint: {type(err).__name__}: {reason}") from err


def _pickles(content: bytes) -> Iterator[io.BytesIO]:
    """Every pickle that `torch.load` will read, each positioned at its start."""
    if content.startswith(_ZIP_MAGIC):
        yield io.BytesIO(_zipped_pickle(content))
        return
    stream = io.BytesIO(content)
    if _first_value(content) != _LEGACY_MAGIC:
        # Scanned before it is refused, so that a hostile bare pickle is called what it is.
        _scanned_names(stream)
        raise ValueError("not a torch.save file: its magic number is missing")
    for _ in range(_LEGACY_PICKLES):
        yield stream  # the scan leaves it at the next one


def _first_value(content: bytes) -> object:
    try:
        operations = pickletools.genops(content)
        next(operations)  # PROTO
        return next(operations)[1]
    except (ValueError, StopIteration, IndexError):
        return None


def _zipped_pickle(content: bytes) -> bytes:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            pickles = [member for member in members if member.filename.endswith(".pkl")]
            if any(member.compress_type != zipfile.ZIP_STORED for member in members):
                raise ValueError("its zip archive is compressed, which torch.save never does")
            if [Path(member.filename).name for member in pickles] != ["data.pkl"]:
                found = sorted(member.filename for member in pickles)
                raise ValueError(f"got pickles {found}, allowed exactly one data.pkl")
            return archive.read(pickles[0])
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, OSError) as err:
        raise ValueError(f"its zip archive is damaged: {err}") from err


def _scanned_names(stream: io.BytesIO) -> set[str]:
    """Names of ``__main__`` in the pickle at ``stream``, which is left behind it.

    Raises:
        UnsafeCheckpoint: a global or opcode that no state dict needs.
        ValueError: not a pickle.
    """
    names = set()
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name in _REFUSED_OPCODES:
                raise UnsafeCheckpoint(f"refused global: opcode {opcode.name}")
            if opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL"):
                # STACK_GLOBAL takes its names from the stack, usually the two strings just pushed.
                names |= _checked_global(argument or " ".join(strings[-2:]), opcode.name)
            if opcode.name in _STRING_OPCODES:
                strings = [*strings[-1:], str(argument)]
            elif opcode.name not in _MEMO_OPCODES:
                strings = []
    except UnsafeCheckpoint:
        raise
    except (ValueError, IndexError, OverflowError) as err:
        raise ValueError(f"damaged or cut short: {err}") from err
    return names


def _checked_global(described: str, opcode: str) -> set[str]:
    """The dotted name to stand in for, if any, of "module name" as pickletools gives it."""
    if opcode != "GLOBAL":
        raise UnsafeCheckpoint(f"refused global {described or '(computed)'} ({opcode})")
    if described in _ALLOWED_GLOBALS:
        return set()
    module, _, name = described.partition(" ")
    if module != "__main__" or not name.isidentifier():
        raise UnsafeCheckpoint(f"refused global {module}.{name}")
    return {f"{module}.{name}"}


def _imported(content: Any, digest: str) -> ReleasedCheckpoint:
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
        raise ValueError(f"got a {type(content).__name__}, allowed a dict")
    parts = []
    for key in ("model_params", "training_options"):
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
        raise ValueError(f"pipe.0.weight: got shape {tuple(stem.shape)}, allowed (16 k, 3, 3, 3)")
    if head.shape[0] != len(CLASS_NAMES):
        raise ValueError(f"pipe.7.weight: got {head.shape[0]} classes, allowed {len(CLASS_NAMES)}")
    if offset.shape != (2, 3) or not offset.isfinite().all() or not (offset[1] > 0).all():
        raise ValueError("input_offset: allowed (2, 3), a mean and a positive std a channel")
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
        raise ValueError(f"got blocks {counts} a stage, allowed those of {architecture_names()}")
    return name


def _knee(tensors: dict[str, Tensor], options: dict[str, Any]) -> float | None:
    """Where their Half-Huber ReLU becomes linear, 1/(2d) of Eq. 11; None for ReLU."""
    knees = [float(tensor) for key, tensor in tensors.items() if _is_knee(key, tensor)]
    if bool(knees) != bool(options.get("robust_additions")):
        raise ValueError(
            f"robust_additions: got {options.get('robust_additions')!r}, "
            f"but the file has {len(knees)} knees of activations"
        )
    if not knees:
        return None
    if len(set(knees)) != 1 or not 0.0 < knees[0] < math.inf:
        raise ValueError("pipe.5.d: allowed one positive knee for the whole network")
    activation_count = 2 * sum(_BLOCK_KEY.fullmatch(key) is not None for key in tensors) + 1
    if len(knees) != activation_count:
        raise ValueError(f"pipe.5.d: got {len(knees)} knees, allowed {activation_count}")
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
        raise ValueError(f"{name}: got {got}, allowed {theirs} of {expected.dtype}")
    if not torch.isfinite(tensor).all():
        raise ValueError(f"{name}: got a value that is not finite")
    return tensor.detach().reshape(shape).clone(memory_format=torch.contiguous_format)


def _tensor(tensors: dict[str, Tensor], name: str, dimensions: int | None = None) -> Tensor:
    if name not in tensors:
        raise ValueError(f"{name}: missing")
    tensor = tensors[name]
    if dimensions is not None and (tensor.dim() != dimensions or not _is_float32(tensor)):
        got = f"{tuple(tensor.shape)} of {tensor.dtype}"
        raise ValueError(f"{name}: got {got}, allowed {dimensions} dimensions of float32")
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

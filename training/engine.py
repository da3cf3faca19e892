"""How a step's forward and backward passes are run."""

from enum import StrEnum
from typing import cast

import torch
from torch import nn


class Engine(StrEnum):
    EAGER = "eager"
    COMPILED = "compiled"


class Precision(StrEnum):
    """Of what `torch.autocast` lowers in the forward pass; weights and losses are float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def runner(network: nn.Module, engine: Engine) -> nn.Module:
    """What to call in place of ``network``; it shares its weights and statistics.

    "compiled" lays ``network`` out channels-last, in place, and compiles once for every batch size
    and mode, each on its first call; a C++ compiler must be there.  It differentiates once.
    """
    if engine is Engine.EAGER:
        return network
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return cast(nn.Module, torch.compile(network, dynamic=False))


def bare(network: nn.Module) -> nn.Module:
    """The network inside what `runner` made of it."""
    own: nn.Module = getattr(network, "_orig_mod", network)
    return own

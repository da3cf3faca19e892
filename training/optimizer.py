"""The parameters on which weight decay acts."""

from enum import StrEnum
from typing import Any

from torch import nn


class WeightDecayOn(StrEnum):
    ALL = "all"
    BIASES = "biases"


def parameter_groups(
    network: nn.Module, weight_decay: float, decay_on: WeightDecayOn
) -> list[dict[str, Any]]:
    """Parameter groups for an optimizer, weight decay chosen by name.  (III-C)

    all: one group, every parameter (III-I1: weights and biases).
    biases: the parameters named ``bias`` decay, those of batch normalisation among them; whatever
    multiplies a feature does not.

    Args:
        weight_decay: strength, as `torch.optim.SGD` takes it.
    """
    if decay_on is WeightDecayOn.ALL:
        return [{"params": list(network.parameters()), "weight_decay": weight_decay}]
    named = list(network.named_parameters())
    biases = [parameter for name, parameter in named if name.split(".")[-1] == "bias"]
    others = [parameter for name, parameter in named if name.split(".")[-1] != "bias"]
    return [
        {"params": biases, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]

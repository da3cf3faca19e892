"""The weights of a finished run as its model folder holds them."""

from enum import StrEnum

import torch
from torch import Tensor, nn


class WeightsDtype(StrEnum):
    """Of the matrices and kernels on disk; vectors (biases, batch statistics) stay float32."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"


def rounded_weights(network: nn.Module, dtype: WeightsDtype) -> dict[str, Tensor]:
    """The tensors of ``network`` in the types they are stored in.

    They are rounded in ``network``, too, so that what is measured is what is stored.
    """
    state = dict(network.state_dict())
    if dtype is WeightsDtype.FLOAT16:
        state = {
            name: tensor.to(torch.float16) if tensor.dim() >= 2 else tensor
            for name, tensor in state.items()
        }
        network.load_state_dict(state)
    return state

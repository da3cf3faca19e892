"""The input gradients of L_adv inside the function that is compiled.

`torch.compile` supports no second backward through a compiled function.  It needs none where the
function itself computes the input gradients: their derivative by the weights is then one ordinary
backward, which is compiled with the rest and, unlike a finite difference, allows bfloat16.
"""

from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp

from training.engine import Engine, bare


class OutputWeights(Protocol):
    """`training.regularizers.stacked_output_weights` with the experiment's settings."""

    def __call__(
        self, logits: Tensor, labels: Tensor, *, classes: Tensor, shares: Tensor
    ) -> Tensor:
        """(K, B, V) weights of the outputs that are differentiated."""


class InnerGradients(Protocol):
    """`logits_and_gradients`, or the same compiled."""

    def __call__(
        self,
        network: nn.Module,
        images: Tensor,
        labels: Tensor,
        classes: Tensor,
        shares: Tensor,
        weights: OutputWeights,
    ) -> tuple[Tensor, Tensor]:
        """(B, V) and (K, B, C, H, W)."""


def logits_and_gradients(
    network: nn.Module,
    images: Tensor,
    labels: Tensor,
    classes: Tensor,
    shares: Tensor,
    weights: OutputWeights,
) -> tuple[Tensor, Tensor]:
    """Logits, and by pixel the gradient of each output drawn; both differentiable by the weights.

    The buffers of the network (statistics of batch normalisation) move once, as in any forward
    pass.

    Args:
        network: in the mode it is in.
        images: (B, C, H, W), without gradient.
        labels, classes, shares: as in `training.regularizers.stacked_output_weights`.
        weights: from logits without gradient, labels, classes and shares.
    Returns:
        (B, V) logits and (K, B, C, H, W) gradients.
    """
    network = bare(network)

    def call(inputs: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        # Within a transform a buffer of outside must not be written to.
        buffers = {name: buffer.clone() for name, buffer in network.named_buffers()}
        return functional_call(network, buffers, (inputs,)), buffers

    differentiated: Any = vjp(call, images, has_aux=True)  # annotated without what has_aux adds
    logits, pullback, moved = differentiated
    rows = weights(logits.detach(), labels, classes=classes, shares=shares)
    gradients = torch.stack([pullback(row)[0] for row in rows])
    with torch.no_grad():
        for name, buffer in network.named_buffers():
            buffer.copy_(moved[name])
    return logits, gradients


@cache
def inner_gradients(engine: Engine) -> InnerGradients:
    """What computes them with this engine; compiled at its first call for each batch size."""
    if engine is Engine.EAGER:
        return logits_and_gradients
    return torch.compile(logits_and_gradients, dynamic=False)

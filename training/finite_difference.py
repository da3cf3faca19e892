"""L_adv without a double backward: weight gradient by finite difference."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from training.distributed import largest_over_processes

# RMSE of the image moved farthest, a two-hundredth of the step between two 8-bit values: smaller
# ones drown in float32's rounding, larger ones see the curvature.
_STEP = 2e-5


def finite_difference_penalty(
    network: nn.Module,
    logits: Tensor,
    images: Tensor,
    weights: Tensor,
    penalty: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """A penalty of input gradients whose backward needs first derivatives only.

    With s the sum of the outputs drawn, g = ds/dx and v = dP/dg, both held fixed, the chain rule
    gives dP/dw = d/dw <v, ds/dx>, the derivative of s along v, and so

        dP/dw = (ds/dw at x + h v  -  ds/dw at x) / h  +  O(h)

    (Finlay and Oberman 2019, arXiv 1905.11468, do it for |g|.)  v moves the whole batch at once:
    in training mode batch normalisation makes s depend on all images together, and so does its
    derivative.  Running statistics do not move here.

    The backward at x + h v also carries whatever else the caller makes of the returned logits, so
    that an output costs two forward and two backward passes, the one at x included; those other
    gradients are then off by O(h) too.

    Args:
        network: what made ``logits``, and is called again, in the mode it is in.
        logits: (B, V) at ``images``, with its graph, which is freed.
        images: (B, C, H, W), a leaf that requires gradient.
        weights: (K, B, V): s_k = sum of weights[k] * logits.
        penalty: differentiable, from (B, C, H, W) gradients to the scalar P.
    Returns:
        Mean of P over the K outputs, scalar with gradient by the weights; and logits (B, V) at the
        images of the last shift, with gradient.
    """
    parameters = [weight for weight in network.parameters() if weight.requires_grad]
    penalties = []
    for place, row in enumerate(weights):
        gradients, *at_images = torch.autograd.grad(
            (logits * row).sum(),
            [images, *parameters],
            retain_graph=place + 1 < len(weights),
            materialize_grads=True,
        )
        value, direction = _with_direction(penalty, gradients)
        length = _STEP / _largest_rmse(direction)
        shifted = _call_without_statistics(network, images.detach() + length * direction)
        # Linear in the weights: its derivative is ds/dw at the images.
        held = sum((a * b).sum() for a, b in zip(at_images, parameters, strict=True))
        slope = ((shifted * row).sum() - held) / length
        penalties.append(value + slope - slope.detach())
    return torch.stack(penalties).mean(), shifted


def _with_direction(
    penalty: Callable[[Tensor], Tensor], gradients: Tensor
) -> tuple[Tensor, Tensor]:
    """P and dP/dg."""
    leaf = gradients.detach().requires_grad_()
    value = penalty(leaf)
    (direction,) = torch.autograd.grad(value, leaf)
    return value.detach(), direction


def _largest_rmse(direction: Tensor) -> Tensor:
    """Of any image of any process: one length for all; > 0 also where all are 0 and stay."""
    largest = direction.abs().max()
    scaled = direction / torch.where(largest > 0, largest, 1.0)
    rmse = scaled.square().mean(dim=(1, 2, 3)).sqrt().max() * largest
    return largest_over_processes(rmse).clamp_min(1e-30)


def _call_without_statistics(network: nn.Module, images: Tensor) -> Tensor:
    """Logits; what the pass does to buffers is done to copies."""
    copies = {name: buffer.clone() for name, buffer in network.named_buffers()}
    logits: Tensor = functional_call(network, copies, (images,))
    return logits

"""A compiled network against the network as it is, before anything is searched with it."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from candor.models.agreement import logit_difference
from candor.runtime.packaged import SearchNetworks

_GRADIENT_TOLERANCE = 0.01  # of its length: a step follows its direction
_LOW_PRECISION_FACTOR = 2.0  # compiled code rounds at other places than torch does
_SEED = 0


def compare(
    networks: SearchNetworks,
    network: nn.Module,
    uncompiled: nn.Module,
    sizes: tuple[int, ...],
    shape: tuple[int, int, int],
) -> None:
    """Check logits and gradients of the compiled networks, for full batches of every size.

    In float32 they may differ from those of ``network`` by rounding.  In low precision they may
    differ besides by twice of what the same precision costs without compiling.

    Args:
        network: as it is, in float32.
        uncompiled: as it is, in the precision of the searcher; ``network`` where that is float32.
    Raises:
        ValueError: they differ by more.
    """
    device = next(network.parameters()).device
    generator = torch.Generator().manual_seed(_SEED)
    for size in sizes:
        images = torch.rand(size, *shape, generator=generator).to(device)
        logits, gradients = _evaluated(network, images)
        with torch.no_grad():
            logit_difference(_array(networks.verifier(images)), _array(logits))
        low_logits, low_gradients = _evaluated(uncompiled, images)
        spread = float((low_logits - logits).abs().max()) / max(1.0, float(logits.abs().max()))
        got_logits, got_gradients = _evaluated(networks.searcher, images)
        more = _LOW_PRECISION_FACTOR * spread
        logit_difference(_array(got_logits), _array(logits), more=more)
        allowed = _LOW_PRECISION_FACTOR * _distance(low_gradients, gradients) + _GRADIENT_TOLERANCE
        _check_gradients(_distance(got_gradients, gradients), allowed)


def _check_gradients(difference: float, allowed: float) -> None:
    if not difference <= allowed:
        raise ValueError(
            f"gradients: expected a difference to torch's of at most {allowed:.2g} of their "
            f"length, got {difference:.2g}"
        )


def _evaluated(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (B, V), and the gradient (B, C, H, W) of the first class against the others."""
    batch = images.clone().requires_grad_()
    logits: Tensor = network(batch)
    values = logits[:, 0] - logits.logsumexp(dim=1)
    (gradients,) = torch.autograd.grad(values.sum(), batch)
    return logits.detach(), gradients


def _distance(gradients: Tensor, expected: Tensor) -> float:
    """Length of the difference over that of the gradients of the batch."""
    length = float(expected.norm())
    return float((gradients - expected).norm()) / length if length else float(gradients.norm())


def _array(logits: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = logits.detach().cpu().numpy()
    return array

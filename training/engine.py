"""How a step's forward and backward passes are run."""

import statistics
import time
from collections.abc import Callable
from enum import StrEnum
from typing import cast

import torch
from torch import Tensor, nn

_MEASURED_PASSES = 3


class Engine(StrEnum):
    EAGER = "eager"
    COMPILED = "compiled"


class Precision(StrEnum):
    """Of what `torch.autocast` lowers in the forward pass; weights and losses are float32."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FASTEST = "fastest"  # whichever of the two `fastest_precision` measures when the run begins


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


def fastest_precision(
    network: nn.Module,
    batch_shape: tuple[int, int, int, int],
    clock: Callable[[], float] = time.perf_counter,
) -> Precision:
    """The precision in which the network's forward and backward pass takes less time here.

    Measured, not read off the processor: bfloat16 may be several times faster or far slower.
    Neither the network nor the global generator is changed.

    Args:
        batch_shape: (B, C, H, W) of a training batch.
        clock: seconds.
    """
    weight = next(network.parameters())
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch_shape, generator=generator).to(weight.device)
    images = images.contiguous(memory_format=torch.channels_last)
    was_training = network.training
    network.eval()  # statistics stay as they are
    try:
        seconds = {
            precision: _pass_seconds(network, images, precision, clock)
            for precision in (Precision.FLOAT32, Precision.BFLOAT16)
        }
    finally:
        network.train(was_training)
    is_half = seconds[Precision.BFLOAT16] < seconds[Precision.FLOAT32]
    return Precision.BFLOAT16 if is_half else Precision.FLOAT32


def _pass_seconds(
    network: nn.Module, images: Tensor, precision: Precision, clock: Callable[[], float]
) -> float:
    """Median of `_MEASURED_PASSES`, after one that warms up."""
    weights = [weight for weight in network.parameters() if weight.requires_grad]
    is_half = precision is Precision.BFLOAT16
    seconds = []
    for _ in range(1 + _MEASURED_PASSES):
        start = clock()
        with torch.autocast(images.device.type, torch.bfloat16, enabled=is_half):
            loss = network(images).float().logsumexp(dim=1).sum()
        torch.autograd.grad(loss, weights, allow_unused=True)
        loss.item()  # a GPU has computed it by then
        seconds.append(clock() - start)
    return statistics.median(seconds[1:])

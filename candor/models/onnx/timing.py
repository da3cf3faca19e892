"""How long runtimes take for the same images."""

import statistics
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]  # (B, C, H, W) in [0, 1]
Network = Callable[[Pixels], NDArray[np.float32]]  # to logits (B, V)

_TIMED_BATCHES = (1, 32)
_LEAST_ROUNDS, _TIMED_SECONDS = 5, 2.0  # of each batch size


def median_milliseconds(
    runtimes: Mapping[str, Network], images: Pixels, batch: int | None
) -> dict[str, dict[str, float]]:
    """Median milliseconds of one call, by batch size and runtime.

    Args:
        runtimes: networks by name.
        images: (N, C, H, W), repeated or cut to each batch size.
        batch: the only batch size; None for one image and 32.
    """
    sizes = _TIMED_BATCHES if batch is None else (batch,)
    shape = images.shape[1:]
    return {str(size): _medians(runtimes, np.resize(images, (size, *shape))) for size in sizes}


def _medians(runtimes: Mapping[str, Network], images: Pixels) -> dict[str, float]:
    """The runtimes take turns, so that other load of the machine slows all alike."""
    for network in runtimes.values():
        network(images)
    seconds: dict[str, list[float]] = {name: [] for name in runtimes}
    end = time.perf_counter() + _TIMED_SECONDS
    rounds = 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() < end:
        for name, network in runtimes.items():
            started = time.perf_counter()
            network(images)
            seconds[name].append(time.perf_counter() - started)
        rounds += 1
    return {name: round(1e3 * statistics.median(values), 3) for name, values in seconds.items()}

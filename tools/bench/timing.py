"""Times of several works, turn by turn, so that whatever else runs meets all of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds of each turn: on the clock, and of this process on all its threads."""

    wall: Sequence[float]
    cpu: Sequence[float]

    @property
    def median(self) -> float:
        return float(np.median(self.wall))

    def ratios(self, other: "Times") -> list[float]:
        """How many times as long as ``other`` each turn took on the clock."""
        return [own / theirs for own, theirs in zip(self.wall, other.wall, strict=True)]

    def cpu_ratio(self, other: "Times") -> float:
        """The same of the processor's time, which others on the machine disturb less; median."""
        return float(np.median([a / b for a, b in zip(self.cpu, other.cpu, strict=True)]))


def interleaved(works: Sequence[Callable[[], object]], repeats: int) -> list[Times]:
    """Times of each work, after one turn that does not count; a GPU is waited for."""
    wall: list[list[float]] = [[] for _ in works]
    cpu: list[list[float]] = [[] for _ in works]
    for turn in range(repeats + 1):
        for work, own_wall, own_cpu in zip(works, wall, cpu, strict=True):
            _wait()
            before = time.perf_counter(), time.process_time()
            work()
            _wait()
            if turn:
                own_wall.append(time.perf_counter() - before[0])
                own_cpu.append(time.process_time() - before[1])
    return [Times(*pair) for pair in zip(wall, cpu, strict=True)]


def spread(values: Sequence[float]) -> str:
    """Smallest and largest."""
    return f"{min(values):.2f} to {max(values):.2f}"


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()

"""A batch of searches divided among threads of the CPU.

The layers of a small network are too short to divide each of them among threads; a share of the
batch with all its steps is long enough.  The searches of a batch are independent of each other, so
the results are those of the whole batch up to the rounding of the network in another batch.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache, partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from candor.search.state import SearchState, concatenate
from candor.search.steps import Work

PartT = TypeVar("PartT")
DoneT = TypeVar("DoneT")
_SMALLEST_SHARE = 4  # images; with fewer a thread has too little to do at each layer


@contextmanager
def on_threads(count: int) -> Iterator[None]:
    """torch computes with so many, and code is compiled for so many; afterwards as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def share_count(batch_size: int, threads: int) -> int:
    """Shares of a batch: at most one for each thread, of about 4 images or more."""
    return max(1, min(threads, math.ceil(batch_size / _SMALLEST_SHARE)))


def share_size(batch_size: int, threads: int) -> int:
    """Images of the largest share of a batch."""
    return math.ceil(batch_size / share_count(batch_size, threads))


def in_shares(work: Work, network: nn.Module, state: SearchState) -> SearchState:
    """``work`` on every share of the batch at once, the results in the order of the batch.

    A `candor.search.steps.Executor`.  A batch on a GPU stays whole.  The number of threads of the
    calling thread is afterwards what it was before.

    Args:
        work: takes a batch, returns one of the same size and order; called in several threads.
        network: what ``work`` evaluates.  A compiled network has the number of threads in its
            attribute ``most_threads``; for any other it is torch's setting for this process.
    Raises:
        Exception: what ``work`` raised for the first share that failed.
    """
    threads = int(getattr(network, "most_threads", torch.get_num_threads()))
    count = 1 if state.images.is_cuda else share_count(len(state), threads)
    if count == 1:
        before = torch.get_num_threads()
        try:
            return work(state)
        finally:
            torch.set_num_threads(before)  # a compiled network sets its own number
    shares = [state.select(rows) for rows in torch.arange(len(state)).tensor_split(count)]
    return concatenate(_side_by_side(work, shares, threads))


def spread_over(
    network: nn.Module, work: Callable[[Tensor], DoneT], rows: Tensor, batch_size: int
) -> list[tuple[Tensor, DoneT]]:
    """``work`` on batches of ``rows`` at once, one for each thread or more; a batch and its result.

    With the network bound it is a `candor.attacks.batching.Spread`.

    Args:
        network, work: as in `in_shares`.     rows: (N,) int64, N >= 1.
        batch_size: of the largest batch.
    """
    threads = int(getattr(network, "most_threads", torch.get_num_threads()))
    count = max(share_count(len(rows), threads), math.ceil(len(rows) / batch_size))
    batches = rows.tensor_split(count)
    return list(zip(batches, _side_by_side(work, batches, threads), strict=True))


def _side_by_side(
    work: Callable[[PartT], DoneT], parts: Sequence[PartT], threads: int
) -> list[DoneT]:
    """``work`` on each part, as many at once as there are threads, in the order of the parts."""
    each = max(1, threads // len(parts))  # for the layers that one thread evaluates
    return list(_pool(threads).map(partial(_alone, work, each), parts))


def _alone(work: Callable[[PartT], DoneT], threads: int, part: PartT) -> DoneT:
    torch.set_num_threads(threads)
    return work(part)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Kept for the process: each of its threads has a pool inside torch, which is slow to make."""
    return ThreadPoolExecutor(threads, thread_name_prefix="searches")

"""A batch of searches divided among threads of the CPU.

The layers of a small network are too short to divide each of them among threads; a share of the
batch with all its steps is long enough.  The searches of a batch are independent of each other, so
the results are those of the whole batch up to the rounding of the network in another batch.
"""

import math
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import nn

from candor.search.state import SearchState, concatenate
from candor.search.steps import Work

_SMALLEST_SHARE = 4  # images; with fewer a thread has too little to do at each layer


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
    each = threads // count

    def alone(share: SearchState) -> SearchState:
        torch.set_num_threads(each)  # for the layers that this thread evaluates
        return work(share)

    return concatenate(list(_pool(threads).map(alone, shares)))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Kept for the process: each of its threads has a pool inside torch, which is slow to make."""
    return ThreadPoolExecutor(threads, thread_name_prefix="searches")

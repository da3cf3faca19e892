"""A batch shared out over threads of the CPU.

A small network's layers are too short to be worth a second thread each; a share of the batch with
all its steps is not.  The searches of a batch know nothing of each other, so nothing else changes.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import torch
from torch import nn

from candor.search.state import SearchState, concatenate

_SMALLEST_SHARE = 4  # images; of fewer, a thread has too little to do at each layer


def share_count(batch_size: int, threads: int) -> int:
    """Shares of a batch: one a thread, none smaller than 4 images but for the last ones left."""
    return max(1, min(threads, math.ceil(batch_size / _SMALLEST_SHARE)))


def share_size(batch_size: int, threads: int) -> int:
    """Images of the largest share of a batch."""
    return math.ceil(batch_size / share_count(batch_size, threads))


def in_shares(
    work: Callable[[SearchState], SearchState], network: nn.Module, state: SearchState
) -> SearchState:
    """``work`` on every share of the batch at once, the results in the order of the batch.

    A batch on a GPU stays whole.

    Args:
        network: what ``work`` evaluates; one compiled says in ``most_threads`` how many threads
            there are, for another it is torch's setting for this process.
    """
    threads = int(getattr(network, "most_threads", torch.get_num_threads()))
    count = 1 if state.images.is_cuda else share_count(len(state), threads)
    if count == 1:
        before = torch.get_num_threads()
        try:
            return work(state)
        finally:
            torch.set_num_threads(before)  # a compiled network has its own idea of how many
    shares = [state.select(rows) for rows in torch.arange(len(state)).tensor_split(count)]
    each = threads // count

    def alone(share: SearchState) -> SearchState:
        torch.set_num_threads(each)  # of this thread's own layers
        return work(share)

    return concatenate(list(_pool(threads).map(alone, shares)))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Kept: a thread that computes has a pool of its own, which is slow to make."""
    return ThreadPoolExecutor(threads, thread_name_prefix="searches")

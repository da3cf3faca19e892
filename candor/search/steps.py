"""What the steps of every solver have in common."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor, nn

from candor.search.geometry import lengths_of, unit
from candor.search.goals import is_explanation
from candor.search.seeds import derived_seed
from candor.search.state import SearchState

Step = Callable[[nn.Module, SearchState], SearchState]
Work = Callable[[SearchState], SearchState]
# Does the work on a batch, whole or in parts: `as_one_batch`, or with threads of the CPU
# `candor.runtime.threads.in_shares`.  The network is the one that the work evaluates.
Executor = Callable[[Work, nn.Module, SearchState], SearchState]


def as_one_batch(work: Work, network: nn.Module, state: SearchState) -> SearchState:
    """``work`` on the whole batch in the calling thread; torch may still use several inside."""
    return work(state)


def advance_by(
    step: Step,
    is_finished: Callable[[SearchState], Tensor],
    network: nn.Module,
    state: SearchState,
    steps: int,
    execute: Executor,
) -> SearchState:
    """``steps`` times ``step`` over the unfinished searches of the batch, or to their end.

    Args:
        execute: does all of these steps, on the batch or on parts of it.
    Raises:
        ValueError: the network is in training mode, where a forward pass would move its statistics.
    """
    if network.training:
        raise ValueError("network: expected evaluation mode, got training mode")
    return execute(partial(_advanced, step, is_finished, network, steps), network, state)


def _advanced(
    step: Step,
    is_finished: Callable[[SearchState], Tensor],
    network: nn.Module,
    steps: int,
    state: SearchState,
) -> SearchState:
    for _ in range(steps):
        is_live = ~is_finished(state)
        count = int(is_live.sum())
        if count == 0:
            return state
        if count == len(state):
            state = step(network, state)
        else:
            state = state.replaced(is_live, step(network, state.select(is_live)))
    return state


def is_already_wrong(state: SearchState) -> Tensor:
    """(B,) bool: attack, BTR or confident found its goal at distance 0."""
    return (state.best_rmse == 0) & ~is_explanation(state.goals)


def without_zeros(gradients: Tensor, state: SearchState) -> tuple[Tensor, Tensor]:
    """Gradients (B, C, H, W) and their lengths (B,); a seeded random direction for length zero.

    It obeys the mask, too.
    """
    lengths = lengths_of(gradients)
    if bool(lengths.all()):
        return gradients, lengths
    for index in (lengths == 0).nonzero()[:, 0].tolist():
        seed = derived_seed(int(state.seeds[index]), int(state.steps[index]))
        noise = torch.randn(gradients.shape[1:], generator=Generator().manual_seed(seed))
        if state.masks is not None:
            noise *= state.masks[index].cpu()
        position = torch.tensor(index, device=gradients.device)
        gradients = gradients.index_put((position,), unit(noise[None])[0].to(gradients))
    return gradients, lengths_of(gradients)

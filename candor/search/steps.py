"""What the steps of every solver have in common."""

import hashlib
from collections.abc import Callable
from functools import partial

import torch
from torch import Generator, Tensor, nn

from candor.runtime.threads import in_shares
from candor.search.goals import is_explanation
from candor.search.state import SearchState

Step = Callable[[nn.Module, SearchState], SearchState]


def advance_by(
    step: Step,
    is_finished: Callable[[SearchState], Tensor],
    network: nn.Module,
    state: SearchState,
    steps: int,
) -> SearchState:
    """``steps`` times ``step`` over the unfinished searches of the batch, or to their end.

    On the CPU the batch is shared out over threads, see `candor.runtime.threads`.

    Raises:
        ValueError: the network is in training mode, where a forward pass would move its statistics.
    """
    if network.training:
        raise ValueError("network: got training mode, allowed evaluation mode")
    return in_shares(partial(_advanced, step, is_finished, network, steps), network, state)


def _advanced(
    step: Step,
    is_finished: Callable[[SearchState], Tensor],
    network: nn.Module,
    steps: int,
    state: SearchState,
) -> SearchState:
    for _ in range(steps):
        is_live = ~is_finished(state)
        if not bool(is_live.any()):
            return state
        if bool(is_live.all()):
            state = step(network, state)
        else:
            state = state.replaced(is_live, step(network, state.select(is_live)))
    return state


def is_already_wrong(state: SearchState) -> Tensor:
    """(B,) bool: attack, BTR or confident found its goal at distance 0."""
    return (state.best_rmse == 0) & ~is_explanation(state.goals)


def without_zeros(gradients: Tensor, state: SearchState) -> Tensor:
    """Gradients (B, C, H, W); a seeded random direction in place of one that is exactly zero."""
    lengths = gradients.flatten(1).norm(dim=1)
    for index in (lengths == 0).nonzero()[:, 0].tolist():
        seed = _noise_seed(int(state.seeds[index]), int(state.steps[index]))
        noise = torch.randn(gradients.shape[1:], generator=Generator().manual_seed(seed))
        position = torch.tensor(index, device=gradients.device)
        gradients = gradients.index_put((position,), (noise / noise.norm()).to(gradients))
    return gradients


def _noise_seed(seed: int, step: int) -> int:
    """32 bits of both: torch's CPU generator reads no more of its seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:4], "little")

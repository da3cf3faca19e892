"""Solver `paper`: Algorithm 1 as printed, one vectorised step.  Imports siblings and torch."""

import hashlib

import torch
from torch import Generator, Tensor, nn

from candor.search.goals import ascent_sign, is_explanation, log_odds, output_condition
from candor.search.state import SearchState, rmse

LEARNING_RATE = 0.01  # III-A1
MOMENTUM = 0.9
ETA = 0.55


def advance(network: nn.Module, state: SearchState, steps: int) -> SearchState:
    """Take every unfinished search of the batch ``steps`` steps on, or to its end.

    (arXiv 1906.02896, Algorithm 1 with the goals of Eqs. 2, 3, 4 and III-H)

    One step: evaluate clip(x + delta); where the goal holds keep the smallest perturbation and
    take delta as the direction (twice, the gradient of its squared length), elsewhere eta times
    the normalised gradient of s_t; one step of SGD with momentum.

    Followed is the gradient of the log-odds of s_t, which has the direction of that of s_t and does
    not vanish where s_t saturates (`candor.search.goals.log_odds`).  An explanation keeps, of the
    pictures inside rho, the one with the best s_t.  The authors' code differs: it does not clip,
    and ramps its step lengths down linearly.

    Pure: the same state and step count give the same bits, however the steps are cut into calls.

    Args:
        network: in evaluation mode; maps (B, C, H, W) in [0, 1] to logits.  Its weights and their
            gradients are left alone.
        state: not modified.
        steps: >= 0.
    Raises:
        ValueError: the network is in training mode, where a forward pass would move its statistics.
    """
    if network.training:
        raise ValueError("network: got training mode, allowed evaluation mode")
    for _ in range(steps):
        is_live = ~is_finished(state)
        if not bool(is_live.any()):
            return state
        if bool(is_live.all()):
            state = _step(network, state)
        else:
            state = state.replaced(is_live, _step(network, state.select(is_live)))
    return state


def is_finished(state: SearchState) -> Tensor:
    """(B,) bool: all steps done, or the goal held for the picture as it came."""
    return (state.steps >= state.step_counts) | is_already_wrong(state)


def is_already_wrong(state: SearchState) -> Tensor:
    """(B,) bool: attack, BTR or confident found its goal at distance 0."""
    return (state.best_rmse == 0) & ~is_explanation(state.goals)


def _step(network: nn.Module, state: SearchState) -> SearchState:
    perturbed, logits, scores, gradients = _evaluate(network, state)
    distances = rmse(perturbed, state.images)
    is_explained = is_explanation(state.goals)
    holds = torch.where(
        is_explained,
        distances > state.rhos,  # Eq. 3
        output_condition(logits, state.goals, state.targets),
    )
    is_better = _is_better(state, is_explained, holds, distances, scores)
    best = is_better[:, None, None, None]

    # Descending on the loss: minus the gradient where the score is to rise.
    signed = gradients * -ascent_sign(state.goals)[:, None, None, None]
    directions = torch.where(
        holds[:, None, None, None],
        2.0 * state.deltas,
        ETA * _normalised(signed, state),
    )
    velocities = MOMENTUM * state.velocities + directions
    return SearchState(
        images=state.images,
        deltas=state.deltas - LEARNING_RATE * velocities,
        velocities=velocities,
        best_images=torch.where(best, perturbed, state.best_images),
        best_rmse=torch.where(is_better, distances, state.best_rmse),
        best_score=torch.where(is_better, scores, state.best_score),
        largest_rmse=torch.where(
            holds, state.largest_rmse, torch.maximum(state.largest_rmse, distances)
        ),
        goals=state.goals,
        targets=state.targets,
        rhos=state.rhos,
        steps=state.steps + 1,
        step_counts=state.step_counts,
        seeds=state.seeds,
    )


def _evaluate(network: nn.Module, state: SearchState) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Perturbed images, logits, log-odds of s_t (float64) and their gradient over delta."""
    with torch.enable_grad():
        deltas = state.deltas.detach().requires_grad_()
        # Through the clip: a pixel pushed out of the box has no more to give.
        perturbed = (state.images + deltas).clamp(0.0, 1.0)
        logits = network(perturbed)
        scores = log_odds(logits, state.targets)
        (gradients,) = torch.autograd.grad(scores.sum(), deltas)
    return perturbed.detach(), logits.detach(), scores.detach().to(torch.float64), gradients


def _is_better(
    state: SearchState, is_explained: Tensor, holds: Tensor, distances: Tensor, scores: Tensor
) -> Tensor:
    sign = ascent_sign(state.goals)
    is_first = state.best_score.isnan()
    is_stronger = is_first | (sign * scores > sign * state.best_score)
    return torch.where(is_explained, ~holds & is_stronger, holds & (distances < state.best_rmse))


def _normalised(gradients: Tensor, state: SearchState) -> Tensor:
    """Gradients at L2 length 1; a seeded random direction where a gradient is exactly zero."""
    lengths = gradients.flatten(1).norm(dim=1)
    for index in (lengths == 0).nonzero()[:, 0].tolist():
        seed = _noise_seed(int(state.seeds[index]), int(state.steps[index]))
        noise = torch.randn(gradients.shape[1:], generator=Generator().manual_seed(seed))
        gradients = gradients.index_put((torch.tensor(index),), noise.to(gradients))
        lengths = lengths.index_put((torch.tensor(index),), noise.norm().to(lengths))
    normalised: Tensor = gradients / lengths[:, None, None, None]
    return normalised


def _noise_seed(seed: int, step: int) -> int:
    """32 bits of both: torch's CPU generator reads no more of its seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{step}".encode()).digest()[:4], "little")

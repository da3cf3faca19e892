"""Solver `paper`: Algorithm 1 as printed, one vectorised step."""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from candor.search.geometry import masked, per_row, unit, where_row
from candor.search.goals import (
    ascent_sign,
    is_explanation,
    norm_code,
    output_condition,
    score_and_gradient,
)
from candor.search.network import linearised
from candor.search.norms import linear_step
from candor.search.sizes import by_norm, rhos_in
from candor.search.state import SearchState, rmse
from candor.search.steps import Executor, advance_by, as_one_batch, is_already_wrong, without_zeros
from candor.terms import Norm

LEARNING_RATE = 0.01  # III-A1
MOMENTUM = 0.9
ETA = 0.55


def advance(
    network: nn.Module,
    state: SearchState,
    steps: int,
    *,
    execute: Executor = as_one_batch,
) -> SearchState:
    """Take every unfinished search of the batch ``steps`` steps on, or to its end.

    (arXiv 1906.02896, Algorithm 1 with the goals of Eqs. 2, 3, 4 and III-H)

    One step: evaluate clip(x + delta); where the goal holds keep the smallest perturbation and
    take delta as the direction (twice, the gradient of its squared length), elsewhere eta times
    the normalised gradient of s_t; one step of SGD with momentum.

    Followed is the gradient of the log-odds of s_t, which has the direction of that of s_t and does
    not vanish where s_t saturates (`candor.search.goals.log_odds`).  An explanation keeps, of the
    images inside rho, the one with the best s_t.  The authors' code differs: it does not clip,
    and ramps its step lengths down linearly.

    Of a gradient only the part inside the mask counts, so that nothing else changes.  An
    explanation whose rho is in another norm than L2 takes, in place of the normalised gradient, the
    best step of the linearised score inside box and ball at the same RMSE-like length
    (docs/solver-fast.md), and stays inside the box.

    Pure: the same state and step count give the same bits, however the steps are cut into calls.

    Args:
        network: in evaluation mode; maps (B, C, H, W) in [0, 1] to logits.  Its weights and their
            gradients are left alone.
        state: not modified.
        steps: >= 0.
        execute: see `candor.search.steps.Executor`.
    Raises:
        ValueError: the network is in training mode, where a forward pass would move its statistics.
    """
    return advance_by(_step, is_finished, network, state, steps, execute)


def is_finished(state: SearchState) -> Tensor:
    """(B,) bool: all steps done, or the goal held for the image as it came."""
    return (state.steps >= state.step_counts) | is_already_wrong(state)


def _step(network: nn.Module, state: SearchState) -> SearchState:
    perturbed, logits, scores, gradients = _evaluate(network, state)
    distances = rmse(perturbed, state.images)
    is_explained = is_explanation(state.goals)
    holds = torch.where(
        is_explained,
        _sizes(state, perturbed, distances) > state.rhos,  # Eq. 3
        output_condition(logits, state.goals, state.targets),
    )
    is_better = _is_better(state, is_explained, holds, distances, scores)
    # Descending on the loss: minus the gradient where the score is to rise.
    signed = gradients * per_row(-ascent_sign(state.goals), gradients)
    towards_goal = _towards_goal(state, without_zeros(signed, state)[0])
    directions = where_row(holds, 2.0 * state.deltas, towards_goal)
    velocities = MOMENTUM * state.velocities + directions
    return replace(
        state,
        deltas=_in_box(state, state.deltas - LEARNING_RATE * velocities),
        velocities=velocities,
        best_images=where_row(is_better, perturbed, state.best_images),
        best_rmse=torch.where(is_better, distances, state.best_rmse),
        best_score=torch.where(is_better, scores, state.best_score),
        largest_rmse=torch.where(
            holds, state.largest_rmse, torch.maximum(state.largest_rmse, distances)
        ),
        steps=state.steps + 1,
    )


def _sizes(state: SearchState, perturbed: Tensor, distances: Tensor) -> Tensor:
    """(B,) float64 the size of each perturbation in its norm; its RMSE is known."""
    return distances if state.norms is None else rhos_in(state.norms, perturbed, state.images)


def _towards_goal(state: SearchState, signed: Tensor) -> Tensor:
    """(B, C, H, W) eta times the normalised gradient, or the step of another norm, to descend."""
    steepest = ETA * unit(signed)
    if state.norms is None:
        return steepest
    return by_norm(state.norms, steepest, partial(_towards_in, state, signed))


def _towards_in(state: SearchState, signed: Tensor, norm: Norm, rows: Tensor) -> Tensor:
    """Of size rho_p = eta / sqrt(d), which is that of the normalised gradient in L2."""
    rhos = state.rhos[rows]
    best = linear_step(norm, state.images[rows], -signed[rows], rhos)
    scales = -ETA / (rhos * signed[0].numel() ** 0.5)
    return per_row(scales.to(best.dtype), best) * best


def _in_box(state: SearchState, deltas: Tensor) -> Tensor:
    """Of norms other than L2 inside the box, beyond which the gradient through the clip is 0."""
    if state.norms is None:
        return deltas
    inside = deltas.clamp(-state.images, 1.0 - state.images)
    return where_row(state.norms == norm_code(Norm.L2), deltas, inside)


def _evaluate(network: nn.Module, state: SearchState) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Perturbed images, logits, scores (float64) and their gradient over delta in the mask."""
    moved = state.images + state.deltas
    perturbed = moved.clamp(0.0, 1.0)
    logits, pullback = linearised(network, perturbed)
    scores, by_logits = score_and_gradient(logits, state.targets, state.away_from)
    # Compiled networks answer in channels-last layout, which all that follows would copy.
    gradients = pullback(by_logits).contiguous()
    # Through the clip: a pixel pushed out of the box has no more to give.
    through = gradients * (perturbed == moved)
    return perturbed, logits, scores.to(torch.float64), masked(through, state.masks)


def _is_better(
    state: SearchState, is_explained: Tensor, holds: Tensor, distances: Tensor, scores: Tensor
) -> Tensor:
    sign = ascent_sign(state.goals)
    is_first = state.best_score.isnan()
    is_stronger = is_first | (sign * scores > sign * state.best_score)
    return torch.where(is_explained, ~holds & is_stronger, holds & (distances < state.best_rmse))

"""Solver `fast`: our own, in a tenth of the steps of Algorithm 1.

Attack, BTR and confident: `candor.search.radius`; explanations: `candor.search.ascent`.  One step
evaluates the network once for the whole batch, whatever its goals.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn

from candor.search.ascent import ascent_step, is_stronger
from candor.search.geometry import masked, where_row
from candor.search.goals import is_explanation, output_condition, score, score_and_gradient
from candor.search.network import linearised
from candor.search.radius import (
    PATIENCE,
    Tangent,
    aimed_gaps,
    departures,
    next_stalls,
    radius_step,
)
from candor.search.starts import STARTS, Leg, Start, leg_of
from candor.search.state import SearchState, rmse
from candor.search.steps import Executor, advance_by, as_one_batch, is_already_wrong, without_zeros


def advance(
    network: nn.Module,
    state: SearchState,
    steps: int,
    *,
    execute: Executor = as_one_batch,
    starts: Sequence[Start] = STARTS,
) -> SearchState:
    """Take every unfinished search of the batch ``steps`` steps on, or to its end.

    Attack, BTR and confident look for the smallest delta with F(x + delta) < 0, F being
    `candor.search.goals.gap_to_goal`: each step goes towards the point of the tangent's half-space
    that is nearest to the original image.  An attack does so from several ``starts``.  These
    searches end early when for some steps of the last start neither the best image became clearly
    better nor the tangent promised that.

    Explanations climb the log-odds of s_t along the normalised gradient; after each step delta is
    drawn back to RMSE rho inside the box, or to rho in its norm.

    Of a gradient only the part inside the mask counts, so that nothing else changes.

    docs/solver-fast.md derives both and lists the constants.

    Pure: the same state and step count give the same bits, however the steps are cut into calls.

    Args:
        network: in evaluation mode; maps (B, C, H, W) in [0, 1] to logits.
        state: not modified.
        steps: >= 0.
        execute: see `candor.search.steps.Executor`.
        starts: of attacks, one or more.
    Raises:
        ValueError: the network is in training mode, or there is no start.
    """
    return advance_by(partial(_step, starts), is_finished, network, state, steps, execute)


def is_finished(state: SearchState) -> Tensor:
    """(B,) bool: all steps done, the goal held for the image as it came, or nothing gained."""
    return (state.steps >= state.step_counts) | is_already_wrong(state) | (state.stalls >= PATIENCE)


@dataclass(frozen=True, slots=True)
class _Evaluation:
    """What one evaluation of the network says of every search.

    Attributes:
        images: (B, C, H, W) float32 in [0, 1], the perturbed images.
        logits: (B, V) float32.
        tangent: of the gap that a radius follows, or of the log-odds of an explanation.
        rivals: (B,) int64, the class that an attack aims at.
    """

    images: Tensor
    logits: Tensor
    tangent: Tangent
    rivals: Tensor


def _step(starts: Sequence[Start], network: nn.Module, state: SearchState) -> SearchState:
    is_explained = is_explanation(state.goals)
    if bool(is_explained.all()):
        return _explanation_step(network, state)
    leg = leg_of(state, starts)
    seen = _evaluate(network, state, leg)
    tangent = seen.tangent
    distances = rmse(seen.images, state.images)
    holds = output_condition(seen.logits, state.goals, state.targets)
    is_shorter = holds & (distances < state.best_rmse)
    is_better = torch.where(is_explained, is_stronger(state, tangent.gaps), is_shorter)
    moved = radius_step(state, leg, tangent)
    deltas = moved.deltas
    if bool(is_explained.any()):
        climbed = ascent_step(state, tangent.deltas, tangent.gradients, tangent.slopes)
        deltas = where_row(is_explained, climbed, deltas)
    scores = score(seen.logits, state.targets, state.away_from).double()
    farthest = torch.maximum(state.largest_rmse, distances)
    return replace(
        state,
        deltas=deltas,
        best_images=where_row(is_better, seen.images, state.best_images),
        best_rmse=torch.where(is_better, distances, state.best_rmse),
        best_score=torch.where(is_better, scores, state.best_score),
        largest_rmse=torch.where(holds, state.largest_rmse, farthest),
        stalls=next_stalls(state, leg, distances, is_better, moved.is_promising),
        rivals=torch.where(moved.is_kept, state.rivals, seen.rivals),
        steps=state.steps + 1,
    )


def _explanation_step(network: nn.Module, state: SearchState) -> SearchState:
    """`_step` of a batch of explanations alone, which have neither a boundary nor a start."""
    seen = _evaluate(network, state, None)
    tangent = seen.tangent
    distances = rmse(seen.images, state.images)
    is_better = is_stronger(state, tangent.gaps)
    return replace(
        state,
        deltas=ascent_step(state, tangent.deltas, tangent.gradients, tangent.slopes),
        best_images=where_row(is_better, seen.images, state.best_images),
        best_rmse=torch.where(is_better, distances, state.best_rmse),
        best_score=torch.where(is_better, tangent.gaps.double(), state.best_score),
        largest_rmse=torch.maximum(state.largest_rmse, distances),
        steps=state.steps + 1,
    )


@dataclass(frozen=True, slots=True)
class _Followed:
    """What every search follows, as a function of the logits.

    Attributes:
        values: (B,).     by_logits: (B, V), their gradient.
        rivals: (B,) int64, the class that an attack aims at.
    """

    values: Tensor
    by_logits: Tensor
    rivals: Tensor


def _followed(state: SearchState, leg: Leg | None, logits: Tensor) -> _Followed:
    if leg is None:
        return _Followed(
            *score_and_gradient(logits, state.targets, state.away_from), rivals=state.rivals
        )
    with torch.enable_grad():
        outputs = logits.detach().requires_grad_()
        values, rivals = aimed_gaps(state, leg, outputs)
        follows_odds = is_explanation(state.goals) | leg.is_descending
        if bool(follows_odds.any()):
            odds = score(outputs, state.targets, state.away_from)
            values = torch.where(follows_odds, odds, values)
        (by_logits,) = torch.autograd.grad(values.sum(), outputs)
    return _Followed(values.detach(), by_logits, rivals)


def _evaluate(network: nn.Module, state: SearchState, leg: Leg | None) -> _Evaluation:
    """``leg``: None where the batch holds explanations alone, whose step has no use for it."""
    deltas = state.deltas if leg is None else departures(state, leg)
    images = (state.images + deltas).clamp(0.0, 1.0)
    logits, pullback = linearised(network, images)
    followed = _followed(state, leg, logits)
    # Compiled networks answer in channels-last layout, which all that follows would copy.
    inside = masked(pullback(followed.by_logits).contiguous(), state.masks)
    gradients, slopes = without_zeros(inside, state)
    tangent = Tangent(images - state.images, followed.values, gradients, slopes)
    return _Evaluation(images, logits, tangent, followed.rivals)

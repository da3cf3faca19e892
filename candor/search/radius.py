"""The radius search of solver `fast`: from tangent to tangent to the nearest point of a goal.

docs/solver-fast.md derives the step and says where every constant comes from.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from candor.search.geometry import (
    boundary_jump,
    dot,
    lengths_of,
    nearest_in_half_space,
    per_row,
    resolve,
    where_row,
)
from candor.search.goals import gap_to_goal, without
from candor.search.starts import Leg
from candor.search.state import SearchState

PATIENCE = 3  # steps that neither bring a clearly better image nor promise one
_TURN, _LEAST_TURN = 1.0, 0.05  # share of the way along the boundary, at first and at last
_BEND = 10.0  # how much less of it where the boundary proved bent
_LONGEST_CORRECTION = 0.5  # across the boundary, of the distance
_OVERSHOOT, _OVERSHOOT_DECAY, _LEAST_OVERSHOOT = 0.03, 0.6, 0.001  # of the distance
_LEAST_CROSSING = 0.005  # the least overshoot where the goal does not hold
_CLEARLY_BETTER, _PROMISING = 0.999, 0.99  # of the best RMSE so far: an image, a tangent


@dataclass(frozen=True, slots=True)
class Tangent:
    """The gap F to what each search follows, linearised at its perturbation.

    Attributes:
        deltas: (B, C, H, W) float32, the perturbations, inside the box.
        gaps: (B,) float32, F there; negative where the goal holds.
        gradients: (B, C, H, W) float32, g = dF/dx, none of them zero.
        slopes: (B,) float32, |g|.
    """

    deltas: Tensor
    gaps: Tensor
    gradients: Tensor
    slopes: Tensor


@dataclass(frozen=True, slots=True)
class RadiusStep:
    """One step of a batch of radii.

    Attributes:
        deltas: (B, C, H, W) float32, the next perturbations.
        is_kept: (B,) bool, a scouting search keeps the jump and the class that it has.
        is_promising: (B,) bool, the tangent promises a clearly better image.
    """

    deltas: Tensor
    is_kept: Tensor
    is_promising: Tensor


def departures(state: SearchState, leg: Leg) -> Tensor:
    """(B, C, H, W) the perturbations to evaluate: where each search is, or where it sets off."""
    is_home = leg.is_scouting | leg.is_restart
    deltas = where_row(is_home, torch.zeros_like(state.deltas), state.deltas)
    return where_row(leg.is_resumed, state.best_images - state.images, deltas)


def aimed_gaps(state: SearchState, leg: Leg, logits: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) gap to what each search follows, differentiable, and (B,) int64 its class.

    Args:
        logits: (B, V) float32, of `departures`.
    """
    chosen = _class_of_rank(logits, state.targets, leg.rank)
    next_one = _class_of_rank(logits, state.targets, leg.rank + 1)
    chosen = torch.where(chosen == state.rivals, next_one, chosen)
    rivals = torch.where(leg.is_choosing, chosen, state.rivals)
    own = logits.gather(1, state.targets[:, None])[:, 0]
    to_rival = own - logits.gather(1, rivals.clamp_min(0)[:, None])[:, 0]
    to_goal = gap_to_goal(logits, state.goals, state.targets)
    return torch.where(leg.is_aimed | leg.is_scouting, to_rival, to_goal), rivals


def radius_step(state: SearchState, leg: Leg, tangent: Tangent) -> RadiusStep:
    """The next perturbation of every search; see docs/solver-fast.md."""
    nearest = _nearest(state, leg, tangent)
    lengths = lengths_of(nearest)
    is_longer = lengths >= lengths_of(state.deltas)
    is_kept = leg.is_scouting & (state.steps > 0) & is_longer
    moved = nearest
    if not bool(leg.is_jump.all()):
        moved = where_row(leg.is_jump, nearest, _turned(state, leg, tangent, nearest))
    if bool(leg.is_descending.any()):
        moved = where_row(leg.is_descending, _descended(state, leg, tangent), moved)
    return RadiusStep(
        deltas=where_row(is_kept, state.deltas, moved),
        is_kept=is_kept,
        is_promising=lengths < _PROMISING * _best_lengths(state),
    )


def next_stalls(
    state: SearchState, leg: Leg, distances: Tensor, is_better: Tensor, is_promising: Tensor
) -> Tensor:
    """(B,) int64 steps in a row, in the last start, that gained nothing and promised nothing.

    Args:
        distances: (B,) float64 RMSE of the images just evaluated.
        is_better: (B,) bool, they are the best so far.
        is_promising: (B,) bool, of `RadiusStep`.
    """
    is_clear = distances < _CLEARLY_BETTER * state.best_rmse
    is_gaining = (is_better & is_clear) | is_promising
    is_stalled = leg.is_last & state.best_rmse.isfinite() & ~is_gaining
    return torch.where(is_stalled, state.stalls + 1, 0)


def _class_of_rank(logits: Tensor, targets: Tensor, ranks: Tensor) -> Tensor:
    """(B,) int64 the class other than the target at ``ranks`` (B,), 0 the likeliest."""
    order = without(logits, targets).argsort(dim=1, descending=True)
    return order.gather(1, ranks.clamp_max(logits.shape[1] - 2)[:, None])[:, 0]


def _nearest(state: SearchState, leg: Leg, tangent: Tangent) -> Tensor:
    """(B, C, H, W) p: the point of the tangent nearest to the image, a little beyond it."""
    falling = (_OVERSHOOT * _OVERSHOOT_DECAY**leg.position).clamp_min(_LEAST_OVERSHOOT)
    falling = torch.where(tangent.gaps > 0, falling.clamp_min(_LEAST_CROSSING), falling)
    # Where the goal has not held yet the tangent promised too much: farther with every step.
    rising = _OVERSHOOT * (1.0 + leg.position)
    overshoot = torch.where(state.best_rmse.isfinite(), falling, rising).to(tangent.gaps.dtype)
    reach = (1.0 + overshoot) * (dot(tangent.gradients, tangent.deltas) - tangent.gaps)
    return nearest_in_half_space(state.images, tangent.gradients, reach.clamp_max(0.0))


def _turned(state: SearchState, leg: Leg, tangent: Tangent, nearest: Tensor) -> Tensor:
    """(B, C, H, W) all the way across to the boundary, a share of the way along it."""
    deltas, distances = tangent.deltas, lengths_of(tangent.deltas)
    normals = tangent.gradients / per_row(tangent.slopes, tangent.gradients)
    across, along = resolve(nearest - deltas, normals)
    limits = _LONGEST_CORRECTION * torch.minimum(distances, _best_lengths(state))
    across = across.clamp(-limits, limits)
    falling = 0.5 * (1.0 + torch.cos(torch.pi * leg.done))
    turn = (_LEAST_TURN + (_TURN - _LEAST_TURN) * falling).to(deltas.dtype)
    missed = tangent.gaps.abs() / tangent.slopes / distances.clamp_min(1e-12)
    turn = turn / (1.0 + _BEND * missed)
    return deltas + per_row(across, deltas) * normals + per_row(turn, deltas) * along


def _descended(state: SearchState, leg: Leg, tangent: Tangent) -> Tensor:
    """(B, C, H, W) a share of the boundary jump; the last of the aimed steps jumps all of it."""
    shares = (1.0 / leg.aimed_left.clamp_min(1)).to(tangent.gaps.dtype)
    jump = boundary_jump(shares * tangent.gaps, tangent.gradients, tangent.slopes)
    return (tangent.deltas + jump).clamp(-state.images, 1.0 - state.images)


def _best_lengths(state: SearchState) -> Tensor:
    """(B,) float32 L2 length of the best perturbation, inf before there is one."""
    lengths: Tensor = state.best_rmse * state.images[0].numel() ** 0.5
    return lengths.to(state.images.dtype)

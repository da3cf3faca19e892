"""Solver `fast`: our own, in a tenth of the steps of Algorithm 1.  Imports siblings and torch."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from candor.contracts.worker import Goal
from candor.search.goals import (
    ascent_sign,
    gap_to_goal,
    goal_code,
    is_explanation,
    log_odds,
    output_condition,
)
from candor.search.state import SearchState, rmse
from candor.search.steps import advance_by, is_already_wrong, without_zeros

_RIVALS = 5  # classes an attack looks at before it sets off
_TURN, _LEAST_TURN = 1.0, 0.05  # share of the way along the boundary, at first and at last
_LONGEST_CORRECTION = 0.5  # across the boundary, of the distance
_OVERSHOOT, _OVERSHOOT_DECAY, _LEAST_OVERSHOOT = 0.03, 0.75, 0.001  # of the distance
_CLEARLY_BETTER = 0.999  # of the best RMSE so far
_PATIENCE = 8  # steps without a clearly better picture
_CLIMB = 2.5  # first step length of an explanation, in rho
_NEWTON_STEPS = 6


def advance(network: nn.Module, state: SearchState, steps: int) -> SearchState:
    """Take every unfinished search of the batch ``steps`` steps on, or to its end.

    Attack, BTR and confident look for the smallest delta with F(x + delta) < 0, F being
    `candor.search.goals.gap_to_goal`.  Each step replaces F by its tangent at delta, g = dF/dx, and
    asks for the point of that half-space, inside the box, that is nearest to the original image
    (not to delta, as DeepFool does, arXiv 1511.04599):

        p = argmin |p|  subject to  F + g . (p - delta) <= 0,  0 <= x + p <= 1

    A fixed point p = delta lies on the boundary where the normal points back at the image, which is
    the first-order condition of the nearest one.  With m = p - delta and n = g / |g| the step is

        delta <- delta + (m . n) n + a_k (m - (m . n) n)

    the whole way across to the boundary, but only a share a_k of the way along it, which falls as a
    cosine: a curved boundary turns away from its tangent.  The first step is p itself, the boundary
    jump |F| / |g| of FMN (arXiv 2102.12827).  An attack spends its first steps at the original
    image, one for each of the likeliest other classes, and takes the shortest of their jumps: the
    likeliest class is often not the nearest (DeepFool compares them all).  Half way it starts anew
    in the direction of `paper`, down the log-odds of s_t, which now and then leads to a nearer part
    of the boundary.  p overshoots by a share of the distance that falls with the steps, so that the
    goal holds on the way and the last picture is close to the boundary.  A search ends early when
    its best picture has not become clearly better for some steps since it last set off.

    Explanations climb the log-odds of s_t along the normalised gradient; after each step delta is
    drawn back to RMSE rho inside the box.  The step length falls linearly from a multiple of rho:
    the first steps keep little of the old delta and much of the new gradient (the power method on
    the sphere, delta <- rho g / |g|, is the limit), the last ones settle.

    Pure: the same state and step count give the same bits, however the steps are cut into calls.

    Args:
        network: in evaluation mode; maps (B, C, H, W) in [0, 1] to logits.
        state: not modified.
        steps: >= 0.
    Raises:
        ValueError: the network is in training mode.
    """
    return advance_by(_step, is_finished, network, state, steps)


def is_finished(state: SearchState) -> Tensor:
    """(B,) bool: all steps done, the goal held for the picture as it came, or nothing gained."""
    return (
        (state.steps >= state.step_counts) | is_already_wrong(state) | (state.stalls >= _PATIENCE)
    )


def _step(network: nn.Module, state: SearchState) -> SearchState:
    phase = _phase(state)
    perturbed, logits, values, gradients = _evaluate(network, state, phase)
    distances = rmse(perturbed, state.images)
    is_explained = is_explanation(state.goals)
    signed = ascent_sign(state.goals) * values
    holds = output_condition(logits, state.goals, state.targets)
    is_better = torch.where(
        is_explained,
        state.best_score.isnan() | (signed > ascent_sign(state.goals) * state.best_score),
        holds & (distances < state.best_rmse),
    )
    is_clear = distances < _CLEARLY_BETTER * state.best_rmse
    is_stalled = phase.is_last & state.best_rmse.isfinite() & ~(is_better & is_clear)
    best = is_better[:, None, None, None]
    deltas = perturbed - state.images
    return replace(
        state,
        deltas=torch.where(
            is_explained[:, None, None, None],
            _climbed(state, deltas, gradients),
            _nearer(state, phase, deltas, values, gradients),
        ),
        best_images=torch.where(best, perturbed, state.best_images),
        best_rmse=torch.where(is_better, distances, state.best_rmse),
        best_score=torch.where(
            is_better, log_odds(logits, state.targets).double(), state.best_score
        ),
        largest_rmse=torch.where(
            holds, state.largest_rmse, torch.maximum(state.largest_rmse, distances)
        ),
        stalls=torch.where(is_stalled, state.stalls + 1, 0),
        steps=state.steps + 1,
    )


@dataclass(frozen=True, slots=True)
class _Phase:
    """Where each search of a batch stands; every field (B,).

    Attributes:
        is_scouting: bool, an attack at the original image; its deltas hold the shortest jump yet.
        is_restart: bool, an attack that is back at the original image to start anew.
        is_jump: bool, the step goes to the nearest point itself.
        is_last: bool, the last time that it sets off; never for explanations.
        done: float64 share of the steps since it last set off, [0, 1).
    """

    is_scouting: Tensor
    is_restart: Tensor
    is_jump: Tensor
    is_last: Tensor
    done: Tensor


def _phase(state: SearchState) -> _Phase:
    is_attack = state.goals == goal_code(Goal.ATTACK)
    rivals = torch.where(is_attack, (state.step_counts // 8).clamp_max(_RIVALS), 0)
    half = torch.where(is_attack, (state.step_counts + rivals + 1) // 2, 0)
    is_second = state.steps >= half
    start = torch.where(is_second, half, rivals)
    end = torch.where(is_second, state.step_counts, half)
    is_scouting = state.steps < rivals
    is_restart = is_attack & (state.steps == half)
    return _Phase(
        is_scouting=is_scouting,
        is_restart=is_restart,
        is_jump=is_scouting | is_restart | (state.steps == 0),
        is_last=is_second & ~is_explanation(state.goals),
        done=(state.steps - start).clamp_min(0) / (end - start),
    )


def _evaluate(
    network: nn.Module, state: SearchState, phase: _Phase
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Perturbed images, logits, what each search follows, and its gradient over the image."""
    is_home = (phase.is_scouting | phase.is_restart)[:, None, None, None]
    with torch.enable_grad():
        deltas = torch.where(is_home, 0.0, state.deltas)
        perturbed = (state.images + deltas).clamp(0.0, 1.0).requires_grad_()
        logits = network(perturbed)
        odds = log_odds(logits, state.targets)
        gaps = gap_to_goal(logits, state.goals, state.targets)
        rival_gaps = _gap_to_rival(logits, state.targets, state.steps)
        values = torch.where(phase.is_scouting, rival_gaps, gaps)
        # The value of the gap with the gradient of the log-odds.
        values = torch.where(phase.is_restart, odds + (gaps - odds).detach(), values)
        values = torch.where(is_explanation(state.goals), odds, values)
        (gradients,) = torch.autograd.grad(values.sum(), perturbed)
    return perturbed.detach(), logits.detach(), values.detach(), without_zeros(gradients, state)


def _gap_to_rival(logits: Tensor, targets: Tensor, ranks: Tensor) -> Tensor:
    """(B,) y_t less the logit of the other class at ``ranks`` (B,), 0 the likeliest."""
    is_target = functional.one_hot(targets, logits.shape[1]).bool()
    ordered = logits.masked_fill(is_target, float("-inf")).sort(dim=1, descending=True).values
    ranks = ranks.clamp_max(logits.shape[1] - 2)
    own: Tensor = logits.gather(1, targets[:, None])[:, 0]
    return own - ordered.gather(1, ranks[:, None])[:, 0]


def _nearer(
    state: SearchState, phase: _Phase, deltas: Tensor, gaps: Tensor, gradients: Tensor
) -> Tensor:
    overshoot = (_OVERSHOOT * _OVERSHOOT_DECAY**state.steps).clamp_min(_LEAST_OVERSHOOT)
    reach = (1.0 + overshoot.to(gaps.dtype)) * (_dot(gradients, deltas) - gaps)
    nearest = nearest_in_half_space(state.images, gradients, reach.clamp_max(0.0))
    is_longer = (
        phase.is_scouting & (state.steps > 0) & (_lengths(nearest) >= _lengths(state.deltas))
    )
    jumps = torch.where(is_longer[:, None, None, None], state.deltas, nearest)
    turned = _turned(state, phase, deltas, nearest - deltas, gradients)
    return torch.where(phase.is_jump[:, None, None, None], jumps, turned)


def _turned(
    state: SearchState, phase: _Phase, deltas: Tensor, move: Tensor, gradients: Tensor
) -> Tensor:
    normals = gradients / _lengths(gradients)[:, None, None, None]
    across = _dot(move, normals)
    along = move - across[:, None, None, None] * normals
    limits = _LONGEST_CORRECTION * torch.minimum(_lengths(deltas), _best_lengths(state))
    across = across.clamp(-limits, limits)
    falling = 0.5 * (1.0 + torch.cos(torch.pi * phase.done))
    turn = (_LEAST_TURN + (_TURN - _LEAST_TURN) * falling).to(move.dtype)
    return deltas + across[:, None, None, None] * normals + turn[:, None, None, None] * along


def _best_lengths(state: SearchState) -> Tensor:
    """(B,) float32 L2 length of the best perturbation, inf before there is one."""
    return (state.best_rmse * state.images[0].numel() ** 0.5).to(state.images.dtype)


def nearest_in_half_space(images: Tensor, gradients: Tensor, reach: Tensor) -> Tensor:
    """(B, C, H, W) smallest p with gradients . p <= reach and images + p in the box.

    p = clip(m g) with the multiplier m <= 0 that solves g . clip(m g) = reach, found by Newton's
    method: the left side is piecewise linear and convex in m, so that it approaches from one side.
    Where the half-space misses the box, p is the corner of the box nearest to it.

    Args:
        images, gradients: (B, C, H, W) float32.     reach: (B,) float32 <= 0.
    """
    multipliers = torch.zeros_like(reach)
    low, high = -images, 1.0 - images
    steps = torch.zeros_like(gradients)
    for _ in range(_NEWTON_STEPS):
        is_free = (steps >= low) & (steps <= high)
        slopes = _dot(gradients * is_free, gradients).clamp_min(1e-30)
        reached = _dot(gradients, steps.clamp(low, high))
        multipliers = (multipliers + (reach - reached) / slopes).clamp(-1e9, 0.0)
        steps = multipliers[:, None, None, None] * gradients
    return steps.clamp(low, high)


def _climbed(state: SearchState, deltas: Tensor, gradients: Tensor) -> Tensor:
    radii = (state.rhos * deltas[0].numel() ** 0.5).to(deltas.dtype)
    lengths = radii * _share_of_rho(state).to(deltas.dtype)
    lengths = lengths * ascent_sign(state.goals) / _lengths(gradients)
    return drawn_to_sphere(state.images, deltas + lengths[:, None, None, None] * gradients, radii)


def _share_of_rho(state: SearchState) -> Tensor:
    """(B,) step length as a multiple of rho."""
    return _CLIMB * (1.0 - state.steps / state.step_counts)


def drawn_to_sphere(images: Tensor, deltas: Tensor, radii: Tensor) -> Tensor:
    """Scale each perturbation so that its L2 length after clipping to the box is its radius.

    The scale solves  s^2 sum_free delta^2 + sum_clipped delta^2 = radius^2  for the pixels clipped
    at the scale before; it rises to the solution and never passes it.

    Args:
        images, deltas: (B, C, H, W) float32.    radii: (B,) float32.
    """
    low, high = -images, 1.0 - images
    squares = deltas.square()
    scaled = deltas
    # Just inside, so that rounding never takes it past rho.
    wanted = (radii * (1.0 - 1e-6)).square()
    held = torch.zeros_like(radii)
    free = squares.flatten(1).sum(dim=1)
    for _ in range(_NEWTON_STEPS):
        scales = ((wanted - held).clamp_min(0.0) / free.clamp_min(1e-30)).sqrt().clamp_max(1e9)
        scaled = scales[:, None, None, None] * deltas
        clipped = scaled.clamp(low, high)
        is_free = clipped == scaled
        free = (squares * is_free).flatten(1).sum(dim=1)
        held = (clipped.square() * ~is_free).flatten(1).sum(dim=1)
    return scaled.clamp(low, high)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).flatten(1).sum(dim=1)


def _lengths(vectors: Tensor) -> Tensor:
    return vectors.flatten(1).norm(dim=1)

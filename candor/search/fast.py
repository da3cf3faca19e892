"""Solver `fast`: our own, in a tenth of the steps of Algorithm 1."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

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
from candor.terms import Goal

_SCOUTED = 4  # classes an attack looks at before it sets off
_ANEW, _CREEPING, _SIDEWAYS, _LAST = range(1, 5)  # parts of an attack after the first start
_LAST_LENGTHS = 2  # of a start, that the last part has at least
_AIMED_STEPS = 4  # of a start, towards its own class; then towards the nearest
_CREEPING_STEPS = 4  # to the boundary
_TURN, _LEAST_TURN = 1.0, 0.05  # share of the way along the boundary, at first and at last
_BEND = 10.0  # how much less of it where the boundary proved bent
_LONGEST_CORRECTION = 0.5  # across the boundary, of the distance
_OVERSHOOT, _OVERSHOOT_DECAY, _LEAST_OVERSHOOT = 0.03, 0.6, 0.001  # of the distance
_LEAST_CROSSING = 0.005  # the least overshoot where the goal does not hold
_CLEARLY_BETTER, _PROMISING = 0.999, 0.99  # of the best RMSE so far: an image, a tangent
_PATIENCE = 3  # steps that neither bring a clearly better image nor promise one
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

    the whole way across to the boundary, but only a share a_k of the way along it, because a curved
    boundary turns away from its tangent.  a_k falls as a cosine, and is smaller the farther the
    last step ended from the boundary that it was sent to: |F| / |g| against |delta|.  The first
    step is p itself, the boundary jump |F| / |g| of FMN (arXiv 2102.12827).  p overshoots by a
    share of the distance that falls with the steps, so that the goal holds on the way and the last
    image is close to the boundary.

    Where a boundary is bent the nearest part of it is seldom where the first tangent points.  An
    attack therefore sets off five times:

        1  its first steps stay at the original image, one for each of the likeliest other classes;
           it takes the shortest of their jumps: the likeliest class is often not the nearest
           (DeepFool compares them all)
        2  anew, towards the likeliest class that the first start did not make for
        3  anew, down the log-odds of the label in a few short steps, as Algorithm 1 sets off: they
           follow a curved way, and reach classes that were unlikely at the original image
        4  from the best image so far, towards the second likeliest wrong class there
        5  from the best image of all, for longer than before

    Attack, BTR and confident end early when for some steps neither the best image became clearly
    better nor the tangent promised that.

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
    """(B,) bool: all steps done, the goal held for the image as it came, or nothing gained."""
    return (
        (state.steps >= state.step_counts) | is_already_wrong(state) | (state.stalls >= _PATIENCE)
    )


def _step(network: nn.Module, state: SearchState) -> SearchState:
    phase = _phase(state)
    perturbed, logits, values, gradients, rivals = _evaluate(network, state, phase)
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
    deltas = perturbed - state.images
    moved, is_kept, is_promising = deltas, torch.zeros_like(is_better), is_better
    if not bool(is_explained.all()):
        moved, is_kept, is_promising = _approached(state, phase, deltas, values, gradients)
    is_gaining = (is_better & is_clear) | is_promising
    is_stalled = phase.is_last & state.best_rmse.isfinite() & ~is_gaining
    if bool(is_explained.any()):
        moved = _where(is_explained, _climbed(state, deltas, gradients), moved)
    return replace(
        state,
        deltas=moved,
        best_images=_where(is_better, perturbed, state.best_images),
        best_rmse=torch.where(is_better, distances, state.best_rmse),
        best_score=torch.where(
            is_better, log_odds(logits, state.targets).double(), state.best_score
        ),
        largest_rmse=torch.where(
            holds, state.largest_rmse, torch.maximum(state.largest_rmse, distances)
        ),
        stalls=torch.where(is_stalled, state.stalls + 1, 0),
        rivals=torch.where(is_kept, state.rivals, rivals),
        steps=state.steps + 1,
    )


@dataclass(frozen=True, slots=True)
class _Phase:
    """Where each search of a batch stands; every field (B,).

    Attributes:
        is_scouting: bool, an attack at the original image; its deltas hold the shortest jump yet.
        is_restart: bool, an attack that is back at the original image to start anew.
        is_resumed: bool, an attack that is back at its best image.
        is_choosing: bool, an attack that looks for the class to make for.
        is_aimed: bool, an attack that makes for one class.
        is_creeping: bool, an attack that goes down the log-odds of its label.
        is_jump: bool, the step goes to the nearest point itself.
        is_last: bool, the last time that it sets off; never for explanations.
        rank: int64, of the class to look at among those other than the label, 0 the likeliest.
        position: int64 steps since it last set off.
        done: float64 the same as a share of the steps until it sets off again, [0, 1).
    """

    is_scouting: Tensor
    is_restart: Tensor
    is_resumed: Tensor
    is_choosing: Tensor
    is_aimed: Tensor
    is_creeping: Tensor
    is_jump: Tensor
    is_last: Tensor
    rank: Tensor
    position: Tensor
    done: Tensor


def _phase(state: SearchState) -> _Phase:
    is_attack = state.goals == goal_code(Goal.ATTACK)
    scouted = torch.where(is_attack, (state.step_counts // 8).clamp_max(_SCOUTED), 0)
    last = torch.where(is_attack, _LAST, 0)
    parts = torch.where(is_attack, _LAST + _LAST_LENGTHS, 1)
    length = ((state.step_counts - scouted) // parts).clamp_min(1)
    since = state.steps - scouted
    part = torch.minimum(since.clamp_min(0) // length, last)
    position = (since - part * length).clamp_min(0)
    left = state.step_counts - scouted - part * length
    is_scouting = since < 0
    is_last = (part == last) & ~is_scouting
    is_off = is_attack & (position == 0) & ~is_scouting
    is_sideways = part == _SIDEWAYS
    is_unscouted = is_off & (state.steps == 0)
    is_restart = (is_off & ((part == _ANEW) | (part == _CREEPING))) | is_unscouted
    is_creeping = is_attack & (part == _CREEPING) & (position < _CREEPING_STEPS)
    return _Phase(
        is_scouting=is_scouting,
        is_restart=is_restart,
        is_resumed=is_off & (is_sideways | is_last) & state.best_rmse.isfinite(),
        is_choosing=is_scouting | is_unscouted | (is_off & ((part == _ANEW) | is_sideways)),
        is_aimed=is_attack & (position < _AIMED_STEPS) & ~is_last & ~is_creeping,
        is_creeping=is_creeping,
        is_jump=is_scouting | is_restart | (state.steps == 0),
        is_last=is_last & ~is_explanation(state.goals),
        rank=torch.where(is_scouting, state.steps, is_sideways.long()),
        position=position,
        done=position / torch.where(is_last, left, length).clamp_min(1),
    )


def _evaluate(
    network: nn.Module, state: SearchState, phase: _Phase
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Perturbed images, logits, what each search follows, its gradient, and the class aimed at."""
    is_home = phase.is_scouting | phase.is_restart
    start = _where(is_home, torch.zeros_like(state.deltas), state.deltas)
    start = _where(phase.is_resumed, state.best_images - state.images, start)
    with torch.enable_grad():
        perturbed = (state.images + start).clamp(0.0, 1.0).requires_grad_()
        logits = network(perturbed)
        values, rivals = log_odds(logits, state.targets), state.rivals
        follows_odds = is_explanation(state.goals)
        if not bool(follows_odds.all()):  # many small operations, which a lone image feels
            gaps, rivals = _aimed(state, phase, logits)
            values = torch.where(follows_odds | phase.is_creeping, values, gaps)
        (gradients,) = torch.autograd.grad(values.sum(), perturbed)
    gradients = without_zeros(gradients, state)
    return perturbed.detach(), logits.detach(), values.detach(), gradients, rivals


def _aimed(state: SearchState, phase: _Phase, logits: Tensor) -> tuple[Tensor, Tensor]:
    """(B,) gaps to whatever each radius makes for, and (B,) int64 the class it makes for."""
    chosen = _ranked(logits, state.targets, phase.rank)
    other = _ranked(logits, state.targets, phase.rank + 1)
    chosen = torch.where(chosen == state.rivals, other, chosen)
    rivals = torch.where(phase.is_choosing, chosen, state.rivals)
    own = logits.gather(1, state.targets[:, None])[:, 0]
    aimed = own - logits.gather(1, rivals.clamp_min(0)[:, None])[:, 0]
    gaps = gap_to_goal(logits, state.goals, state.targets)
    return torch.where(phase.is_aimed | phase.is_scouting, aimed, gaps), rivals


def _ranked(logits: Tensor, targets: Tensor, ranks: Tensor) -> Tensor:
    """(B,) int64 the class other than the target at ``ranks`` (B,), 0 the likeliest."""
    is_target = functional.one_hot(targets, logits.shape[1]).bool()
    order = logits.masked_fill(is_target, float("-inf")).argsort(dim=1, descending=True)
    return order.gather(1, ranks.clamp_max(logits.shape[1] - 2)[:, None])[:, 0]


def _approached(
    state: SearchState, phase: _Phase, deltas: Tensor, gaps: Tensor, gradients: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The next (B, C, H, W) delta of a radius.

    And (B,) bool, where a scout keeps the one it has and where the tangent promises a clearly
    better image.
    """
    nearest = _nearest(state, phase, deltas, gaps, gradients)
    turned = _turned(state, phase, deltas, nearest - deltas, gaps, gradients)
    is_kept = phase.is_scouting & (state.steps > 0) & (_lengths(nearest) >= _lengths(state.deltas))
    moved = _where(phase.is_jump, nearest, turned)
    moved = _where(phase.is_creeping, _crept(state, phase, deltas, gaps, gradients), moved)
    is_promising = _lengths(nearest) < _PROMISING * _best_lengths(state)
    return _where(is_kept, state.deltas, moved), is_kept, is_promising


def _crept(
    state: SearchState, phase: _Phase, deltas: Tensor, gaps: Tensor, gradients: Tensor
) -> Tensor:
    """One of some short steps down the gradient; the last goes all the way the tangent says."""
    share = 1.0 / (_CREEPING_STEPS - phase.position).clamp_min(1)
    multipliers = share.to(gaps.dtype) * gaps / _lengths(gradients).square()
    moved = deltas - multipliers[:, None, None, None] * gradients
    return moved.clamp(-state.images, 1.0 - state.images)


def _nearest(
    state: SearchState, phase: _Phase, deltas: Tensor, gaps: Tensor, gradients: Tensor
) -> Tensor:
    """(B, C, H, W) p: the nearest point of the linearised boundary, a little beyond it."""
    falling = (_OVERSHOOT * _OVERSHOOT_DECAY**phase.position).clamp_min(_LEAST_OVERSHOOT)
    falling = torch.where(gaps > 0, falling.clamp_min(_LEAST_CROSSING), falling)
    # Where the goal has not held yet the tangent promised too much: farther with every step.
    rising = _OVERSHOOT * (1.0 + phase.position)
    overshoot = torch.where(state.best_rmse.isfinite(), falling, rising)
    reach = (1.0 + overshoot.to(gaps.dtype)) * (_dot(gradients, deltas) - gaps)
    return nearest_in_half_space(state.images, gradients, reach.clamp_max(0.0))


def _turned(
    state: SearchState,
    phase: _Phase,
    deltas: Tensor,
    move: Tensor,
    gaps: Tensor,
    gradients: Tensor,
) -> Tensor:
    normals = gradients / _lengths(gradients)[:, None, None, None]
    across = _dot(move, normals)
    along = move - across[:, None, None, None] * normals
    limits = _LONGEST_CORRECTION * torch.minimum(_lengths(deltas), _best_lengths(state))
    across = across.clamp(-limits, limits)
    falling = 0.5 * (1.0 + torch.cos(torch.pi * phase.done))
    turn = (_LEAST_TURN + (_TURN - _LEAST_TURN) * falling).to(move.dtype)
    missed = gaps.abs() / _lengths(gradients) / _lengths(deltas).clamp_min(1e-12)
    turn = turn / (1.0 + _BEND * missed)
    return deltas + across[:, None, None, None] * normals + turn[:, None, None, None] * along


def _best_lengths(state: SearchState) -> Tensor:
    """(B,) float32 L2 length of the best perturbation, inf before there is one."""
    lengths: Tensor = state.best_rmse * state.images[0].numel() ** 0.5
    return lengths.to(state.images.dtype)


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


def _where(chosen: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Of two batches (B, C, H, W), each element from the left one where ``chosen`` (B,)."""
    return torch.where(chosen[:, None, None, None], left, right)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).flatten(1).sum(dim=1)


def _lengths(vectors: Tensor) -> Tensor:
    lengths: Tensor = vectors.flatten(1).norm(dim=1)
    return lengths

"""The explanations of solver `fast`: ascent of the log-odds on the sphere of size rho.

docs/solver-fast.md derives the step.
"""

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from candor.search.geometry import drawn_to_sphere, per_row
from candor.search.goals import ascent_sign
from candor.search.norms import drawn, linear_step
from candor.search.sizes import EXPONENTS, by_norm
from candor.search.state import SearchState
from candor.terms import Norm

_CLIMB = 2.5  # first step length, in rho
_CROWDED = 0.5  # size inside a region


def ascent_step(state: SearchState, deltas: Tensor, gradients: Tensor, slopes: Tensor) -> Tensor:
    """(B, C, H, W) the next perturbation of every explanation, at rho in its norm inside the box.

    Args:
        deltas: (B, C, H, W) float32, the perturbations just evaluated, inside the box.
        gradients: (B, C, H, W) float32, of the log-odds of s_t there, none of them zero.
        slopes: (B,) float32, the L2 lengths of ``gradients``.
    """
    if state.masks is not None:
        state = replace(state, rhos=_reached(state, state.masks))
    radii = (state.rhos * deltas[0].numel() ** 0.5).to(deltas.dtype)
    steps = radii * _step_lengths(state).to(deltas.dtype) * ascent_sign(state.goals) / slopes
    climbed = drawn_to_sphere(state.images, deltas + per_row(steps, deltas) * gradients, radii)
    if state.norms is None:
        return climbed
    return by_norm(state.norms, climbed, partial(_step_in, state, deltas, gradients))


def _reached(state: SearchState, masks: Tensor) -> Tensor:
    """(B,) the size of the perturbations: rho, but inside a mask at most `_CROWDED`.

    Beyond it most pixels of the region end at black or white, far from where the gradient was
    taken, and a smaller change is the stronger one (docs/solver-fast.md, section 3).  Linf keeps
    rho, which limits each pixel on its own.
    """
    shares = (masks > 0).flatten(1).double().mean(dim=1)
    reached = _uncrowded(state.rhos, shares, Norm.L2)
    if state.norms is None:
        return reached
    return by_norm(
        state.norms, reached, lambda norm, rows: _uncrowded(state.rhos[rows], shares[rows], norm)
    )


def _uncrowded(rhos: Tensor, shares: Tensor, norm: Norm) -> Tensor:
    """(B,) the same in one norm, of regions of ``shares`` of the image."""
    if norm not in EXPONENTS:
        return rhos
    return torch.minimum(rhos, _CROWDED * shares.pow(1.0 / EXPONENTS[norm]))


def _step_in(
    state: SearchState, deltas: Tensor, gradients: Tensor, norm: Norm, rows: Tensor
) -> Tensor:
    """The same of the searches at ``rows``, which have another norm than L2."""
    chosen = state.select(rows)
    signed = gradients[rows] * per_row(ascent_sign(chosen.goals), gradients)
    best = linear_step(norm, chosen.images, signed, chosen.rhos)
    moved = deltas[rows] + per_row(_step_lengths(chosen).to(deltas.dtype), deltas) * best
    return drawn(norm, chosen.images, moved, chosen.rhos)


def is_stronger(state: SearchState, scores: Tensor) -> Tensor:
    """(B,) bool: ``scores`` (B,) beat the best so far in the goal's direction.

    They are those of `candor.search.goals.score`.
    """
    sign = ascent_sign(state.goals)
    return state.best_score.isnan() | (sign * scores > sign * state.best_score)


def _step_lengths(state: SearchState) -> Tensor:
    """(B,) step lengths in rho; they fall linearly."""
    return _CLIMB * (1.0 - state.steps / state.step_counts)

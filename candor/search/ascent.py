"""The explanations of solver `fast`: ascent of the log-odds on the sphere of RMSE rho.

docs/solver-fast.md derives the step.
"""

from torch import Tensor

from candor.search.geometry import drawn_to_sphere, per_row
from candor.search.goals import ascent_sign
from candor.search.state import SearchState

_CLIMB = 2.5  # first step length, in rho


def ascent_step(state: SearchState, deltas: Tensor, gradients: Tensor, slopes: Tensor) -> Tensor:
    """(B, C, H, W) the next perturbation of every explanation, at RMSE rho inside the box.

    Args:
        deltas: (B, C, H, W) float32, the perturbations just evaluated, inside the box.
        gradients: (B, C, H, W) float32, of the log-odds of s_t there, none of them zero.
        slopes: (B,) float32, the L2 lengths of ``gradients``.
    """
    radii = (state.rhos * deltas[0].numel() ** 0.5).to(deltas.dtype)
    steps = radii * _step_lengths(state).to(deltas.dtype) * ascent_sign(state.goals) / slopes
    return drawn_to_sphere(state.images, deltas + per_row(steps, deltas) * gradients, radii)


def is_stronger(state: SearchState, scores: Tensor) -> Tensor:
    """(B,) bool: ``scores`` (B,), log-odds of s_t, beat the best so far in the goal's direction."""
    sign = ascent_sign(state.goals)
    return state.best_score.isnan() | (sign * scores > sign * state.best_score)


def _step_lengths(state: SearchState) -> Tensor:
    """(B,) step lengths in rho; they fall linearly."""
    return _CLIMB * (1.0 - state.steps / state.step_counts)

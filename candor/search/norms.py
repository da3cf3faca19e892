"""Steps of explanations whose rho is measured in another norm than L2.

docs/solver-fast.md derives both functions: the best step of a linear score inside ball and box, and
a perturbation drawn to its size inside the box.
"""

import torch
from torch import Tensor

from candor.search.geometry import per_row
from candor.search.sizes import EXPONENTS, powers
from candor.terms import Norm

_INSIDE = 1.0 - 1e-6  # of rho, so that rounding hardly ever takes a perturbation past it
_LARGEST_SCALE = 1e9


def linear_step(norm: Norm, images: Tensor, weights: Tensor, rhos: Tensor) -> Tensor:
    """(B, C, H, W) the delta of largest <w, delta>, of rho_p at most rho and inside the box.

    |delta_i| = min(room_i, c |w_i|^(1 / (p - 1))) with the sign of w_i: the direction
    sign(w) |w|^(1 / (p - 1)) drawn to rho.  For p = 1 its limit: the pixels of the largest |w| take
    all of their room, one after another.

    Args:
        images, weights: (B, C, H, W) float32.     rhos: (B,) float64.
    """
    if norm is Norm.L1:
        return _filled(images, weights, rhos)
    return drawn(norm, images, _dual(norm, weights), rhos)


def drawn(norm: Norm, images: Tensor, deltas: Tensor, rhos: Tensor) -> Tensor:
    """(B, C, H, W) each delta scaled so that after clipping to the box its rho_p is rho.

    A direction whose room ends before rho keeps all of its room.  Linf clips to the ball instead,
    and never scales up: scaled down, all but the largest changes would be lost.

    Args:
        images, deltas: (B, C, H, W) float32.     rhos: (B,) float64.
    """
    if norm is Norm.LINF:
        limits = per_row((rhos * _INSIDE).to(deltas.dtype), deltas)
        scaled = deltas.clamp(-limits, limits)
    else:
        scaled = per_row(_scales(norm, images, deltas, rhos).to(deltas.dtype), deltas) * deltas
    return scaled.clamp(-images, 1.0 - images)


def _dual(norm: Norm, weights: Tensor) -> Tensor:
    """sign(w) |w|^(1 / (p - 1)), up to a factor for each row."""
    if norm is Norm.LINF:
        return weights.sign()
    largest = weights.abs().flatten(1).amax(dim=1).clamp_min(1e-30)
    shares = weights / per_row(largest, weights)  # squares of tiny weights would underflow
    return shares if norm is Norm.L2 else shares * shares.abs()


def _scales(norm: Norm, images: Tensor, deltas: Tensor, rhos: Tensor) -> Tensor:
    """(B,) float64 s with sum_i min(room_i, s |delta_i|)^p = d rho^p.  One sort.

    In the order of the s at which pixels reach their room, the sum is known at each of these s; the
    solution lies before the first one at which the sum is as large as wanted.
    """
    sizes, rooms = _sizes_and_rooms(images, deltas)
    reach, order = torch.where(sizes > 0, rooms / sizes, torch.inf).sort(dim=1)
    held, free = (powers(norm, values.gather(1, order)) for values in (rooms, sizes))
    held_before = held.cumsum(dim=1) - held
    free_from = free.flip(1).cumsum(dim=1).flip(1)
    wanted = sizes.shape[1] * powers(norm, rhos * _INSIDE)[:, None]
    # 0 times infinity is no number, which is not below what is wanted: a delta of 0 never clips.
    is_before = held_before + powers(norm, reach) * free_from < wanted
    place = is_before.sum(dim=1, keepdim=True).clamp_max(sizes.shape[1] - 1)
    left = (wanted - held_before.gather(1, place)).clamp_min(0.0)
    scales: Tensor = (left / free_from.gather(1, place)).pow(1.0 / EXPONENTS[norm])
    return scales[:, 0].nan_to_num(_LARGEST_SCALE).clamp_max(_LARGEST_SCALE)


def _filled(images: Tensor, weights: Tensor, rhos: Tensor) -> Tensor:
    """The step in L1: all of the room of the largest weights, until d rho is spent."""
    sizes, rooms = _sizes_and_rooms(images, weights)
    order = sizes.argsort(dim=1, descending=True, stable=True)
    sorted_rooms = torch.where(sizes > 0, rooms, 0.0).gather(1, order)
    before = sorted_rooms.cumsum(dim=1) - sorted_rooms
    left = (sizes.shape[1] * rhos * _INSIDE)[:, None] - before
    taken = torch.minimum(left.clamp_min(0.0), sorted_rooms)
    lengths = torch.zeros_like(sizes).scatter(1, order, taken)
    steps = lengths.view_as(weights).to(weights.dtype) * weights.sign()
    return steps.clamp(-images, 1.0 - images)


def _sizes_and_rooms(images: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
    """(B, d) float64: |delta|, and how far each pixel may go in that direction inside the box."""
    rooms = torch.where(deltas > 0, 1.0 - images, images)
    return deltas.abs().flatten(1).double(), rooms.flatten(1).double()

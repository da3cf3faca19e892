"""Geometry of perturbations: lengths, unit vectors, projections; pure functions of tensors.

A vector is one image or perturbation of a batch, so every length and every product is (B,) and is
an L2 length or a dot product over all other axes.  An RMSE is an L2 length / sqrt(C H W).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from candor.search.state import rmse

_SHORT, _LONG = 1e-15, 1e15  # lengths outside may have squares that under- or overflow
_LARGEST_EXPONENT = 126  # 2^126 and 2^-126 are normal float32 numbers
_NEWTON_STEPS = 6
_BISECTIONS = 30


def lengths_of(vectors: Tensor) -> Tensor:
    """(B,) L2 lengths of vectors (B, ...) in their dtype."""
    lengths: Tensor = vectors.flatten(1).norm(dim=1)
    return lengths


def dot(left: Tensor, right: Tensor) -> Tensor:
    """(B,) dot products of vectors (B, ...) with vectors (B, ...)."""
    return (left * right).flatten(1).sum(dim=1)


def per_row(values: Tensor, vectors: Tensor) -> Tensor:
    """``values`` (B,) as (B, 1, ...), with as many axes as ``vectors`` (B, ...) for a product."""
    return values.view(-1, *[1] * (vectors.ndim - 1))


def unit(vectors: Tensor) -> Tensor:
    """Each vector at L2 length 1; a vector of zeros stays zero.

    The squares of a gradient near 1e-20 underflow in float32.  Such vectors are first divided by a
    power of two near their largest element, which changes no bit of the quotient v / |v|.

    Args:
        vectors: (B, ...) floating point; not modified.
    Returns:
        (B, ...) of the same dtype.  At RMSE 1 it is this times sqrt(elements of one vector).
    """
    lengths = lengths_of(vectors)
    if bool(((lengths < _SHORT) | (lengths > _LONG)).any()):
        vectors = _scaled_by_powers_of_two(vectors)
        lengths = lengths_of(vectors)
    return vectors / per_row(torch.where(lengths > 0, lengths, 1.0), vectors)


def _scaled_by_powers_of_two(vectors: Tensor) -> Tensor:
    """Vectors (B, ...) whose largest elements are near 1 in absolute value; zeros stay zeros."""
    largest = torch.linalg.vector_norm(vectors.flatten(1), torch.inf, dim=1)
    exponents = -torch.frexp(largest).exponent.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    return vectors * per_row(torch.ldexp(torch.ones_like(largest), exponents), vectors)


def where_row(chosen: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """(B, ...) each vector from ``left`` where ``chosen`` (B,) bool, else from ``right``."""
    return torch.where(per_row(chosen, left), left, right)


def masked(gradients: Tensor, masks: Tensor | None) -> Tensor:
    """The part of each gradient g along m g: (g . m g) / |m g|^2 m g; without masks g itself.

    A mask m of 0 and 1 gives m g exactly, which is all of the slope that its pixels have.  One in
    between bends the direction towards its larger values and leaves the slope along it as it is,
    so that a mask of one half everywhere changes nothing.  (docs/solver-fast.md)

    Args:
        gradients: (B, C, H, W).     masks: (B, 1, H, W) in [0, 1].
    """
    if masks is None:
        return gradients
    inside = masks * gradients
    squares = dot(inside, inside)
    factors = torch.where(squares > 0, dot(gradients, inside) / squares, 1.0)
    return per_row(factors, inside) * inside


def resolve(vectors: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
    """Each vector as a multiple (B,) of its unit normal, and (B, ...) the part at right angles."""
    across = dot(vectors, normals)
    return across, vectors - per_row(across, vectors) * normals


def boundary_jump(gaps: Tensor, gradients: Tensor, slopes: Tensor) -> Tensor:
    """(B, ...) the shortest step to where a linearised gap is 0: -F g / |g|^2, of length |F| / |g|.

    Args:
        gaps: (B,) F.      gradients: (B, ...) g.      slopes: (B,) |g|, > 0.
    """
    steps = per_row(-gaps / slopes.square(), gradients) * gradients
    # The square of a tiny slope underflows: infinity times a gradient of 0 is no step there.
    return torch.where(steps.isnan(), 0.0, steps)


def nearest_in_half_space(images: Tensor, gradients: Tensor, reach: Tensor) -> Tensor:
    """(B, C, H, W) smallest p with gradients . p <= reach and images + p in the box [0, 1].

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
        slopes = dot(gradients * is_free, gradients).clamp_min(1e-30)
        reached = dot(gradients, steps.clamp(low, high))
        improved = (multipliers + (reach - reached) / slopes).clamp(-1e9, 0.0)
        if _is_settled(improved, multipliers):
            break
        multipliers = improved
        steps = per_row(multipliers, gradients) * gradients
    return steps.clamp(low, high)


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
    # Just inside, so that rounding never takes it past the radius.
    wanted = (radii * (1.0 - 1e-6)).square()
    held = scales = torch.zeros_like(radii)
    free = squares.flatten(1).sum(dim=1)
    for _ in range(_NEWTON_STEPS):
        before = scales
        scales = ((wanted - held).clamp_min(0.0) / free.clamp_min(1e-30)).sqrt().clamp_max(1e9)
        if _is_settled(scales, before):
            break
        scaled = per_row(scales, deltas) * deltas
        clipped = scaled.clamp(low, high)
        is_free = clipped == scaled
        free = (squares * is_free).flatten(1).sum(dim=1)
        held = (clipped.square() * ~is_free).flatten(1).sum(dim=1)
    return scaled.clamp(low, high)


def _is_settled(values: Tensor, before: Tensor) -> bool:
    """Whether another iteration would change no bit; a GPU is not asked, for it would wait."""
    return not values.is_cuda and torch.equal(values, before)


def draw_to_rho(
    images: Tensor,
    originals: Tensor,
    rhos: Tensor,
    measure: Callable[[Tensor, Tensor], Tensor] = rmse,
) -> Tensor:
    """Scale each perturbation so that its size after clipping is rho, never above it.

    Bisection over the scale in float64, slower than `drawn_to_sphere` and exact: clipping makes the
    size a non-linear function of the scale.  A perturbation of zero stays; one that cannot reach
    rho inside the box ends at scale 2^10.

    Args:
        images, originals: (B, C, H, W) float32 in [0, 1].      rhos: (B,) float64.
        measure: (B,) float64 size of such a pair, for instance the RMSE.
    """
    deltas = images - originals
    low = torch.zeros_like(rhos)
    high = (2.0 * rhos / measure(images, originals).clamp_min(1e-12)).clamp(1.0, 1024.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        is_inside = measure(_scaled(originals, deltas, middle), originals) <= rhos
        low = torch.where(is_inside, middle, low)
        high = torch.where(is_inside, high, middle)
    return _scaled(originals, deltas, low)


def _scaled(originals: Tensor, deltas: Tensor, scales: Tensor) -> Tensor:
    factors = per_row(scales.to(deltas.dtype), deltas)
    return (originals + factors * deltas).clamp(0.0, 1.0)

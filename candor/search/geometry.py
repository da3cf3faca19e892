"""Geometry of perturbations: lengths, unit vectors, projections; pure functions of tensors.

A vector is one image or perturbation of a batch, so every length and every product is (B,) and is
an L2 length or a dot product over all other axes.  An RMSE is an L2 length / sqrt(C H W).
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from candor.search.state import rmse

_SHORT, _LONG = 1e-15, 1e15  # lengths outside may have squares that under- or overflow
_LARGEST_EXPONENT = 126  # 2^126 and 2^-126 are normal float32 numbers
_SECANTS = 10
_CLOSE = 1e-6  # of what is to be reached: the rounding of a sum in float32
_TINY, _LARGEST = 1e-30, 1e18
_BISECTIONS = 30


def lengths_of(vectors: Tensor) -> Tensor:
    """(B,) L2 lengths of vectors (B, ...) in their dtype."""
    lengths: Tensor = torch.linalg.vector_norm(vectors, dim=tuple(range(1, vectors.ndim)))
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

    p = clip(m g) with the multiplier m <= 0 that solves g . clip(m g) = reach to 1e-6 of it; see
    `_solved`.  Where the half-space misses the box, p is the corner of the box nearest to it.

    Args:
        images, gradients: (B, C, H, W) float32.     reach: (B,) float32 <= 0.
    """
    low, high = -images, 1.0 - images
    wanted = reach.clamp_max(-_TINY)

    def at(multipliers: Tensor) -> tuple[Tensor, Tensor]:
        steps = (per_row(-multipliers, gradients) * gradients).clamp(low, high)
        return steps, torch.where(reach < 0, dot(gradients, steps) / wanted, 1.0)

    return _solved(at, -reach / dot(gradients, gradients).clamp_min(_TINY))


def drawn_to_sphere(images: Tensor, deltas: Tensor, radii: Tensor) -> Tensor:
    """Scale each perturbation so that its L2 length after clipping to the box is its radius.

    The square of the scale s solves  s^2 sum_free delta^2 + sum_clipped delta^2 = radius^2  to 1e-6
    of it, from below; see `_solved`.

    Args:
        images, deltas: (B, C, H, W) float32.    radii: (B,) float32.
    """
    low, high = -images, 1.0 - images
    wanted = radii * (1.0 - 1e-6)  # just inside, so that rounding never takes it past the radius

    def at(squared_scales: Tensor) -> tuple[Tensor, Tensor]:
        drawn = (per_row(squared_scales.sqrt(), deltas) * deltas).clamp(low, high)
        return drawn, (lengths_of(drawn) / wanted).square()

    return _solved(at, (wanted / lengths_of(deltas).clamp_min(_TINY)).square())


def _solved(at: Callable[[Tensor], tuple[Tensor, Tensor]], first: Tensor) -> Tensor:
    """(B, C, H, W) vectors at the parameters where a function of them reaches 1.

    The function is 0 at 0, increasing, concave and piecewise linear, one piece for each set of
    pixels that the box clips.  Beyond its two last points a secant lies above it, so that the
    parameters rise to the solution and never pass it; with both points on the last piece the next
    one is the solution.  It takes lengths and products alone: masks of what is clipped cost several
    times as much.  A row that is there stays as it is, whatever the others need.

    Args:
        at: (B, C, H, W) the vectors at parameters (B,), and (B,) the function there.
        first: (B,) >= 0 where the solution is if the box clips nothing.
    """
    parameters = first.clamp_max(_LARGEST)
    before = reached_before = torch.zeros_like(first)
    for _ in range(_SECANTS):
        vectors, reached = at(parameters)
        missing = functional.threshold(1.0 - reached, _CLOSE, 0.0)
        if not missing.is_cuda and not bool(missing.any()):  # a GPU would wait for the answer
            break
        rise = (reached - reached_before).clamp_min(_TINY)
        further = torch.addcdiv(parameters, missing * (parameters - before), rise)
        before, reached_before = parameters, reached
        parameters = further.clamp_max(_LARGEST)
    return vectors


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

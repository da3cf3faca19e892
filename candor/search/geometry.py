"""Geometry of perturbations: lengths, unit vectors, projections; pure functions of tensors.

A vector is one image or perturbation of a batch, so every length and every product is (B,) and is
an L2 length or a dot product over all other axes.  An RMSE is an L2 length / sqrt(C H W).
"""

import torch
from torch import Tensor

_LARGEST_EXPONENT = 126  # 2^126 and 2^-126 are normal float32 numbers


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

    Every vector is first divided by a power of two near its largest element.  That changes no bit
    of the quotient v / |v|, and the squares of a gradient near 1e-20 do not underflow.

    Args:
        vectors: (B, ...) floating point; not modified.
    Returns:
        (B, ...) of the same dtype.  At RMSE 1 it is this times sqrt(elements of one vector).
    """
    largest = vectors.flatten(1).abs().amax(dim=1)
    exponents = -torch.frexp(largest).exponent.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT)
    scaled = vectors * per_row(torch.ldexp(torch.ones_like(largest), exponents), vectors)
    lengths = lengths_of(scaled)
    return scaled / per_row(torch.where(lengths > 0, lengths, 1.0), vectors)

"""Lengths, directions and the L2 ball inside the box [0, 1]."""

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from candor.search.geometry import lengths_of, per_row, unit

_SMALLEST_LENGTH = 1e-30  # keeps the quotient finite; a shorter perturbation is inside every ball


def to_length(directions: Tensor, lengths: Tensor | float) -> Tensor:
    """Directions (B, C, H, W) scaled to L2 ``lengths`` (B,); a direction of zeros stays zero."""
    factors = torch.as_tensor(lengths).to(directions).expand(len(directions))
    scaled: Tensor = per_row(factors, directions) * unit(directions)
    return scaled


def project(images: Tensor, originals: Tensor, eps: Tensor | float) -> Tensor:
    """Images moved into the L2 ball around their originals, then into [0, 1].

    Clipping brings a pixel only closer to its original, so the result lies in both.

    Args:
        images, originals: (B, C, H, W); not modified.
        eps: L2 radius >= 0, one for all or (B,).
    """
    deltas = images - originals
    lengths = lengths_of(deltas).clamp_min(_SMALLEST_LENGTH)
    shares = (torch.as_tensor(eps).to(deltas) / lengths).clamp_max(1.0)
    return (originals + per_row(shares, deltas) * deltas).clamp(0.0, 1.0)


def random_directions(images: Tensor, seeds: Sequence[int]) -> Tensor:
    """(B, C, H, W) Gaussian directions of L2 length 1, each from the seed of its own image."""
    noise = [
        torch.randn(images.shape[1:], generator=Generator().manual_seed(seed)) for seed in seeds
    ]
    return unit(torch.stack(noise).to(images))


def random_start(originals: Tensor, eps: float, seeds: Sequence[int]) -> Tensor:
    """(B, C, H, W) images on the sphere of L2 radius ``eps``, clipped to the box."""
    return project(originals + eps * random_directions(originals, seeds), originals, eps)

"""CutMix and label smoothing: what a training image may be called beside its label."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixed:
    """Images of which each has a part of another.

    Attributes:
        images: (B, C, H, W).
        labels, others: (B,) int64, of the larger and of the smaller part.
        share: scalar in [0.5, 1], how much of the pixels ``labels`` has.
    """

    images: Tensor
    labels: Tensor
    others: Tensor
    share: Tensor


def cut_mix(images: Tensor, labels: Tensor, *, generator: Generator) -> Mixed:
    """One rectangle of every image replaced by that of another of the batch.

    (Yun et al. 2019, arXiv 1905.04899, 3.1, with alpha 1.)  The rectangle has 1 - lambda of the
    area, lambda uniform, its centre is uniform, and what falls outside the image is cut off; lambda
    is then the share of pixels that really stay.  As in the authors' code one rectangle and one
    order of the batch is drawn.  ``labels`` of the result are those of the larger part, so that an
    attack and L_adv know which class is meant.

    Args:
        images: (B, C, H, W); not modified.     labels: (B,) int64.
        generator: on the device of ``images``; nothing is read back from there.
    """
    height, width = images.shape[2:]
    device = images.device
    order = torch.randperm(len(images), generator=generator, device=device)
    draws = torch.rand(3, generator=generator, device=device)
    edge = (1.0 - draws[0]).sqrt()
    rows = _span(height, edge, draws[1])
    columns = _span(width, edge, draws[2])
    is_cut = rows[:, None] & columns
    kept = 1.0 - is_cut.float().mean()
    is_major = kept >= 0.5
    return Mixed(
        images=torch.where(is_cut, images[order], images),
        labels=torch.where(is_major, labels, labels[order]),
        others=torch.where(is_major, labels[order], labels),
        share=torch.where(is_major, kept, 1.0 - kept),
    )


def soft_targets(mixed: Mixed, class_count: int) -> Tensor:
    """(B, V) float: the share of pixels of each class.  (1905.04899, Eq. 1)"""
    own, other = (functional.one_hot(one, class_count) for one in (mixed.labels, mixed.others))
    return mixed.share * own + (1.0 - mixed.share) * other


def _span(length: int, share: Tensor, centre: Tensor) -> Tensor:
    """(length,) bool: the pixels within share * length around a centre in [0, 1)."""
    half = (length * share).floor() // 2
    middle = (length * centre).floor()
    pixels = torch.arange(length, device=share.device)
    return (pixels >= middle - half) & (pixels < middle + half)

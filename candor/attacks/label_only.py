"""A hard-label attack, which sees predictions only."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from candor.attacks.candidates import Candidates, proposed
from candor.attacks.counting import CountedNetwork
from candor.attacks.projection import to_length
from candor.search.geometry import lengths_of, unit

TRIALS = 20  # random directions at the boundary, one estimate of its normal
_BISECTIONS = 12
_HALVINGS = 8
_FIRST_DRAWS = 10
_TRIAL_SHARE = 0.1  # of the distance so far: the length of a trial


@torch.no_grad()
def label_only(
    network: nn.Module,
    originals: Tensor,
    labels: Tensor,
    eps: float,
    seeds: Sequence[int],
    *,
    queries: int,
) -> Candidates:
    """After HopSkipJump (arXiv 1904.02144), one image at a time.

    From a random image of another prediction it goes to the boundary by bisection, estimates the
    boundary's normal from the predictions of random neighbours, steps along it and bisects again.

    Args:
        network, originals, labels: as in `candor.attacks.fgsm.fgsm`.
        eps: L2; an image counts as found where it ends within.
        seeds: one for each image.
        queries: forward passes for each image, about.
    """
    counted = CountedNetwork(network)
    reached, counts = [], []
    for original, label, seed in zip(originals, labels, seeds, strict=True):
        generator = Generator().manual_seed(seed)
        reached.append(_nearest(counted, original, label, generator, queries))
        counts.append(counted.take())
    images = torch.stack(reached)
    is_inside = lengths_of(images.double() - originals) <= eps
    found = proposed(network, originals, images, labels, 0)
    return replace(
        found,
        steps=torch.tensor(counts),
        is_found=found.is_found & is_inside,
        lower_bounds=torch.zeros_like(found.lower_bounds),
    )


def _nearest(
    network: nn.Module, original: Tensor, label: Tensor, generator: Generator, queries: int
) -> Tensor:
    """(C, H, W) the image reached, or the original where no other prediction was met."""
    image = _other_prediction(network, original, label, generator)
    if image is None:
        return original
    for number in range(1, max(1, queries // (TRIALS + 20)) + 1):
        image = _to_boundary(network, original, image, label)
        gap = float((image - original).norm())
        normal = _normal(network, image, gap, label, generator)
        image = _step_out(network, image, normal, gap / math.sqrt(number), label)
    return _to_boundary(network, original, image, label)


def _normal(
    network: nn.Module, image: Tensor, gap: float, label: Tensor, generator: Generator
) -> Tensor:
    """Direction (C, H, W) in which the predictions of random neighbours leave the label."""
    noise = torch.randn(TRIALS, *image.shape, generator=generator)
    directions = to_length(noise.to(image), 1.0)
    trials = (image + _TRIAL_SHARE * gap * directions).clamp(0.0, 1.0)
    is_other = (network(trials).argmax(1) != label).float() * 2 - 1
    # Without the mean the estimate varies less; where all trials agree nothing would be left.
    weights = is_other - is_other.mean()
    if not bool(weights.any()):
        weights = is_other
    return unit((weights[:, None, None, None] * directions).sum(0, keepdim=True))[0]


def _other_prediction(
    network: nn.Module, original: Tensor, label: Tensor, generator: Generator
) -> Tensor | None:
    for _ in range(_FIRST_DRAWS):
        trials = torch.rand(TRIALS, *original.shape, generator=generator).to(original)
        is_other = network(trials).argmax(1) != label
        if bool(is_other.any()):
            return trials[is_other][0]
    return None


def _to_boundary(network: nn.Module, original: Tensor, image: Tensor, label: Tensor) -> Tensor:
    """The nearest image of another prediction on the segment, by bisection."""
    inside, outside = 0.0, 1.0
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        if _is_other(network, original + middle * (image - original), label):
            outside = middle
        else:
            inside = middle
    return original + outside * (image - original)


def _step_out(
    network: nn.Module, image: Tensor, normal: Tensor, length: float, label: Tensor
) -> Tensor:
    """The longest of length, length/2, ... that still changes the prediction."""
    for _ in range(_HALVINGS):
        trial = (image + length * normal).clamp(0.0, 1.0)
        if _is_other(network, trial, label):
            return trial
        length /= 2
    return image


def _is_other(network: nn.Module, image: Tensor, label: Tensor) -> bool:
    return int(network(image[None]).argmax(1)) != int(label)

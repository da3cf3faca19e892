"""What an attack proposes, before anything of it is verified."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from candor.attacks.margin import holds
from candor.search.state import rmse
from candor.terms import Goal


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """Proposals of an attack for a batch.

    Attributes:
        images: (B, C, H, W) float32 in [0, 1].
        is_found: (B,) bool, whether the goal held for the image when the attack looked.
        lower_bounds: (B,) float64, largest RMSE it tried without success; 0 where it tried none.
        steps: (B,) int64, gradient steps, or evaluations that were really asked for.
        failures: why the attack failed, by row of an image on which it did: it says nothing of
            that image, neither found nor not found.
    """

    images: Tensor
    is_found: Tensor
    lower_bounds: Tensor
    steps: Tensor
    failures: Mapping[int, str] = field(default_factory=dict)


class SmallestFound:
    """The smallest image so far that reaches the goal, for every image of a batch.

    Args:
        originals: (B, C, H, W) float32 in [0, 1].
    """

    def __init__(self, originals: Tensor) -> None:
        self._originals = originals
        self._images = originals.clone()
        self._distances = torch.full((len(originals),), torch.inf, dtype=torch.float64)
        self._largest_missed = torch.zeros(len(originals), dtype=torch.float64)

    def offer(self, images: Tensor, is_reached: Tensor) -> None:
        """Keep each image (B, C, H, W) that reaches the goal, (B,) bool, nearer than before."""
        distances = rmse(images, self._originals)
        is_better = is_reached & (distances < self._distances)
        self._images = torch.where(is_better[:, None, None, None], images, self._images)
        self._distances = torch.where(is_better, distances, self._distances)
        missed = torch.where(is_reached, 0.0, distances)
        self._largest_missed = torch.maximum(self._largest_missed, missed)

    def candidates(self, steps: int) -> Candidates:
        """What was found with ``steps`` steps an image."""
        return Candidates(
            images=self._images,
            is_found=self._distances.isfinite(),
            lower_bounds=self._largest_missed,
            steps=torch.full((len(self._distances),), steps),
        )


@torch.no_grad()
def proposed(
    network: nn.Module, originals: Tensor, images: Tensor, labels: Tensor, steps: int
) -> Candidates:
    """One image for each original, found where it changes the prediction from the label."""
    is_found = holds(network(images), labels, Goal.ATTACK)
    return Candidates(
        images=images,
        is_found=is_found,
        lower_bounds=torch.where(is_found, 0.0, rmse(images, originals)),
        steps=torch.full((len(labels),), steps),
    )

"""Real images of a class, as an independent network sees them.

An explanation that looks like its target lies about as near to real images of the target as real
images lie to each other.  So its distance to the nearest training images is told as a percentile of
the distances of test images, which the network has not been trained on.
"""

from dataclasses import dataclass, field
from typing import Self

import torch
from torch import Tensor, nn

from candor.audit.plan import image_order
from candor.data.images import Images
from candor.explainers.measures import nearest_distances, share_up_to
from candor.explainers.penultimate import NoPenultimateLayer, penultimate

# Of a class, and of all classes together: a data set of thousands has fewer of each.
TRAINING_IMAGES, TEST_IMAGES, MOST_IMAGES = 200, 100, 20_000
_BATCH = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RealImages:
    """Training and test images of every class, drawn by the seed of an audit.

    Attributes:
        network: independent of the one that is audited, in evaluation mode.
        training, test: of one data set, as the audited model sees them.
        training_rows, test_rows: of each class.
    """

    network: nn.Module
    training: Images
    test: Images
    training_rows: tuple[Tensor, ...]
    test_rows: tuple[Tensor, ...]
    _known: dict[int, tuple[Tensor, Tensor] | None] = field(default_factory=dict)

    @classmethod
    def of(cls, network: nn.Module, training: Images, test: Images, seed: int) -> Self:
        """The images that ``seed`` draws from two splits of one data set."""
        return cls(
            network=network,
            training=training,
            test=test,
            training_rows=_rows(training, seed, TRAINING_IMAGES),
            test_rows=_rows(test, seed, TEST_IMAGES),
        )

    def percentile(self, image: Tensor, target: int) -> float | None:
        """Share of real test images of ``target`` that lie no further than ``image`` (C, H, W).

        None where the class has no real images, or the network has no penultimate layer.
        """
        if target not in self._known:
            self._known[target] = self._of_class(target)
        known = self._known[target]
        if known is None:
            return None
        features, distances = known
        own = nearest_distances(penultimate(self.network, image[None]), features)
        return share_up_to(float(own), distances)

    def digest(self) -> str:
        """SHA-256 of what decides the training images that are compared with, as hex."""
        return self.training.digest(torch.cat(self.training_rows))

    def _of_class(self, label: int) -> tuple[Tensor, Tensor] | None:
        """Features (M, F) of training images, and the distances of test images to them."""
        chosen, others = self.training_rows[label], self.test_rows[label]
        if not (len(chosen) and len(others)):
            return None
        try:
            features = self._features(self.training, chosen)
            return features, nearest_distances(self._features(self.test, others), features)
        except NoPenultimateLayer:
            return None

    def _features(self, images: Images, rows: Tensor) -> Tensor:
        parts = torch.split(rows, _BATCH)
        return torch.cat([penultimate(self.network, images.images(part)) for part in parts])


def _rows(images: Images, seed: int, most: int) -> tuple[Tensor, ...]:
    """For each class its first rows in the order that ``seed`` draws."""
    class_count = len(images.class_names)
    order = image_order(len(images), seed)
    labels = images.labels[order]
    grouped = order[labels.argsort(stable=True)]
    counts = labels.bincount(minlength=class_count).tolist()
    limit = min(most, max(1, MOST_IMAGES // class_count))
    return tuple(rows[:limit] for rows in torch.split(grouped, counts))

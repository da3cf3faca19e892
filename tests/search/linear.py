"""A linear classifier whose nearest adversarial point has a closed form, and searches on it."""

import torch
from torch import Tensor, nn

from candor.search.goals import GOALS, goal_code
from candor.search.state import SearchState, begin
from candor.terms import Goal

SHAPE = (3, 8, 6)  # H != W on purpose


class LinearClassifier(nn.Module):
    """logits = W flatten(x) + b over (B, 3, H, W) images; remembers its own forward passes."""

    def __init__(self, shape: tuple[int, int, int], class_count: int, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        size = shape[0] * shape[1] * shape[2]
        self.head = nn.Linear(size, class_count)
        with torch.no_grad():
            self.head.weight.copy_(torch.randn(class_count, size, generator=generator) * 2.0)
            middle = torch.full((size,), 0.5)
            # Grey is undecided, so that images near it are close to every boundary.
            self.head.bias.copy_(-self.head.weight @ middle)
        self.forward_count = 0
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        self.forward_count += 1
        return self.head(images.flatten(1))


def nearest_rmse(network: LinearClassifier, images: Tensor, labels: Tensor) -> Tensor:
    """(B,) RMSE to the nearest other class, ignoring the box: min_j (y_t - y_j) / |w_t - w_j|."""
    logits = network(images)
    weights = network.head.weight
    gaps = logits.gather(1, labels[:, None]) - logits
    lengths = (weights[labels][:, None] - weights[None]).norm(dim=2)
    distances = torch.where(lengths > 0, gaps / lengths.clamp_min(1e-12), torch.inf)
    return distances.min(dim=1).values / images[0].numel() ** 0.5


def grey_images(count: int, *, seed: int = 1) -> Tensor:
    """(count, 3, 8, 6) in [0.4, 0.6]: far from the box, and near every boundary."""
    generator = torch.Generator().manual_seed(seed)
    return 0.4 + 0.2 * torch.rand(count, *SHAPE, generator=generator)


def mixed_state(network: LinearClassifier, count: int, steps: int = 40) -> SearchState:
    """Searches of every goal, with different rhos, and step counts of ``steps`` and a few less."""
    images = grey_images(count)
    labels = network(images).argmax(1)
    goals = torch.tensor([goal_code(GOALS[index % len(GOALS)]) for index in range(count)])
    is_for = goals == goal_code(Goal.EXPLAIN_FOR)
    return begin(
        images,
        goals=goals,
        targets=torch.where(is_for, (labels + 1) % 5, labels),
        rhos=torch.linspace(0.02, 0.2, count, dtype=torch.float64),
        step_counts=torch.tensor([steps - 3 * (index % 4) for index in range(count)]),
        seeds=torch.arange(count),
    )

"""A network that compiles in seconds, as a model: one convolution and one linear layer."""

import torch
from torch import Tensor, nn

from candor.contracts.card import InputCard, ModelCard, NetworkCard
from candor.models.folder import LoadedModel
from candor.runtime.compiled import channels_last

SHAPE = (3, 8, 6)
CLASSES = ("cat", "dog", "frog", "ship", "truck")


class SmallNetwork(nn.Module):
    """Smooth, so that its gradient has no kinks."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, padding=1)
        self.linear = nn.Linear(8, len(CLASSES))
        self.register_buffer("mean", torch.full((1, 3, 1, 1), 0.5))

    def forward(self, images: Tensor) -> Tensor:
        features = torch.tanh(self.convolution(images - self.mean))
        logits: Tensor = self.linear(features.mean(dim=(2, 3)))
        return 10 * logits


def small_model(seed: int = 1) -> LoadedModel:
    """The same weights for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SmallNetwork()
    card = ModelCard(
        name="small",
        version="1.0",
        description="a network that compiles in seconds",
        network=NetworkCard(
            architecture="small",
            activation="none",
            curvature=1.0,
            width_factor=1,
            class_count=len(CLASSES),
            mean=(0.5, 0.5, 0.5),
            std=(1.0, 1.0, 1.0),
        ),
        input=InputCard(channels=SHAPE[0], height=SHAPE[1], width=SHAPE[2]),
        classes=CLASSES,
        recipe={},
        code_version="0.1.0",
        weights_sha256=f"{seed:064x}",
    )
    return LoadedModel(channels_last(network.eval().requires_grad_(False)), card)

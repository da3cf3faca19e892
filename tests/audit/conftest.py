"""A small convolutional network, its card and a data set for it."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from audit.plan import AuditPlan, Budget
from audit.stages import Subject
from candor.contracts.card import InputCard, ModelCard, NetworkCard
from candor.data.images import ImageSet
from candor.nets.activations import HalfHuberReLU

SHAPE = (3, 8, 6)  # H != W on purpose
CLASSES = ("ant", "bee", "cow", "dog")


def small_network(activation: nn.Module | None = None, *, seed: int = 0) -> nn.Module:
    """Two convolutions and a head; random weights, classes told apart by colour and texture."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, 12, 3, padding=1),
            activation or HalfHuberReLU(),
            nn.Conv2d(12, 12, 3, stride=2, padding=1),
            activation or HalfHuberReLU(),
            nn.Flatten(),
            nn.Linear(12 * 4 * 3, len(CLASSES)),
        )
        with torch.no_grad():
            network[5].weight *= 8
            # Grey is undecided, so that every class is somewhere near.
            network[5].bias -= network(torch.full((1, *SHAPE), 0.5))[0]
    return network.eval().requires_grad_(False)


def small_data(network: nn.Module, count: int, *, seed: int = 1) -> ImageSet:
    """Random pictures labelled by the network, every seventh wrongly."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, *SHAPE), generator=generator, dtype=torch.uint8)
    labels = network(pixels.float() / 255).argmax(1)
    labels[::7] = (labels[::7] + 1) % len(CLASSES)
    return ImageSet(
        name="small/test",
        pixels=pixels,
        labels=labels,
        class_names=CLASSES,
        identifiers=tuple(f"{index}.png" for index in range(count)),
        mean=(0.5,) * 3,
        std=(0.25,) * 3,
    )


def card() -> ModelCard:
    return ModelCard(
        name="small",
        version="1.0",
        description="random, for tests",
        network=NetworkCard(
            architecture="small",
            activation="hhrelu",
            curvature=1.0,
            width_factor=1,
            class_count=len(CLASSES),
            mean=(0.5,) * 3,
            std=(0.25,) * 3,
        ),
        input=InputCard(channels=SHAPE[0], height=SHAPE[1], width=SHAPE[2]),
        classes=CLASSES,
        recipe={},
        code_version="0",
        weights_sha256="0" * 64,
    )


TINY = Budget(
    steps=20,
    descent_steps=10,
    descent_images=6,
    autoattack_images=1,
    square_queries=30,
    label_queries=80,
    panel_images=3,
    noise_trials=40,
    smoothing_images=3,
    smoothing_samples=60,
    clever_images=2,
    clever_samples=80,
    explanation_images=3,
)


def plan_for(data: ImageSet, stages: tuple[str, ...], **changes: object) -> AuditPlan:
    values: dict[str, object] = {
        "weights_sha256": "0" * 64,
        "data": data.name,
        "data_sha256": data.digest(),
        "code_sha256": "1" * 64,
        "image_count": 10,
        "stages": stages,
        "batch_size": 4,
        "budget": TINY,
    }
    return AuditPlan.model_validate(values | changes)


@pytest.fixture(scope="session")
def network() -> nn.Module:
    return small_network()


@pytest.fixture(scope="session")
def data(network: nn.Module) -> ImageSet:
    return small_data(network, 24)


@pytest.fixture(scope="session")
def subject(network: nn.Module) -> Subject:
    return Subject(network=network, card=card())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "report"


def grey_images(count: int, *, seed: int = 1) -> Tensor:
    """Pictures far from the limits of the box."""
    generator = torch.Generator().manual_seed(seed)
    return 0.4 + 0.2 * torch.rand(count, *SHAPE, generator=generator)

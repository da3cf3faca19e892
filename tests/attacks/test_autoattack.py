"""AutoAttack on many images at once finds what the library finds on each image alone."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn

from candor.attacks.autoattack import autoattack
from candor.attacks.batching import PaddedBatches, Spread, in_turn
from candor.attacks.candidates import Candidates
from candor.attacks.compacted import run_compacted
from candor.attacks.library import run_library
from candor.attacks.square import square
from candor.runtime.threads import spread_over
from candor.search.geometry import lengths_of
from tests.fixtures.audit import small_data, small_network

_COUNT = 5  # more than a batch, and one of them wrong as it came
_SHORT = {"targets": 2, "queries": 150}
_EPS = 0.05  # some images stand, some fall


class _Counting(nn.Module):
    """Counts the batches and the images that a network evaluates."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.sizes: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.sizes.append(len(images))
        logits: Tensor = self.network(images)
        return logits


@pytest.fixture(scope="module")
def padded() -> nn.Module:
    return PaddedBatches(small_network()).eval()


@pytest.fixture(scope="module")
def drawn(padded: nn.Module) -> tuple[Tensor, Tensor]:
    data = small_data(padded, 12)
    return data.images(slice(0, _COUNT)).contiguous(), data.labels[:_COUNT]


@pytest.fixture(scope="module")
def alone(padded: nn.Module, drawn: tuple[Tensor, Tensor]) -> Candidates:
    """What the library finds, one image at a time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    found, _ = run_library(padded, *drawn, _EPS, range(_COUNT), attacks=None, **_SHORT)
    torch.set_num_threads(before)
    return found


@pytest.mark.parametrize("spread", ["in turn", "on threads"])
def test_images_of_many_are_those_of_each_alone_bit_for_bit(
    padded: nn.Module, drawn: tuple[Tensor, Tensor], alone: Candidates, spread: str
) -> None:
    spreads: dict[str, Spread] = {
        "in turn": in_turn,
        "on threads": partial(spread_over, padded),
    }
    generator = torch.random.get_rng_state()
    found, _ = run_compacted(
        None, padded, *drawn, _EPS, range(_COUNT), batch_size=3, spread=spreads[spread], **_SHORT
    )
    assert torch.equal(torch.random.get_rng_state(), generator)
    assert found.is_found.tolist() == alone.is_found.tolist()
    assert torch.equal(found.images, alone.images)
    assert 0 < int(alone.is_found.sum()) < _COUNT


def test_cheaper_attacks_change_no_verdict_and_spare_evaluations(
    padded: nn.Module, drawn: tuple[Tensor, Tensor], alone: Candidates
) -> None:
    counting = _Counting(padded).eval()
    found, _ = run_compacted(None, counting, *drawn, _EPS, range(_COUNT), cheap_steps=20, **_SHORT)
    assert found.is_found.tolist() == alone.is_found.tolist()
    # Beside what the images asked for: seven for the look at the network, one each at the end.
    assert int(found.steps.sum()) == sum(counting.sizes) - 7 - _COUNT
    assert int(found.steps.sum()) < int(alone.steps.sum())
    broken = found.steps[found.is_found & (found.steps > 1)]
    assert len(broken) > 0
    assert int(broken.max()) <= 20 + 2


def test_what_a_smaller_ball_broke_is_not_attacked_again(
    padded: nn.Module, drawn: tuple[Tensor, Tensor], alone: Candidates
) -> None:
    counting = _Counting(padded).eval()
    images, labels = (part[alone.is_found] for part in drawn)
    smaller = Candidates(
        images=alone.images[alone.is_found],
        is_found=alone.is_found[alone.is_found],
        lower_bounds=alone.lower_bounds[alone.is_found],
        steps=alone.steps[alone.is_found],
    )
    seeds = range(len(labels))
    found, warnings = autoattack(counting, images, labels, 4 * _EPS, seeds, smaller=smaller)
    assert bool(found.is_found.all())
    assert torch.equal(found.images, smaller.images)
    assert bool((lengths_of(found.images - images) <= _EPS * (1 + 1e-5)).all())
    assert len(counting.sizes) == 3
    assert warnings == []


@pytest.mark.parametrize("shape", [(8, 6), (10, 10)])
def test_square_of_many_is_square_of_each_alone(shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    for weight in network.parameters():
        weight.data = 0.3 * torch.randn(weight.shape, generator=generator)
    padded = PaddedBatches(network.eval().requires_grad_(False))
    images = torch.rand(6, 3, *shape, generator=generator)
    labels, seeds = padded(images).argmax(1), range(6)
    once = {"targets": 1, "queries": 60}
    expected, _ = run_library(padded, images, labels, 0.3, seeds, attacks=["square"], **once)
    found, _ = square(padded, images, labels, 0.3, seeds, queries=60, batch_size=4)
    assert torch.equal(found.images, expected.images)
    assert 0 < int(expected.is_found.sum()) < 6

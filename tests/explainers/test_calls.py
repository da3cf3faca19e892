"""Saliencies that take many calls, and the layer that Grad-CAM looks at."""

from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from candor.contracts.api import Method
from candor.contracts.worker import (
    COMPARED_ARRAYS,
    PARTIAL,
    CompareAnswer,
    CompareItem,
    CompareMissing,
    CompareProgress,
)
from candor.explainers import budget, compare
from candor.explainers.feature_map import NoFeatureMap, last_feature_layer
from candor.explainers.saliency import PATH_STEPS, integrated_gradients


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.act = nn.Softplus()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(6, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pool(self.act(self.first(images))).flatten(1))
        return logits


class Tokens(Convolutions):
    """Patches, then tokens (B, N, C), as in a transformer."""

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.first(images).flatten(2).transpose(1, 2)
        return self.head(tokens).mean(1)  # type: ignore[no-any-return]


class ChannelsLast(Convolutions):
    """Tokens that keep their places, (B, H, W, C)."""

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.first(images).permute(0, 2, 3, 1)).mean((1, 2))  # type: ignore[no-any-return]


def network_of(kind: type[Convolutions] = Convolutions) -> Convolutions:
    torch.manual_seed(0)
    return kind().eval().requires_grad_(False)


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    images = np.random.default_rng(3).random((4, 3, 12, 10), dtype=np.float32)
    return dict(zip(COMPARED_ARRAYS, images, strict=True))


def finished(
    network: nn.Module, method: Method, arrays: dict[str, Any]
) -> tuple[CompareAnswer, dict[str, np.ndarray], int]:
    """What a method returns in the end, and the number of its calls."""
    item = CompareItem(method=method, target=2, seed=5)
    while True:
        answer, found = compare.compare_item(network, item, arrays)
        if isinstance(answer, CompareAnswer):
            return answer, found, item.part + 1
        assert isinstance(answer, CompareProgress)
        assert answer.part == item.part + 1
        assert found[PARTIAL].dtype == np.float32
        item, arrays = item.model_copy(update={"part": answer.part}), {**arrays, **found}


@pytest.mark.parametrize("method", [Method.LIME, Method.INTEGRATED_GRADIENTS])
def test_many_calls_return_what_a_single_one_does(
    monkeypatch: pytest.MonkeyPatch, arrays: dict[str, np.ndarray], method: Method
) -> None:
    monkeypatch.setattr(budget, "_PASS_VALUES", 16 * arrays["image"].size)
    whole, maps, calls = finished(network_of(), method, arrays)
    assert calls == 1
    monkeypatch.setattr(compare, "CALL_SECONDS", -1.0)
    again, parts, calls = finished(network_of(), method, arrays)
    assert calls >= 4
    assert again == whole
    for name, expected in maps.items():
        assert np.array_equal(parts[name], expected)


def test_integrated_gradients_are_those_of_captum() -> None:
    network, images = network_of(), torch.rand(2, 3, 12, 10)
    targets = torch.tensor([1, 3])
    found = integrated_gradients(network, images, targets)
    expected = IntegratedGradients(network).attribute(images, target=targets, n_steps=PATH_STEPS)
    assert torch.allclose(found, expected.sum(1).float(), atol=1e-6)


def test_pooled_maps_say_nothing_about_places() -> None:
    network = network_of()
    assert last_feature_layer(network, torch.rand(1, 3, 12, 10)) is network.act


@pytest.mark.parametrize("kind", [Tokens, ChannelsLast])
def test_network_that_ends_in_tokens_has_no_grad_cam(
    arrays: dict[str, np.ndarray], kind: type[Convolutions]
) -> None:
    with pytest.raises(NoFeatureMap, match="got tokens after the last one"):
        last_feature_layer(network_of(kind), torch.rand(1, 3, 12, 10))
    item = CompareItem(method=Method.GRAD_CAM, target=1)
    answer, found = compare.compare_item(network_of(kind), item, arrays)
    assert isinstance(answer, CompareMissing)
    assert "as in transformers" in answer.reason
    assert found == {}

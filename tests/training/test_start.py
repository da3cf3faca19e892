"""What a run starts with, where that is the network of a model folder."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from candor.models.folder import load_model
from tests.robustness.test_acceptance import Changed, Once, images_of
from training.config import TrainConfig
from training.regularizers import PenaltyMode
from training.start import check_no_draws, check_second_derivative, load_split, started


def config_of(**changes: Any) -> TrainConfig:
    values = {"architecture": "start_from", "epochs": 1, "data": "folder", "psi_mode": "fixed"}
    return TrainConfig(**values | changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "start_from: expected a model folder"),
        ({"start_from": "m", "activation": "relu"}, "activation: expected 'hhrelu' .* 'relu'"),
        ({"start_from": "m", "width_factor": 2}, "width_factor: expected 1 .* got 2"),
        ({"start_from": "m", "image_size": 32}, "image_size: expected 0 .* got 32"),
    ],
)
def test_the_model_alone_says_what_its_network_is(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_of(**changes)


def test_the_networks_weights_are_trained_with_its_view(brought: tuple[Path, Path]) -> None:
    config = config_of(start_from=str(brought[0]))
    data = load_split(config, "train", brought[1])
    card = load_model(brought[0]).card
    assert (data.class_names, data.shape) == (card.classes, (3, 32, 32))
    start = started(config, data)
    assert (start.card, start.digest) == (card, card.weights_sha256)
    assert all(weight.requires_grad for weight in start.network.parameters())


def test_an_own_network_goes_on_like_any_other(model: Path, data_root: Path) -> None:
    config = config_of(start_from=str(model), data="cifar10")
    start = started(config, load_split(config, "train", data_root))
    assert start.card == load_model(model).card
    assert start.spec is None


def test_an_imported_model_is_not_the_architecture_of_an_experiment(
    brought: tuple[Path, Path],
) -> None:
    config = config_of(start_from=str(brought[0]))
    other = dataclasses.replace(config, architecture="cifar-resnet20")
    data = load_split(config, "train", brought[1])
    with pytest.raises(ValueError, match="timm/vit_tiny_patch16_224; set architecture=start_from"):
        started(other, data)


def test_a_network_without_a_second_derivative_is_sent_to_finite_differences() -> None:
    check_second_derivative(Changed(torch.tanh), images_of(), PenaltyMode.DOUBLE_BACKWARD)
    with pytest.raises(ValueError, match="penalty_mode: expected 'finite-difference' for a"):
        check_second_derivative(Changed(Once.apply), images_of(), PenaltyMode.DOUBLE_BACKWARD)


def test_a_network_that_draws_is_sent_to_the_double_backward() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(96, 3))
    before = {name: tensor.clone() for name, tensor in layers.state_dict().items()}
    check_no_draws(layers, images_of(2))
    assert all(torch.equal(layers.state_dict()[name], tensor) for name, tensor in before.items())
    assert not layers.training
    with pytest.raises(ValueError, match=r"penalty_mode: expected 'double-backward' .*\(dropout\)"):
        check_no_draws(layers.append(nn.Dropout(0.5)), images_of(2))

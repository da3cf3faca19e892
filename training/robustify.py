"""The run that makes the explanations of a trained model visible: its configuration.

Whatever library the network comes from, it is trained on with L_adv (Eq. 9) by finite differences,
half of each batch moved by one normalised gradient step from a random start, and psi steered
(Eq. 15) by the loss target that the budget of accuracy implies, see `training.budget`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

from candor.contracts import strict_json
from candor.contracts.card import MetricCard
from candor.contracts.json_text import json_text
from candor.data.augment import random_crop_flip
from candor.data.images import Images
from candor.data.registry import load_for_model
from candor.files.reading import MIB, read_file
from candor.files.writing import write_file
from candor.models.folder import load_model
from training.adversaries import Adversary
from training.budget import attack_eps, first_psi, loss_target, psi_rate, weight_average
from training.config import OF_START, TrainConfig, config_from_mapping
from training.psi import EARLY_PARAMETERS, PsiFollows
from training.regularizers import PenaltyMode
from training.run import accuracy_on
from training.start import draws_in_training
from training.step import step_loss

PLAN_FILE = "robustify.json"
_SAMPLE = 32  # training images that the penalty is measured on
_PADDING_SHARE = 16  # of the shorter edge, for the random crop
_STEP_RATIO = 0.875  # of eps: single-step training in L2 from a random start does not collapse


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustifyOptions:
    """What decides the run, besides model and images.

    Attributes:
        accuracy_budget: share of the test images that may be lost, (0, 1).
        eps: RMSE of the attacks of training; None for what the budget implies.
        epochs, batch_size, learning_rate, seed: as in `TrainConfig`.
    """

    accuracy_budget: float
    eps: float | None = None
    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 0.01
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RobustifyPlan:
    """A run before its first step.

    Attributes:
        before: accuracy of the model as it came, on all test images.
    """

    config: TrainConfig
    training_data: Images
    test_data: Images
    before: MetricCard


def plan_run(
    model: Path, data: str, data_dir: Path | None, options: RobustifyOptions, run_dir: Path
) -> RobustifyPlan:
    """The plan of a run, measured once; in a folder where one began, the plan it began with.

    Args:
        model: any model folder.     data, data_dir: as `load_for_model` takes them.
        run_dir: keeps the plan in `PLAN_FILE`.
    Raises:
        ValueError: an option is out of its range, the data does not fit the model, or the run in
            the folder began with other options or another model; the message names what.
        DataMissing, DataDamaged: the images.
    """
    loaded = load_model(model)
    training_data, test_data = (
        load_for_model(data, split, data_dir, loaded.card) for split in ("train", "test")
    )
    asked = {"model": loaded.card.identity, "data": data, **asdict(options)}
    kept = _read(run_dir / PLAN_FILE, asked)
    if kept is None:
        network = loaded.network
        before = accuracy_on(network, test_data)
        config = _measured(_config(model, data, options, training_data), network, training_data)
        target = loss_target(before.value, options.accuracy_budget, _class_count(test_data))
        config = _with_target(config, round(target, 4), network, training_data)
        kept = asked | {"before": before.model_dump(mode="json"), "config": config.as_dict()}
        write_file(run_dir / PLAN_FILE, (json_text(kept, indent=2) + "\n").encode())
    return RobustifyPlan(
        config=config_from_mapping(kept["config"]),
        training_data=training_data,
        test_data=test_data,
        before=MetricCard.model_validate(kept["before"]),
    )


def _config(model: Path, data: str, options: RobustifyOptions, images: Images) -> TrainConfig:
    """All that is known without the network."""
    budget, eps = options.accuracy_budget, options.eps
    edge = min(images.shape[1:])
    steps = -(-len(images) // options.batch_size) * options.epochs
    return TrainConfig(
        description=f"Robustified: L_adv and one-step attacks, accuracy budget {budget:.1%}",
        architecture=OF_START,
        start_from=str(model),
        data=data,
        epochs=options.epochs,
        batch_size=options.batch_size,
        seed=options.seed,
        peak_learning_rate=options.learning_rate,
        crop_padding=edge // _PADDING_SHARE if images.augment is random_crop_flip else 0,
        psi_rate=psi_rate(steps),
        # The budget binds: psi may fall as fast as it rises.
        clip_worse=EARLY_PARAMETERS["clip_worse"],
        penalty_interval=2,
        adversary=Adversary.PGD.value,
        adversary_eps=attack_eps(budget) if eps is None else eps,
        adversary_steps=1,
        adversary_step_ratio=_STEP_RATIO,
        adversary_share=0.5,
        psi_follows=PsiFollows.CLEAN.value,
        weight_average=weight_average(steps),
    )


def _measured(config: TrainConfig, network: nn.Module, data: Images) -> TrainConfig:
    """With the cheaper way to differentiate L_adv that this network allows."""
    is_drawing = draws_in_training(network, data.images(slice(2)))
    mode = PenaltyMode.DOUBLE_BACKWARD if is_drawing else PenaltyMode.FINITE_DIFFERENCE
    return replace(config, penalty_mode=mode.value)


def _with_target(
    config: TrainConfig, target: float, network: nn.Module, data: Images
) -> TrainConfig:
    """With the loss target, and the psi at which L_adv is a tenth of it."""
    images, labels = _sample(data)
    clean = replace(config, adversary=Adversary.NONE.value)
    network.requires_grad_(True)
    penalty = step_loss(
        network,
        images,
        labels,
        config=clean,
        class_count=len(data.class_names),
        is_penalised=True,
        generator=Generator().manual_seed(config.seed),
    ).penalty
    network.requires_grad_(False)
    assert penalty is not None
    return replace(config, loss_target=target, psi_min=first_psi(target, penalty.item()))


def _sample(data: Images) -> tuple[Tensor, Tensor]:
    order = torch.randperm(len(data), generator=Generator().manual_seed(0))
    chosen = order[:_SAMPLE]
    return data.images(chosen), data.labels[chosen]


def _class_count(data: Images) -> int:
    """Classes that occur: of a model of 1,000, photographs may show ten."""
    return max(2, len(set(data.labels.tolist())))


def _read(path: Path, asked: Mapping[str, Any]) -> dict[str, Any] | None:
    """The plan at ``path``, None where there is none; raises ValueError where it is another's."""
    try:
        kept = strict_json.loads(read_file(path, MIB))
    except FileNotFoundError:
        return None
    if not isinstance(kept, dict) or not {"before", "config", *asked} <= kept.keys():
        raise ValueError(f"{path}: expected the plan of a run of candor robustify, got another")
    for name, value in asked.items():
        if kept[name] != value:
            raise ValueError(
                f"{name}: expected {kept[name]!r}, with which the run in {path.parent} began, got "
                f"{value!r}; choose another --run-dir"
            )
    return kept

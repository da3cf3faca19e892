"""One run of an experiment, from its configuration to the model folder."""

import contextlib
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from candor.contracts.card import MetricCard, ModelCard
from candor.contracts.json_text import json_text
from candor.contracts.names import class_difference
from candor.contracts.radius import median_radius_of
from candor.data.images import Images
from candor.files.writing import write_file
from candor.models.folder import bare_network, save_imported, save_model
from candor.robustness.acceptance import examine
from candor.robustness.ara import accuracy_interval
from candor.runtime.allocator import keep_freed_memory
from candor.search.network import checked
from training.checkpoint import CHECKPOINT_FILE, load_checkpoint
from training.config import TrainConfig
from training.distributed import from_first, rank
from training.engine import Precision, fastest_precision
from training.events import RunEvents
from training.loop import Progress, TrainState
from training.loop import train as train_network
from training.origin import Origin
from training.start import Start, started
from training.stored import WeightsDtype, rounded_weights

_EXPLAINED_IMAGES = 8  # training images explained in the run's TensorBoard log
_EXAMINED_IMAGES = 100  # test images of the acceptance of a network of others
_TEST_PIXELS = 500 * 32**2  # of images tested at once


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTarget:
    """What a run writes.

    Attributes:
        experiment: its name, for the recipe on the card.
        run_dir: checkpoint and log; a run there goes on where it stopped.
        folder: model folder.
        name: of the model, on its card.
        note: a remark for the recipe.
    """

    experiment: str
    run_dir: Path
    folder: Path
    name: str
    note: str


def run_experiment(
    config: TrainConfig,
    training_data: Images,
    test_data: Images,
    target: RunTarget,
    report: Callable[[Progress], None],
) -> ModelCard | None:
    """Train, measure the accuracy and write the model folder.

    Args:
        report: takes the progress of every step.
    Returns:
        The card of the model written; None in all processes of a run but the first.
    Raises:
        ValueError: the model to start from is another network, the test images have other classes
            than the training images, or see `training.loop.train`.
        NotFinite: the trained network answers a test image with infinite numbers or NaN.
    """
    keep_freed_memory()
    _check_same_classes(training_data, test_data)
    target.run_dir.mkdir(parents=True, exist_ok=True)
    start = started(config, training_data)
    network = start.network
    origin = Origin.of(training_data, start.digest)
    config = _with_measured_precision(config, network, training_data, target.run_dir)
    resolved = _resolved(config, target.experiment, origin)
    # Else the run there keeps the one it began with.
    if rank() == 0 and not (target.run_dir / CHECKPOINT_FILE).exists():
        content = (json_text(resolved, indent=2) + "\n").encode()
        write_file(target.run_dir / "config.json", content)
    state = _train(network, training_data, config, target.run_dir, origin, report)
    if rank() > 0:
        return None
    recipe = {
        **resolved,
        "note": target.note,
        "history": state.history,
        "seconds": round(state.seconds, 1),
        "data_images": len(training_data),
    }
    description = config.description or target.experiment
    weights = rounded_weights(bare_network(network), WeightsDtype(config.weights_dtype))
    metrics = (accuracy_on(network, test_data),)
    if start.spec is None:
        assert start.card is not None
        update = {"description": description, "recipe": recipe, "metrics": metrics}
        card = start.card.model_copy(update=update)
        return _save_of_model(card, weights, start, test_data, target)
    return save_model(
        target.folder,
        name=target.name,
        model_version="1",
        description=description,
        spec=start.spec,
        state_dict=weights,
        input_size=training_data.shape[1:],
        classes=training_data.class_names,
        recipe=recipe,
        metrics=metrics,
        preprocessing=training_data.preprocessing,
        recommended_rho=config.recommended_rho,
    )


def _save_of_model(
    card: ModelCard, weights: dict[str, Tensor], start: Start, data: Images, target: RunTarget
) -> ModelCard:
    """The folder of a network that came from a model; one of others is examined again."""
    network = start.network
    update: dict[str, Any] = {
        "name": target.name,
        "version": "1",
        "code_version": version("candor"),
    }
    if card.is_imported:
        network.cpu().requires_grad_(False)
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))
        chosen = order[:_EXAMINED_IMAGES]
        found = examine(
            network,
            data.images(chosen),
            data.labels[chosen],
            data.name,
            card.recommended_rho,
        )
        radius = median_radius_of(found.metrics)
        update["acceptance"] = found.acceptance
        update["metrics"] = (*card.metrics, *(() if radius is None else (radius,)))
    card = card.model_copy(update=update)
    return save_imported(target.folder, card, weights, start.graph)


def _resolved(config: TrainConfig, experiment: str, origin: Origin) -> dict[str, Any]:
    return {
        "experiment": experiment,
        **config.as_dict(),
        "candor": version("candor"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "data_digest": origin.data_digest,
    }


def _with_measured_precision(
    config: TrainConfig, network: nn.Module, data: Images, run_dir: Path
) -> TrainConfig:
    """``precision`` "fastest" as the one measured here; a run that goes on keeps its own."""
    if config.precision != Precision.FASTEST:
        return config
    precision = None
    if rank() == 0:
        saved = load_checkpoint(run_dir / CHECKPOINT_FILE) or {}
        precision = saved.get("config", {}).get("precision")
        if precision is None:
            precision = fastest_precision(network, (config.batch_size, *data.shape)).value
    return replace(config, precision=from_first(precision))


def _check_same_classes(training: Images, test: Images) -> None:
    if difference := class_difference(training.class_names, test.class_names):
        raise ValueError(f"data: {test.name}: other classes than {training.name}: {difference}")


def _train(
    network: nn.Module,
    data: Images,
    config: TrainConfig,
    run_dir: Path,
    origin: Origin,
    report: Callable[[Progress], None],
) -> TrainState:
    shown = slice(_EXPLAINED_IMAGES)
    events = RunEvents(run_dir / "tensorboard", network, data.images(shown), data.labels[shown])

    def report_both(step: Progress) -> None:
        report(step)
        events(step)

    with contextlib.closing(events):
        return train_network(
            network, data, config, run_dir=run_dir, origin=origin, report=report_both
        )


def accuracy_on(network: nn.Module, data: Images) -> MetricCard:
    """Accuracy on all of ``data``; leaves the network in evaluation mode.

    Raises:
        NotFinite: the network answers with infinite numbers or NaN.
    """
    network = checked(network.eval())
    device = next(network.parameters()).device
    correct = 0
    with torch.no_grad():
        batch = max(1, _TEST_PIXELS // (data.shape[1] * data.shape[2]))
        for start in range(0, len(data), batch):
            chosen = slice(start, start + batch)
            predicted = network(data.images(chosen).to(device)).argmax(1).cpu()
            correct += int((predicted == data.labels[chosen]).sum())
    interval = accuracy_interval(correct, len(data))
    return MetricCard(
        name="accuracy",
        value=interval.value,
        low=interval.low,
        high=interval.high,
        image_count=len(data),
        data=data.name,
        method="all test images",
    )

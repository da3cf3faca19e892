"""One run of an experiment, from its configuration to the model folder."""

import contextlib
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import nn

from candor.contracts.card import MetricCard, ModelCard
from candor.contracts.json_text import json_text
from candor.data.images import Images
from candor.files.writing import write_file
from candor.models.folder import LoadedModel, load_model, save_model
from candor.nets.architectures import NetworkSpec, build_network
from candor.robustness.ara import accuracy_interval
from candor.runtime.allocator import keep_freed_memory
from candor.search.network import checked
from training.config import TrainConfig
from training.distributed import rank
from training.events import RunEvents
from training.loop import Progress, TrainState
from training.loop import train as train_network
from training.origin import Origin

_EXPLAINED_IMAGES = 8  # training images explained in the run's TensorBoard log
_TEST_BATCH = 500


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
    spec = _spec(config, training_data)
    network, start_digest = _network(config, spec)
    origin = Origin.of(training_data, start_digest)
    resolved = _resolved(config, target.experiment, origin)
    # Else the run there keeps the one it began with.
    if rank() == 0 and not (target.run_dir / "checkpoint.pt").exists():
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
    return save_model(
        target.folder,
        name=target.name,
        model_version="1",
        description=config.description or target.experiment,
        spec=spec,
        state_dict=network.state_dict(),
        input_size=training_data.shape[1:],
        classes=training_data.class_names,
        recipe=recipe,
        metrics=[_accuracy(network, test_data)],
    )


def _resolved(config: TrainConfig, experiment: str, origin: Origin) -> dict[str, Any]:
    return {
        "experiment": experiment,
        **config.as_dict(),
        "candor": version("candor"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "data_digest": origin.data_digest,
    }


def _check_same_classes(training: Images, test: Images) -> None:
    pairs = zip_longest(training.class_names, test.class_names)
    for label, (trained, tested) in enumerate(pairs):
        if trained != tested:
            raise ValueError(
                f"data: class {label} of {training.name} is {trained!r}, that of {test.name} is "
                f"{tested!r}; expected the same classes"
            )


def _network(config: TrainConfig, spec: NetworkSpec) -> tuple[nn.Module, str]:
    """The network as the run starts, and the digest of the weights it starts from, "" for none."""
    torch.manual_seed(config.seed)
    network, digest = build_network(spec), ""
    if config.start_from:
        model = _start_model(config.start_from, spec)
        network.load_state_dict(model.network.state_dict())
        digest = model.card.weights_sha256
    return network.to("cuda" if torch.cuda.is_available() else "cpu"), digest


def _spec(config: TrainConfig, data: Images) -> NetworkSpec:
    return NetworkSpec(
        architecture=config.architecture,
        class_count=len(data.class_names),
        mean=data.mean,
        std=data.std,
        activation=config.activation,
        curvature=config.curvature,
        width_factor=config.width_factor,
        residual_drop=config.residual_drop,
        last_survival=config.last_survival,
    )


def _start_model(folder: str, spec: NetworkSpec) -> LoadedModel:
    model = load_model(Path(folder))
    held = NetworkSpec(**model.card.network.model_dump(exclude={"family"}))
    if held != spec:
        raise ValueError(f"start_from: expected a model with {spec}, got {folder!r} with {held}")
    return model


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


def _accuracy(network: nn.Module, data: Images) -> MetricCard:
    network = checked(network.eval())
    device = next(network.parameters()).device
    correct = 0
    with torch.no_grad():
        for start in range(0, len(data), _TEST_BATCH):
            chosen = slice(start, start + _TEST_BATCH)
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

"""The command `candor train`."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from candor.annotation.extra_data import Control, join_extra
from candor.cli.options import DataDir, open_dataset
from candor.cli.output import AsJson, clear_errors, console, print_json

_IMAGES = 8  # training images explained as training goes

if TYPE_CHECKING:
    from candor.data.images import Images
    from candor.nets.architectures import NetworkSpec
    from training.config import TrainConfig
    from training.loop import TrainState


def train(
    experiment: Annotated[str, typer.Argument(help="Experiment's name or a .toml file.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, over the experiment's own.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Checkpoints and log; default runs/EXPERIMENT.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Model folder to write; default RUN_DIR/model.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Model name on the card.")] = None,
    note: Annotated[str, typer.Option(help="A remark for the card's recipe.")] = "",
    extra: Annotated[
        Path | None, typer.Option(help="Images to train with too: `candor annotations export`.")
    ] = None,
    control: Annotated[
        Control | None,
        typer.Option(help="With --extra: as many of all judged images instead, drawn by the seed."),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Train an experiment; the same command goes on where a stopped run left off."""
    with clear_errors("train"):
        from training.config import load_experiment
        from training.distributed import process_group

        config = load_experiment(experiment, overrides or ())
        label = Path(experiment).stem
        folder = run_dir or Path("runs") / label
        target = _Target(out or folder / "model", name or label, note)
        with process_group():
            training_data = open_dataset(
                config.data, "train", data_dir, image_size=config.image_size
            )
            config, training_data = join_extra(config, training_data, extra, control)
            card = _train(config, label, folder, target, training_data, data_dir)
        if as_json and card is not None:
            print_json(card)


@dataclass(frozen=True, slots=True)
class _Target:
    """The model folder to write, the name on its card and a remark for its recipe."""

    folder: Path
    name: str
    note: str


def _train(
    config: "TrainConfig",
    label: str,
    run_dir: Path,
    target: _Target,
    training_data: "Images",
    data_dir: Path | None,
) -> dict[str, Any] | None:
    """The card of the model written; None in all processes of a run but the first."""
    import json
    import platform
    from importlib.metadata import version

    import torch

    from candor.models.folder import save_model
    from candor.nets.architectures import build_network
    from candor.runtime.allocator import keep_freed_memory
    from training.distributed import rank

    keep_freed_memory()
    test_data = open_dataset(config.data, "test", data_dir, image_size=config.image_size)
    run_dir.mkdir(parents=True, exist_ok=True)
    resolved = {
        "experiment": label,
        **config.as_dict(),
        "candor": version("candor"),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "data_digest": training_data.digest(),
    }
    # Else the run there keeps the one it began with.
    if rank() == 0 and not (run_dir / "checkpoint.pt").exists():
        (run_dir / "config.json").write_text(json.dumps(resolved, indent=2) + "\n")
    torch.manual_seed(config.seed)
    spec = _spec(config, training_data)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = build_network(spec)
    if config.start_from:
        network.load_state_dict(_start_weights(config.start_from, spec))
    network = network.to(device)
    state = _run(network, training_data, config, run_dir)
    if rank() > 0:
        return None
    recipe = {
        **resolved,
        "note": target.note,
        "history": state.history,
        "seconds": round(state.seconds, 1),
        "data_images": len(training_data),
    }
    card = save_model(
        target.folder,
        name=target.name,
        model_version="1",
        description=config.description or label,
        spec=spec,
        state_dict=network.state_dict(),
        input_size=training_data.shape[1:],
        classes=training_data.class_names,
        recipe=recipe,
        metrics=[_accuracy(network, test_data)],
    )
    accuracy = card.metrics[0]
    console().print(
        f"{target.folder}: accuracy {accuracy.value:.4f} on {accuracy.image_count} test images"
    )
    return card.model_dump(mode="json")


def _spec(config: "TrainConfig", data: "Images") -> "NetworkSpec":
    from candor.nets.architectures import NetworkSpec

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


def _start_weights(folder: str, spec: "NetworkSpec") -> dict[str, Any]:
    from candor.models.folder import load_model
    from candor.nets.architectures import NetworkSpec

    model = load_model(Path(folder))
    held = NetworkSpec(**model.card.network.model_dump())
    if held != spec:
        raise ValueError(f"start_from: got {folder!r} with {held}, allowed a model with {spec}")
    return model.network.state_dict()


def _run(network: Any, data: "Images", config: "TrainConfig", run_dir: Path) -> "TrainState":
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from training.distributed import rank
    from training.events import RunEvents
    from training.loop import Progress as StepProgress
    from training.loop import train as run_training

    shown = slice(_IMAGES)
    events = RunEvents(run_dir / "tensorboard", network, data.images(shown), data.labels[shown])
    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with (
        contextlib.closing(events),
        Progress(*columns, console=console(), disable=rank() > 0) as bar,
    ):
        task = bar.add_task("starting", total=None)

        def report(step: StepProgress) -> None:
            text = (
                f"epoch {step.epoch + 1}/{config.epochs} loss {step.cross_entropy:.3f} "
                f"accuracy {step.accuracy:.3f} psi {step.psi:.0f}"
            )
            bar.update(task, completed=step.step, total=step.step_count, description=text)
            events(step)

        return run_training(network, data, config, run_dir=run_dir, report=report)


def _accuracy(network: Any, data: "Images") -> Any:
    import torch

    from candor.contracts.card import MetricCard
    from candor.robustness.ara import accuracy_interval

    network.eval()
    device = next(network.parameters()).device
    correct = 0
    with torch.no_grad():
        for start in range(0, len(data), 500):
            chosen = slice(start, start + 500)
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

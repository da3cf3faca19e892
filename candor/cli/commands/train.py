"""The command `candor train`."""

from pathlib import Path
from typing import Annotated

import typer

from candor.cli.options import DataDir
from candor.cli.output import AsJson, console, print_json
from candor.cli.train_screen import training_bar
from candor.contracts.card import ModelCard
from training.config import TrainConfig
from training.distributed import process_group
from training.experiment import MODEL_DIR, first_experiment, load_experiment, run_folder
from training.extra_images import Control, join_extra_images
from training.run import RunTarget, run_experiment
from training.start import load_split


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
    config = load_experiment(experiment, overrides or ())
    target = _target(Path(experiment).stem, run_dir, out, name, note)
    with process_group():
        _train_first(config, data_dir)
        card = _train(config, target, data_dir, extra, control)
    if card is None:
        return
    accuracy = card.metrics[0]
    console().print(
        f"{target.folder}: accuracy {accuracy.value:.4f} on {accuracy.image_count} test images"
    )
    if as_json:
        print_json(card.model_dump(mode="json"))


def _target(
    label: str, run_dir: Path | None, out: Path | None, name: str | None, note: str
) -> RunTarget:
    folder = run_dir or run_folder(label)
    return RunTarget(
        experiment=label,
        run_dir=folder,
        folder=out or folder / MODEL_DIR,
        name=name or label,
        note=note,
    )


def _train_first(config: TrainConfig, data_dir: Path | None) -> None:
    """The runs of shipped experiments that this one goes on from."""
    first = first_experiment(config)
    if first is None:
        return
    config = load_experiment(first)
    _train_first(config, data_dir)
    console().print(f"First the run it starts from: {first}")
    _train(config, _target(first, None, None, None, ""), data_dir, None, None)


def _train(
    config: TrainConfig,
    target: RunTarget,
    data_dir: Path | None,
    extra: Path | None,
    control: Control | None,
) -> ModelCard | None:
    training_data, test_data = (load_split(config, split, data_dir) for split in ("train", "test"))
    config, training_data = join_extra_images(config, training_data, extra, control)
    with training_bar(config.epochs) as report:
        return run_experiment(config, training_data, test_data, target, report)

"""`make train-gpu`: a whole run on one GPU in a given time, from the data to a measured model.

The first call measures the time of a step, chooses the epochs that fit and keeps the choice, so
that the same command goes on after a kill.  Images in memory and their augmentation are on the
device.  It runs on a CPU too, to be tried.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from candor.audit.ara_session import measure_folder
from candor.contracts import strict_json
from candor.contracts.json_text import json_text
from candor.data.cifar10 import load_cifar10
from candor.data.errors import SPLITS
from candor.data.images import Images
from candor.data.registry import default_data_dir
from candor.files.reading import MIB, read_file
from candor.files.writing import write_file
from candor.models.folder import record_metrics
from candor.robustness.ara_files import metric_cards
from candor.robustness.measure import AraPlan
from candor.terms import FAST_RADIUS_STEPS
from training.config import TrainConfig
from training.experiment import MODEL_DIR, load_experiment, run_folder
from training.loop import Progress, train
from training.run import RunTarget, run_experiment
from training.start import load_split, started

_PLAN_FILE = "gpu.json"
_WARM_STEPS, _TIMED_STEPS = 12, 24  # the first ones compile
_QUALITY = 90  # of JPEG


def main(words: Sequence[str] | None = None) -> None:
    options = _parser().parse_args(words)
    data_dir = options.data_dir or Path(os.environ.get("CANDOR_DATA") or default_data_dir())
    if options.pack is not None:
        print(f"{options.pack}: {pack(data_dir, options.pack) / MIB:.0f} MiB")
        return
    config = load_experiment(options.experiment, options.set or ())
    label = Path(options.experiment).stem
    run_dir = options.run_dir or run_folder(label)
    training_data, test_data = (load_split(config, split, data_dir) for split in SPLITS)
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU"
    config = planned(config, training_data, run_dir, seconds=60.0 * options.minutes)
    steps = -(-len(training_data) // config.batch_size) * config.epochs
    print(f"{config.epochs} epochs, {steps} steps of {config.batch_size} images on {device}")
    folder = run_dir / MODEL_DIR
    target = RunTarget(
        experiment=label, run_dir=run_dir, folder=folder, name=run_dir.name,
        note=f"trained on {device}",
    )  # fmt: skip
    card = run_experiment(config, training_data, test_data, target, _tell)
    assert card is not None
    images = min(options.images, len(test_data))
    plan = AraPlan(solver="fast", steps=FAST_RADIUS_STEPS)
    summary = measure_folder(folder, config.data, data_dir, images, plan, out=run_dir / "ara")
    method = f"candor ara --data {config.data} --images {images} --solver fast --seed 0"
    record_metrics(folder, metric_cards(summary, method))
    print(
        f"{folder}: accuracy {card.metrics[0].value:.4f} of {card.metrics[0].image_count}, by fast "
        f"on {images}: attack ARA {summary['attack_ara']['value']:.4f}, BTR ARA "
        f"{summary['btr_ara']['value']:.4f}; {card.recipe['seconds']:.0f} s of training"
    )


def planned(config: TrainConfig, data: Images, run_dir: Path, *, seconds: float) -> TrainConfig:
    """With the epochs that fit into ``seconds``, at most its own; a run that began keeps its own.

    Raises:
        ValueError: the run in the folder began with another experiment.
    """
    path, asked = run_dir / _PLAN_FILE, {**config.as_dict(), "epochs": 0}
    if path.exists():
        kept = strict_json.loads(read_file(path, MIB))
        if kept["config"] != asked:
            raise ValueError(f"{path}: another experiment began here; choose another --run-dir")
        return replace(config, epochs=kept["epochs"])
    of_step = step_seconds(config, data)
    steps_per_epoch = -(-len(data) // config.batch_size)
    epochs = min(config.epochs, max(1, int(seconds / (of_step * steps_per_epoch))))
    plan = {"config": asked, "epochs": epochs, "seconds_of_a_step": of_step}
    write_file(path, (json_text(plan, indent=2) + "\n").encode())
    print(f"{1000 * of_step:.1f} ms a step, {config.batch_size / of_step:.0f} images a second")
    return replace(config, epochs=epochs)


def step_seconds(config: TrainConfig, data: Images) -> float:
    """Mean time of a training step, with and without L_adv as often as the run has them."""
    often = -(-_TIMED_STEPS // config.penalty_interval) * config.penalty_interval
    # All kinds of steps from the start, in a run that is thrown away.
    config = replace(config, penalty_start_epoch=0, epochs=config.epochs + _WARM_STEPS + often)
    ends: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        train(
            started(config, data).network,
            data,
            config,
            run_dir=Path(folder),
            report=lambda progress: ends.append(time.monotonic()),
            stop_after=_WARM_STEPS + often,
        )
    return statistics.fmean(b - a for a, b in zip(ends[-often - 1 :], ends[-often:], strict=False))


def pack(root: Path, out: Path) -> int:
    """CIFAR-10 as small as it travels well, in the layout that its reader knows; bytes written.

    JPEG of quality 90 inside Parquet, whose compression takes the tables that all files share.
    """
    count = 0
    for split in SPLITS:
        images = load_cifar10(root, split)
        encoded = [_jpeg(pixels.permute(1, 2, 0)) for pixels in images.pixels]
        rows = [
            {"bytes": content, "path": name}
            for content, name in zip(encoded, images.identifiers, strict=True)
        ]
        table, buffer = pa.table({"img": rows, "label": images.labels.numpy()}), io.BytesIO()
        pq.write_table(table, buffer, compression="zstd", compression_level=19)
        path = out / "cifar10" / "plain_text" / f"{split}-00000-of-00001.parquet"
        write_file(path, buffer.getvalue())
        count += len(buffer.getvalue())
    return count


def _jpeg(pixels: torch.Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(buffer, format="JPEG", quality=_QUALITY, subsampling=0)
    return buffer.getvalue()


def _tell(progress: Progress) -> None:
    if progress.is_epoch_end:
        print(
            f"epoch {progress.epoch + 1}: loss {progress.cross_entropy:.3f}, accuracy "
            f"{progress.accuracy:.3f}, psi {progress.psi:.0f}",
            flush=True,
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make train-gpu", description=__doc__)
    parser.add_argument("--experiment", default="cifar10-gpu", help="name or .toml file")
    parser.add_argument("--set", action="append", metavar="KEY=VALUE", help="over its own values")
    parser.add_argument("--minutes", type=float, default=10.0, help="of training")
    parser.add_argument("--images", type=int, default=1000, help="test images attacked at the end")
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--pack", type=Path, metavar="FOLDER", help="only write the data, small")
    return parser


if __name__ == "__main__":
    main()

"""The command `candor export`."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from candor.cli.options import DataDir, open_dataset
from candor.cli.output import AsJson, clear_errors, console, print_json
from candor.contracts import limits

if TYPE_CHECKING:
    from candor.contracts.card import ModelCard
    from candor.data.images import Images

Pixels = NDArray[np.float32]
Network = Callable[[Pixels], NDArray[np.float32]]

_FORMATS = ("onnx",)
_TOLERANCE = 1e-4  # of the largest logit: float32 summed in another order
_CHECK_BATCH = 64
_TIMED_BATCHES = (1, 32)
_LEAST_ROUNDS, _TIMED_SECONDS = 5, 2.0  # of each batch size


def export(
    model: Annotated[Path, typer.Argument(help="Model folder: weights and card.")],
    file_format: Annotated[str, typer.Option("--format", help=f"One of {_FORMATS}.")] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="File to write; default NAME.onnx in this folder.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Images of every run; default: any number.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Data set of the check; default: the model's.")
    ] = None,
    data_dir: DataDir = None,
    images: Annotated[int, typer.Option(min=1, help="Images of the check.")] = 256,
    seed: Annotated[int, typer.Option(min=0, max=limits.MAX_SEED)] = 0,
    threads: Annotated[int, typer.Option(min=1, help="Of both runtimes, when timed.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Write a model as one file for other runtimes, checked and timed against torch."""
    with clear_errors("export"):
        if file_format not in _FORMATS:
            raise ValueError(f"format: got {file_format!r}, allowed {_FORMATS}")
        summary = _export(_Plan(model, out, batch, data, data_dir, images, seed, threads))
        if as_json:
            print_json(summary)
        else:
            _show(summary)


@dataclass(frozen=True, slots=True)
class _Plan:
    model: Path
    out: Path | None
    batch: int | None
    data: str | None
    data_dir: Path | None
    image_count: int
    seed: int
    threads: int


def _export(plan: _Plan) -> dict[str, Any]:
    import torch

    from candor.models.folder import load_model
    from candor.models.onnx.export import IR_VERSION, OPSET, export_onnx
    from candor.models.onnx.session import OnnxModel
    from candor.runtime.chunks import predict_logits

    torch.set_num_threads(plan.threads)
    loaded = load_model(plan.model)
    console().print("tracing the network, takes some seconds ...")
    content = export_onnx(loaded, batch=plan.batch)
    path = plan.out or Path(f"{loaded.card.name}.onnx")
    graph = OnnxModel(content, str(path), threads=plan.threads)
    runtimes: dict[str, Network] = {
        "torch": lambda images: predict_logits(loaded.network, images),
        "onnxruntime": graph.logits,
    }
    source, images = _images(plan, loaded.card)
    difference = _checked_difference(runtimes, images)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {
        "file": str(path),
        "bytes": len(content),
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "batch": plan.batch,
        "weights_digest": loaded.card.weights_sha256,
        "checked_on": source,
        "images": len(images),
        "largest_difference": difference,
        "threads": plan.threads,
        "milliseconds": _timed(runtimes, images, plan.batch),
    }


def _images(plan: _Plan, card: "ModelCard") -> tuple[str, Pixels]:
    """What the check runs on, in words and as (N, C, H, W): test images, or noise without them."""
    import torch

    expected = (card.input.channels, card.input.height, card.input.width)
    dataset = _test_set(plan, card)
    if dataset is None:
        generator = np.random.default_rng(plan.seed)
        noise = generator.random((plan.image_count, *expected), dtype=np.float32)
        return f"random images of seed {plan.seed}, no data set being at hand", noise
    order = np.random.default_rng(plan.seed).permutation(len(dataset))[: plan.image_count]
    images: Pixels = dataset.images(torch.from_numpy(order)).numpy()
    if images.shape[1:] != expected:
        raise ValueError(f"data: got images {images.shape[1:]}, allowed {expected}")
    return dataset.name, images


def _test_set(plan: _Plan, card: "ModelCard") -> "Images | None":
    from candor.data.registry import dataset_names

    name = plan.data or str(card.recipe.get("data"))
    if plan.data is None and name not in dataset_names():
        return None
    try:
        return open_dataset(name, "test", plan.data_dir)
    except FileNotFoundError:
        return None


def _checked_difference(runtimes: Mapping[str, Network], images: Pixels) -> float:
    """Largest absolute difference of the logits.

    Raises:
        ValueError: it is more than rounding explains.
    """
    parts = [images[start : start + _CHECK_BATCH] for start in range(0, len(images), _CHECK_BATCH)]
    torch_logits, onnx_logits = (
        np.concatenate([runtime(part) for part in parts]) for runtime in runtimes.values()
    )
    difference = float(np.abs(onnx_logits - torch_logits).max())
    allowed = _TOLERANCE * max(1.0, float(np.abs(torch_logits).max()))
    if not difference <= allowed:
        raise ValueError(f"logits differ from torch's by {difference:.2g}, allowed {allowed:.2g}")
    return difference


def _timed(
    runtimes: Mapping[str, Network], images: Pixels, batch: int | None
) -> dict[str, dict[str, float]]:
    """Median milliseconds of one call, by batch size and runtime."""
    sizes = _TIMED_BATCHES if batch is None else (batch,)
    shape = images.shape[1:]
    return {str(size): _medians(runtimes, np.resize(images, (size, *shape))) for size in sizes}


def _medians(runtimes: Mapping[str, Network], images: Pixels) -> dict[str, float]:
    """In turns, so that whatever else the machine does meets all alike."""
    for network in runtimes.values():
        network(images)
    seconds: dict[str, list[float]] = {name: [] for name in runtimes}
    end = time.perf_counter() + _TIMED_SECONDS
    rounds = 0
    while rounds < _LEAST_ROUNDS or time.perf_counter() < end:
        for name, network in runtimes.items():
            started = time.perf_counter()
            network(images)
            seconds[name].append(time.perf_counter() - started)
        rounds += 1
    return {name: round(1e3 * statistics.median(values), 3) for name, values in seconds.items()}


def _show(summary: dict[str, Any]) -> None:
    from rich.table import Table

    out = console()
    out.print(
        f"{summary['file']}: {summary['bytes']} bytes, opset {summary['opset']}, "
        f"batch {summary['batch'] or 'any'}, weights {summary['weights_digest'][:12]}"
    )
    out.print(
        f"logits within {summary['largest_difference']:.1e} of torch's on {summary['images']} "
        f"images: {summary['checked_on']}"
    )
    threads = summary["threads"]
    table = Table(title=f"median milliseconds, {threads} thread{'s' if threads > 1 else ''} each")
    for heading in ("batch", "torch", "ONNX Runtime", "torch / ONNX Runtime"):
        table.add_column(heading, justify="right")
    for size, spent in summary["milliseconds"].items():
        ratio = spent["torch"] / spent["onnxruntime"]
        table.add_row(size, *(f"{value:.2f}" for value in spent.values()), f"{ratio:.2f}")
    out.print(table)

"""Writes a model as an ONNX file, checked and timed against torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from candor.contracts.card import ModelCard
from candor.data.images import Images
from candor.data.registry import dataset_names, load_for_model
from candor.files.writing import write_file
from candor.models.agreement import logit_difference
from candor.models.folder import LoadedModel
from candor.models.onnx.export import IR_VERSION, OPSET, export_onnx
from candor.models.onnx.session import OnnxModel
from candor.models.onnx.timing import Network, Pixels, median_milliseconds

_CHECK_BATCH = 64


@dataclass(frozen=True, slots=True)
class ExportPlan:
    """What to write and what to check it with.

    Attributes:
        file: to be written.
        batch: images of every run; None for any number.
        data: data set of the check; None for the model's own.
        data_dir: of data sets; None for a cache folder of the user.
        image_count, seed: images of the check, drawn by the seed.
        threads: of both runtimes, when timed; torch's are set by the caller.
    """

    file: Path
    batch: int | None
    data: str | None
    data_dir: Path | None
    image_count: int
    seed: int
    threads: int


def write_checked(loaded: LoadedModel, plan: ExportPlan, torch_logits: Network) -> dict[str, Any]:
    """Write the file once its logits agree with torch's, and summarise both as JSON-able values.

    Args:
        torch_logits: the model's logits by torch, (B, C, H, W) float32 to (B, V) float32.
    Raises:
        ValueError: the logits differ by more than rounding explains, the data does not fit the
            model, or see `export_onnx`.
    """
    content = export_onnx(loaded, batch=plan.batch)
    graph = OnnxModel(content, str(plan.file), threads=plan.threads)
    runtimes: dict[str, Network] = {"torch": torch_logits, "onnxruntime": graph.logits}
    source, images = _images(plan, loaded.card)
    difference = _checked_difference(runtimes, images)
    write_file(plan.file, content)
    return {
        "file": str(plan.file),
        "bytes": len(content),
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "batch": plan.batch,
        "weights_digest": loaded.card.identity,
        "checked_on": source,
        "images": len(images),
        "largest_difference": difference,
        "threads": plan.threads,
        "milliseconds": median_milliseconds(runtimes, images, plan.batch),
    }


def _images(plan: ExportPlan, card: ModelCard) -> tuple[str, Pixels]:
    """What the check runs on, in words and as (N, C, H, W): test images, or noise without them."""
    expected = (card.input.channels, card.input.height, card.input.width)
    dataset = _test_set(plan, card)
    if dataset is None:
        generator = np.random.default_rng(plan.seed)
        noise = generator.random((plan.image_count, *expected), dtype=np.float32)
        return f"random images of seed {plan.seed}, no data set being at hand", noise
    order = np.random.default_rng(plan.seed).permutation(len(dataset))[: plan.image_count]
    images: Pixels = dataset.images(torch.from_numpy(order)).numpy()
    if images.shape[1:] != expected:
        raise ValueError(f"data: expected images {expected}, got {images.shape[1:]}")
    return dataset.name, images


def _test_set(plan: ExportPlan, card: ModelCard) -> Images | None:
    name = plan.data or str(card.recipe.get("data"))
    if plan.data is None and name not in dataset_names():
        return None
    try:
        return load_for_model(name, "test", plan.data_dir, card)
    except FileNotFoundError:
        if plan.data is not None:
            raise
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
    return logit_difference(onnx_logits, torch_logits)

"""One measurement of `candor ara`, from a model folder to its numbers and files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from candor.audit.plan import image_order
from candor.data.registry import load_for_model
from candor.models.folder import load_model
from candor.robustness.ara import naive_accuracy
from candor.robustness.ara_files import summary_of, write_ara
from candor.robustness.measure import AraPlan, Report, measure_ara
from candor.runtime.allocator import keep_freed_memory
from candor.runtime.preparation import compiled_for, compiling_pays

_LEAST_HELD_OUT, _MOST_HELD_OUT = 100, 1000  # images that a temperature is found on


def held_out(order: Tensor, image_count: int) -> Tensor | None:
    """Rows of images that nothing else is measured on: the next 1,000 of an order.

    Args:
        order: (N,) int64, all rows of a data set.     image_count: of its first that are measured.
    Returns:
        (M,) int64, None where fewer than 100 are left.
    """
    others = order[image_count : image_count + _MOST_HELD_OUT]
    return others if len(others) >= _LEAST_HELD_OUT else None


def measure_folder(
    model: Path,
    data: str,
    data_dir: Path | None,
    image_count: int,
    plan: AraPlan,
    *,
    out: Path | None = None,
    compiles: bool | None = None,
    report: Report = lambda name, finished, image_steps: None,
    notify: Callable[[str], None] = lambda notice: None,
) -> dict[str, Any]:
    """Measure a model on the first images of the order that the seed draws.

    Args:
        model: folder of weights and card.
        data: registered name; its test split.     data_dir: None for the user's cache.
        out: folder for `ara.json` and `radii.parquet`; None for no files.
        compiles: whether the network is compiled; None where it pays.
        report: see `measure_ara`.
        notify: called with a line for the user before a long wait.
    Returns:
        The summary, see `candor.robustness.ara_files.summary_of`.
    Raises:
        ValueError: model, data and number of images do not fit each other.
    """
    keep_freed_memory()
    loaded = load_model(model)
    card = loaded.card
    dataset = load_for_model(data, "test", data_dir, card)
    if image_count > len(dataset):
        raise ValueError(f"images: expected [2, {len(dataset)}], got {image_count}")
    order = image_order(len(dataset), plan.seed)
    chosen = order[:image_count]
    images, labels = dataset.images(chosen), dataset.labels[chosen]
    naive = naive_accuracy(dataset.labels.numpy(), len(card.classes))
    network = loaded.network
    if compiling_pays(compiles, image_count * plan.steps):
        network = compiled_for(loaded, plan.batch_size, notify=notify)
    others = held_out(order, image_count)
    measured = measure_ara(
        network,
        images,
        labels,
        plan,
        naive=naive,
        held_out=None if others is None else (dataset.images(others), dataset.labels[others]),
        report=report,
    )
    facts = {
        "model": str(model),
        "weights_digest": card.identity,
        "data": dataset.name,
        "data_digest": dataset.digest(),
        "images": image_count,
        "seed": plan.seed,
        "solver": plan.solver,
        "steps": plan.steps,
        "batch_size": plan.batch_size,
        "engine": "eager" if network is loaded.network else "compiled",
        "naive": naive,
    }
    summary = summary_of(measured, facts)
    if out is not None:
        identifiers = [dataset.identifiers[index] for index in chosen.tolist()]
        write_ara(out, summary, measured, chosen.tolist(), labels.tolist(), identifiers)
    return summary

"""The command `candor candidates`."""

import hashlib
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from candor import terms
from candor.cli.options import DataDir, DataName, open_dataset
from candor.cli.output import AsJson, clear_errors, console, print_json
from candor.cli.store_options import DEFAULT_STORE, StoreAddress, opened_store
from candor.contracts import limits

if TYPE_CHECKING:
    from torch import Tensor, nn

    from candor.annotation.candidates import OverlyConfident
    from candor.data.images import Images
    from candor.models.folder import LoadedModel
    from candor.store.candidates import CandidateWriter, NewCandidate

_BATCHES_AT_ONCE = 4  # saved together; a search that is stopped loses no more than these


def candidates(
    model: Annotated[Path, typer.Option(help="Model folder: weights and card.")],
    data: DataName = "cifar10",
    data_dir: DataDir = None,
    images: Annotated[int, typer.Option(min=1, help="Training images, drawn by the seed.")] = 1000,
    store: StoreAddress = DEFAULT_STORE,
    seed: Annotated[int, typer.Option(min=0, max=limits.MAX_SEED)] = 0,
    solver: Annotated[str, typer.Option(help=f"One of {terms.SOLVERS}.")] = terms.DEFAULT_SOLVER,
    steps: Annotated[int, typer.Option(min=1, max=limits.MAX_STEPS)] = terms.DEFAULT_STEPS,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    as_json: AsJson = False,
) -> None:
    """Overly confident adversarial images of training data, into the store for annotators.

    The same command goes on where a stopped one left off; with more --images it searches the rest.
    """
    with clear_errors("candidates"), opened_store(store) as opened:
        from candor.models.folder import load_model
        from candor.runtime.allocator import keep_freed_memory
        from candor.store.candidates import CandidateWriter, SetKey

        keep_freed_memory()
        loaded = load_model(model)
        dataset = open_dataset(data, "train", data_dir, image_size=loaded.card.input.height)
        _check(loaded, dataset, images)
        key = SetKey(
            weights_sha256=loaded.card.weights_sha256,
            data_sha256=dataset.digest(),
            solver=solver,
            steps=steps,
            seed=seed,
        )
        writer = CandidateWriter(
            opened,
            key,
            model=loaded.card.name,
            data=dataset.name,
            class_names=dataset.class_names,
        )
        known = writer.count()
        _search(_Plan(loaded.network, dataset, images, key, batch_size), writer)
        summary = {
            "images": images,
            "candidates": writer.count(),
            "new": writer.count() - known,
            "weights_digest": key.weights_sha256,
            "data_digest": key.data_sha256,
        }
        if as_json:
            print_json(summary)
        else:
            console().print(
                f"{summary['candidates']} candidates ({summary['new']} new) "
                f"of {images} images of {dataset.name}"
            )


@dataclass(frozen=True, slots=True)
class _Plan:
    network: "nn.Module"
    dataset: "Images"
    image_count: int
    key: Any
    batch_size: int


def _check(loaded: "LoadedModel", dataset: "Images", image_count: int) -> None:
    if image_count > len(dataset):
        raise ValueError(f"images: got {image_count}, allowed [1, {len(dataset)}]")
    if loaded.card.classes != dataset.class_names:
        raise ValueError(
            f"model: got one of classes {loaded.card.classes}, allowed {dataset.class_names}"
        )


def _search(plan: _Plan, writer: "CandidateWriter") -> None:
    import torch
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    from candor.annotation.candidates import overly_confident

    generator = torch.Generator().manual_seed(plan.key.seed)
    order = torch.randperm(len(plan.dataset), generator=generator)
    with Progress(
        BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), console=console()
    ) as bar:
        searched = writer.searched()
        task = bar.add_task("images", total=plan.image_count, completed=searched)
        while searched < plan.image_count:
            count = min(plan.batch_size * _BATCHES_AT_ONCE, plan.image_count - searched)
            chosen = order[searched : searched + count]
            pixels = _pixels(plan.dataset, chosen)
            found = overly_confident(
                plan.network,
                pixels,
                plan.dataset.labels[chosen],
                steps=plan.key.steps,
                solver=plan.key.solver,
                seed=plan.key.seed + searched,
                batch_size=plan.batch_size,
                report=partial(_advance, bar, task, searched),
            )
            searched += count
            writer.save(_rows(plan.dataset, chosen, pixels, found), searched)


def _advance(bar: Any, task: Any, before: int, finished: int, image_steps: int) -> None:
    bar.update(task, completed=before + finished)


def _pixels(dataset: "Images", chosen: "Tensor") -> "Tensor":
    """(B, C, H, W) uint8, as annotators are shown them."""
    import torch

    return (dataset.images(chosen) * 255.0).round().to(torch.uint8)


def _rows(
    dataset: "Images", chosen: "Tensor", pixels: "Tensor", found: "OverlyConfident"
) -> list["NewCandidate"]:
    from candor.store.candidates import NewCandidate

    rows = []
    for row, index in enumerate(chosen[found.indices].tolist()):
        original, changed = pixels[found.indices[row]].numpy(), found.pixels[row].numpy()
        rows.append(
            NewCandidate(
                data_index=index,
                identifier=dataset.identifiers[index],
                label=int(dataset.labels[index]),
                adversarial_class=int(found.classes[row]),
                margin=float(found.margins[row]),
                rmse=float(found.rmse[row]),
                original_png=_png(original),
                adversarial_png=_png(changed),
                original_sha256=_digest(original),
                adversarial_sha256=_digest(changed),
            )
        )
    return rows


def _png(pixels: np.ndarray) -> bytes:
    from candor.images.encode import encode_png

    return encode_png(pixels.astype(np.float32) / np.float32(255.0))


def _digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()

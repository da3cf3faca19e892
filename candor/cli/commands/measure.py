"""The command `candor ara`."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from candor import terms
from candor.cli.options import Compiles, DataDir, DataName, open_dataset
from candor.cli.output import AsJson, clear_errors, console, print_json
from candor.contracts import limits
from candor.contracts.card import MetricCard
from candor.runtime.preparation import compiled_for, compiling_pays
from candor.terms import Goal, SearchStatus

if TYPE_CHECKING:
    from torch import Tensor, nn

    from candor.data.images import Images
    from candor.models.folder import LoadedModel
    from candor.search.result import SearchResult

_GOALS = {"attack_ara": Goal.ATTACK, "btr_ara": Goal.BTR}


def ara(
    model: Annotated[Path, typer.Option(help="Model folder: weights and card.")],
    data: DataName = "cifar10",
    data_dir: DataDir = None,
    images: Annotated[int, typer.Option(min=2, help="Test images, drawn by the seed.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, max=limits.MAX_SEED)] = 0,
    solver: Annotated[str, typer.Option(help=f"One of {terms.SOLVERS}.")] = "paper",
    steps: Annotated[
        int | None, typer.Option(min=1, max=limits.MAX_STEPS, help="Default: the solver's.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    compiles: Compiles = None,
    out: Annotated[Path | None, typer.Option(help="Folder for ara.json and radii.parquet.")] = None,
    record: Annotated[bool, typer.Option("--record", help="Write the result to the card.")] = False,
    as_json: AsJson = False,
) -> None:
    """Accuracy, attack ARA and BTR ARA of a model on test images, with 95 % intervals."""
    with clear_errors("ara"):
        steps = terms.default_steps(solver, explains=False) if steps is None else steps
        plan = _Plan(model, data, data_dir, images, seed, solver, steps, batch_size, compiles)
        _measure(plan, out, record, as_json)


@dataclass(frozen=True, slots=True)
class _Plan:
    model: Path
    data: str
    data_dir: Path | None
    image_count: int
    seed: int
    solver: str
    steps: int
    batch_size: int
    compiles: bool | None


@dataclass(frozen=True, slots=True)
class _Measured:
    """One goal over all images."""

    result: "SearchResult"
    seconds: float
    image_steps: int


def _measure(plan: _Plan, out: Path | None, record: bool, as_json: bool) -> None:
    import torch

    from candor.models.folder import load_model, record_metrics
    from candor.robustness.ara import naive_accuracy
    from candor.runtime.allocator import keep_freed_memory

    keep_freed_memory()
    loaded = load_model(plan.model)
    card = loaded.card
    dataset = open_dataset(plan.data, "test", plan.data_dir, image_size=card.input.height)
    _check_classes(dataset.class_names, card.classes)
    _check_count(plan.image_count, len(dataset))
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(plan.seed))
    chosen = order[: plan.image_count]
    images, labels = dataset.images(chosen), dataset.labels[chosen]
    naive = naive_accuracy(dataset.labels.numpy(), len(dataset.class_names))
    network = _network(loaded, plan)
    measured = {name: _search(network, images, labels, goal, plan) for name, goal in _GOALS.items()}
    summary = _summary(plan, dataset, labels, measured, naive, card.weights_sha256)
    if out is not None:
        _write(out, summary, dataset, chosen, measured)
    if record:
        record_metrics(plan.model, _metric_cards(summary, plan, dataset.name))
    if as_json:
        print_json(summary)
    else:
        _show(summary)


def _network(loaded: "LoadedModel", plan: _Plan) -> "nn.Module":
    """Compiled for full batches and for the last ones, where that pays."""
    if not compiling_pays(plan.compiles, plan.image_count * plan.steps):
        return loaded.network
    return compiled_for(loaded, plan.batch_size, notify=console().print)


def _check_count(count: int, available: int) -> None:
    if count > available:
        raise ValueError(f"images: got {count}, allowed [2, {available}]")


def _check_classes(got: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    if got != allowed:
        raise ValueError(
            f"data: got {len(got)} classes from {got[0]!r} to {got[-1]!r}, allowed the model's "
            f"{len(allowed)} from {allowed[0]!r} to {allowed[-1]!r}"
        )


def _search(
    network: "nn.Module", images: "Tensor", labels: "Tensor", goal: Goal, plan: _Plan
) -> _Measured:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from candor.runtime.threads import in_shares
    from candor.search.batch import plan_goal, run_searches

    started = time.monotonic()
    steps_done = 0
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console()) as bar:
        task = bar.add_task(str(goal), total=len(labels) * plan.steps)

        def report(finished: int, image_steps: int) -> None:
            nonlocal steps_done
            steps_done = image_steps
            # Searches that ended early count as whole, so that the bar reaches its end.
            bar.update(task, completed=max(image_steps, finished * plan.steps))

        result = run_searches(
            network,
            images,
            plan_goal(goal, labels, steps=plan.steps, seed=plan.seed),
            solver=plan.solver,
            batch_size=plan.batch_size,
            report=report,
            execute=in_shares,
        )
    return _Measured(result, time.monotonic() - started, steps_done)


def _radii(result: "SearchResult") -> tuple[np.ndarray, np.ndarray]:
    """(N,) float64 radii, lower bounds where unresolved, and (N,) bool unresolved."""
    unresolved = np.array([status is SearchStatus.UNRESOLVED for status in result.statuses])
    return np.where(unresolved, result.lower_bounds.numpy(), result.rmse.numpy()), unresolved


def _summary(
    plan: _Plan,
    dataset: "Images",
    labels: "Tensor",
    measured: dict[str, _Measured],
    naive: float,
    digest: str,
) -> dict[str, Any]:
    from candor.robustness.ara import accuracy_interval, accuracy_robustness_area

    correct = measured["attack_ara"].result.logits_before.argmax(1) == labels
    interval = accuracy_interval(int(correct.sum()), len(labels))
    summary: dict[str, Any] = {
        "model": str(plan.model),
        "weights_digest": digest,
        "data": dataset.name,
        "data_digest": dataset.digest(),
        "images": len(labels),
        "seed": plan.seed,
        "solver": plan.solver,
        "steps": plan.steps,
        "naive": naive,
        "accuracy": interval.value,
        "accuracy_low": interval.low,
        "accuracy_high": interval.high,
    }
    for name, goal in measured.items():
        radii, unresolved = _radii(goal.result)
        area = accuracy_robustness_area(
            radii,
            naive=naive,
            generator=np.random.default_rng(plan.seed),
            is_unresolved=unresolved,
        )
        summary[name] = {
            "value": area.value,
            "low": area.low,
            "high": area.high,
            "unresolved": area.unresolved_count,
            "median_radius": float(np.median(radii)),
            "seconds": round(goal.seconds, 3),
            "image_steps": goal.image_steps,
        }
    return summary


def _write(
    out: Path,
    summary: dict[str, Any],
    dataset: "Images",
    chosen: "Tensor",
    measured: dict[str, _Measured],
) -> None:
    import json

    import pyarrow as pa
    import pyarrow.parquet as pq

    out.mkdir(parents=True, exist_ok=True)
    (out / "ara.json").write_text(json.dumps(summary, indent=2) + "\n")
    columns: dict[str, list[Any]] = {
        name: [] for name in ("image_path", "index", "label", "goal", "radius", "status")
    }
    indices = chosen.tolist()
    for name, goal in measured.items():
        radii, _ = _radii(goal.result)
        columns["image_path"] += [dataset.identifiers[index] for index in indices]
        columns["index"] += indices
        columns["label"] += dataset.labels[chosen].tolist()
        columns["goal"] += [str(_GOALS[name])] * len(indices)
        columns["radius"] += radii.tolist()
        columns["status"] += [str(status) for status in goal.result.statuses]
    pq.write_table(pa.table(columns), out / "radii.parquet")


def _metric_cards(summary: dict[str, Any], plan: _Plan, data: str) -> list[MetricCard]:
    method = (
        f"candor ara --data {plan.data} --images {plan.image_count} --seed {plan.seed} "
        f"--solver {plan.solver} --steps {plan.steps}"
    )
    rows = {"accuracy": _accuracy_row(summary)} | {name: summary[name] for name in _GOALS}
    return [
        MetricCard(
            name=name,
            value=row["value"],
            low=row["low"],
            high=row["high"],
            image_count=plan.image_count,
            data=data,
            method=method,
        )
        for name, row in rows.items()
    ]


def _accuracy_row(summary: dict[str, Any]) -> dict[str, Any]:
    names = {"value": "accuracy", "low": "accuracy_low", "high": "accuracy_high"}
    return {key: summary[name] for key, name in names.items()}


def _show(summary: dict[str, Any]) -> None:
    from rich.table import Table

    table = Table(title=f"{summary['model']} on {summary['images']} images of {summary['data']}")
    for heading in ("measure", "value", "95 % interval", "unresolved", "image-steps", "seconds"):
        table.add_column(heading)
    accuracy = _accuracy_row(summary)
    table.add_row("accuracy", f"{accuracy['value']:.4f}", _interval(accuracy), "", "", "")
    for name in _GOALS:
        row = summary[name]
        table.add_row(
            name,
            f"{row['value']:.5f}",
            _interval(row),
            str(row["unresolved"]),
            str(row["image_steps"]),
            f"{row['seconds']:.1f}",
        )
    console().print(table)


def _interval(row: dict[str, Any]) -> str:
    return f"{row['low']:.4f} to {row['high']:.4f}"

"""Searches that travel: numpy items in, numpy answers out.

What a handler calls.  The gateway keeps the arrays between calls and does not look inside.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from candor.contracts.card import ModelCard
from candor.contracts.worker import ItemError, SearchEnd, SearchItem, SearchProgress
from candor.search.goals import goal_code
from candor.search.result import SearchResult, finish
from candor.search.solvers import SOLVERS, Solver
from candor.search.state import SearchState, begin

Arrays = Mapping[str, NDArray[Any]]
# A batch's field by the name that one search's array has on the wire.
_FIELDS = {"delta": "deltas", "velocity": "velocities", "best": "best_images"}


def check_item(card: ModelCard, item: SearchItem, arrays: Arrays) -> ItemError | None:
    """Why this item does not fit the model of ``card``, or None where it does."""
    problem = check_target(card, item.target)
    if problem is not None:
        return problem
    if item.solver not in SOLVERS:
        return ItemError(field="solver", message=f"got {item.solver!r}, allowed {tuple(SOLVERS)}")
    problem = check_image(card, arrays)
    if problem is not None or item.step == 0:
        return problem
    shape = (card.input.channels, card.input.height, card.input.width)
    solver = SOLVERS[item.solver]
    expected = dict.fromkeys(solver.images, shape) | {"numbers": (len(solver.numbers),)}
    for name, allowed_shape in expected.items():
        dtype = np.float64 if name == "numbers" else np.float32
        array = arrays.get(name)
        if array is None or array.shape != allowed_shape or array.dtype != dtype:
            got = "nothing" if array is None else f"{array.shape} {array.dtype}"
            allowed = f"{allowed_shape} {np.dtype(dtype)}"
            return ItemError(field=name, message=f"got {got}, allowed {allowed}")
    return None


def check_target(card: ModelCard, target: int) -> ItemError | None:
    """Why the model of ``card`` has no such class, or None where it has."""
    if target < card.network.class_count:
        return None
    allowed = f"[0, {card.network.class_count - 1}]"
    return ItemError(field="target", message=f"got {target}, allowed {allowed}")


def check_image(card: ModelCard, arrays: Arrays, name: str = "image") -> ItemError | None:
    """Why array ``name`` does not fit the model of ``card``, or None where it does."""
    shape = (card.input.channels, card.input.height, card.input.width)
    image = arrays.get(name)
    if image is None or image.shape != shape or image.dtype != np.float32:
        got = "nothing" if image is None else f"{image.shape} {image.dtype}"
        return ItemError(field=name, message=f"got {got}, allowed {shape} float32")
    # NaN fails this comparison too.
    if not bool(((image >= 0) & (image <= 1)).all()):
        return ItemError(field=name, message="got values outside [0, 1] or NaN, allowed [0, 1]")
    return None


@torch.no_grad()
def predict_logits(network: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (B, V) float32 of images (B, C, H, W) float32 in [0, 1]."""
    logits: Tensor = network(torch.from_numpy(images).to(next(network.parameters()).device))
    return logits.cpu().numpy()


def advance_items(
    network: nn.Module,
    items: Sequence[tuple[SearchItem, Arrays]],
    *,
    searcher: nn.Module | None = None,
) -> list[tuple[SearchProgress | SearchEnd, dict[str, NDArray[Any]]]]:
    """Take every search ``chunk_steps`` on; those that end come back verified.

    Args:
        network: in evaluation mode, float32; verifies what ends.
        items: each one passed `check_item`.
        searcher: takes the steps; the same network, possibly in low precision.
    Returns:
        One answer an item, in order; see `candor.contracts.worker`.
    """
    answers: dict[int, tuple[SearchProgress | SearchEnd, dict[str, NDArray[Any]]]] = {}
    groups: dict[tuple[str, int], list[int]] = {}
    for index, (item, _) in enumerate(items):
        groups.setdefault((item.solver, item.chunk_steps), []).append(index)
    for (solver_name, chunk_steps), indices in groups.items():
        solver = SOLVERS[solver_name]
        state = _state([items[index] for index in indices], solver, network)
        state = solver.advance(searcher or network, state, chunk_steps)
        is_done = solver.is_finished(state)
        if chunk_steps == 0:
            is_done = torch.ones_like(is_done)
        if bool(is_done.any()):
            ended = finish(network, state.select(is_done))
            done_indices = [index for index, done in zip(indices, is_done, strict=True) if done]
            for position, index in enumerate(done_indices):
                answers[index] = _end(ended, position, solver_name)
        for index, progress in zip(indices, _progress(state, solver), strict=True):
            answers.setdefault(index, progress)
    return [answers[index] for index in range(len(items))]


def _state(
    items: Sequence[tuple[SearchItem, Arrays]], solver: Solver, network: nn.Module
) -> SearchState:
    """All ``items`` as one batch, each where it was left."""
    device = next(network.parameters()).device
    fresh = begin(
        _stacked([arrays["image"] for _, arrays in items], device),
        goals=torch.tensor([goal_code(item.goal) for item, _ in items], device=device),
        targets=torch.tensor([item.target for item, _ in items], device=device),
        rhos=torch.tensor([item.rho for item, _ in items], dtype=torch.float64, device=device),
        step_counts=torch.tensor([item.step_count for item, _ in items], device=device),
        seeds=torch.tensor([item.seed for item, _ in items], device=device),
    )
    places = [place for place, (item, _) in enumerate(items) if item.step > 0]
    if not places:
        return fresh
    left = [items[place][1] for place in places]
    carried = {
        _FIELDS[name]: _stacked([arrays[name] for arrays in left], device) for name in solver.images
    }
    numbers = _stacked([arrays["numbers"] for arrays in left], device)
    carried |= dict(zip(solver.numbers, numbers.unbind(1), strict=True))
    rows = torch.tensor(places, device=device)
    merged = {}
    for name, values in carried.items():
        begun = getattr(fresh, name)
        merged[name] = begun.index_copy(0, rows, values.to(begun.dtype))
    steps = torch.tensor([item.step for item, _ in items], device=device)
    return replace(fresh, steps=steps, **merged)


def _progress(
    state: SearchState, solver: Solver
) -> Iterator[tuple[SearchProgress, dict[str, NDArray[Any]]]]:
    """What every search of the batch says of itself, and what it takes along but the image."""
    pictures = {name: getattr(state, _FIELDS[name]).cpu().numpy() for name in solver.images}
    fields = [getattr(state, name).to(torch.float64) for name in solver.numbers]
    numbers = torch.stack(fields, dim=1).cpu().numpy()
    confidences = torch.special.expit(state.best_score).tolist()
    rows = zip(state.steps.tolist(), state.best_rmse.tolist(), confidences, strict=True)
    for place, (step, best_rmse, confidence) in enumerate(rows):
        has_best = math.isfinite(best_rmse)
        progress = SearchProgress(
            step=step,
            best_rmse=best_rmse if has_best else None,
            best_confidence=confidence if has_best else None,
        )
        arrays = {name: values[place] for name, values in pictures.items()}
        yield progress, arrays | {"numbers": numbers[place]}


def _end(
    result: SearchResult, position: int, solver: str
) -> tuple[SearchEnd, dict[str, NDArray[Any]]]:
    lower = float(result.lower_bounds[position])
    end = SearchEnd(
        status=result.statuses[position],
        rmse=float(result.rmse[position]),
        lower_bound=None if np.isnan(lower) else lower,
        steps=int(result.steps[position]),
        solver=solver,
    )
    return end, {
        "image": result.images[position].cpu().numpy(),
        "logits_before": result.logits_before[position].cpu().numpy(),
        "logits_after": result.logits_after[position].cpu().numpy(),
    }


def _stacked(arrays: Sequence[NDArray[Any]], device: torch.device) -> Tensor:
    """A copy: arrays off the wire are read-only views."""
    return torch.from_numpy(np.stack(arrays)).to(device)

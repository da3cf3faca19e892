"""Searches that travel: numpy items in, numpy answers out.  Imports contracts, siblings, torch.

What a handler calls.  The gateway keeps the arrays between calls and does not look inside.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import special
from torch import Tensor, nn

from candor.contracts.card import ModelCard
from candor.contracts.worker import ItemError, SearchEnd, SearchItem, SearchProgress
from candor.search.goals import goal_code
from candor.search.outcome import SearchResult, finish
from candor.search.solvers import SOLVERS, Solver
from candor.search.state import SearchState, begin, concatenate

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
    expected = dict.fromkeys(solver.pictures, shape) | {"numbers": (len(solver.numbers),)}
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
    logits: Tensor = network(_tensor(images, network))
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
        state = concatenate([_state(*items[index], network) for index in indices])
        state = solver.advance(searcher or network, state, chunk_steps)
        is_done = solver.is_finished(state)
        if chunk_steps == 0:
            is_done = torch.ones_like(is_done)
        if bool(is_done.any()):
            ended = finish(network, state.select(is_done))
            done_indices = [index for index, done in zip(indices, is_done, strict=True) if done]
            for position, index in enumerate(done_indices):
                answers[index] = _end(ended, position, solver_name)
        for position, index in enumerate(indices):
            if index not in answers:
                answers[index] = _progress(state, position, solver)
    return [answers[index] for index in range(len(items))]


def _state(item: SearchItem, arrays: Arrays, network: nn.Module) -> SearchState:
    images = _tensor(arrays["image"], network)[None]
    device = images.device
    fresh = begin(
        images,
        goals=torch.tensor([goal_code(item.goal)], device=device),
        targets=torch.tensor([item.target], device=device),
        rhos=torch.tensor([item.rho], dtype=torch.float64, device=device),
        step_counts=torch.tensor([item.step_count], device=device),
        seeds=torch.tensor([item.seed], device=device),
    )
    if item.step == 0:
        return fresh
    solver = SOLVERS[item.solver]
    carried = {_FIELDS[name]: _tensor(arrays[name], network)[None] for name in solver.pictures}
    for name, value in zip(solver.numbers, arrays["numbers"], strict=True):
        carried[name] = torch.tensor([value], dtype=getattr(fresh, name).dtype, device=device)
    return replace(fresh, steps=torch.tensor([item.step], device=device), **carried)


def _progress(
    state: SearchState, position: int, solver: Solver
) -> tuple[SearchProgress, dict[str, NDArray[Any]]]:
    best_rmse = float(state.best_rmse[position])
    has_best = bool(np.isfinite(best_rmse))
    arrays = {"image": state.images[position].cpu().numpy()}
    for name in solver.pictures:
        arrays[name] = getattr(state, _FIELDS[name])[position].cpu().numpy()
    numbers = [float(getattr(state, name)[position]) for name in solver.numbers]
    arrays["numbers"] = np.array(numbers, dtype=np.float64)
    progress = SearchProgress(
        step=int(state.steps[position]),
        best_rmse=best_rmse if has_best else None,
        best_confidence=float(special.expit(float(state.best_score[position])))
        if has_best
        else None,
    )
    return progress, arrays


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


def _tensor(array: NDArray[Any], network: nn.Module) -> Tensor:
    device = next(network.parameters()).device
    # A copy: arrays off the wire are read-only views.
    return torch.tensor(array, device=device)

"""Searches in chunks of steps, whose state travels: numpy items in, numpy responses out.

A handler calls this.  The gateway keeps the arrays between two chunks and does not look inside.
Items are checked once, by `check_item`; the functions that compute them rely on that.
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
from candor.runtime.threads import in_shares
from candor.search.goals import EXPLANATIONS, goal_code, norm_code
from candor.search.network import checked
from candor.search.result import SearchResult, finish
from candor.search.solvers import SOLVERS, Solver
from candor.search.state import SearchState, begin_checked
from candor.terms import Norm

Arrays = Mapping[str, NDArray[Any]]
# What one search has to say after a chunk, and its arrays on the wire.
Response = tuple[SearchProgress | SearchEnd, dict[str, NDArray[Any]]]
# The name on the wire of what one search carries, by the field of the batch.
_WIRE_NAMES = {"deltas": "delta", "velocities": "velocity", "best_images": "best"}
_NUMBERS = "numbers"
_MASK = "mask"


def check_item(card: ModelCard, item: SearchItem, arrays: Arrays) -> ItemError | None:
    """Why this item does not fit the model of ``card``, or None where it does."""
    problem = check_target(card, item.target) or _check_solver(item.solver)
    problem = problem or _check_explanation(card, item)
    problem = problem or check_image(card, arrays) or _check_mask(card, arrays)
    if problem is not None or item.step == 0:
        return problem
    return _check_carried(card, SOLVERS[item.solver], arrays)


def check_target(card: ModelCard, target: int) -> ItemError | None:
    """Why the model of ``card`` has no such class, or None where it has."""
    return _check_class(card, "target", target)


def _check_class(card: ModelCard, field: str, index: int) -> ItemError | None:
    if index < card.network.class_count:
        return None
    expected = f"[0, {card.network.class_count - 1}]"
    return ItemError(field=field, message=f"expected {expected}, got {index}")


def check_image(card: ModelCard, arrays: Arrays, name: str = "image") -> ItemError | None:
    """Why array ``name`` does not fit the model of ``card``, or None where it does.

    The only check of the pixels' range on their way to the network.
    """
    problem = _check_array(arrays, name, _image_shape(card), np.float32)
    # NaN fails this comparison too.
    if problem is None and not bool(((arrays[name] >= 0) & (arrays[name] <= 1)).all()):
        return ItemError(field=name, message="expected values in [0, 1], got others or NaN")
    return problem


def _check_solver(name: str) -> ItemError | None:
    if name in SOLVERS:
        return None
    return ItemError(field="solver", message=f"expected one of {tuple(SOLVERS)}, got {name!r}")


def _check_explanation(card: ModelCard, item: SearchItem) -> ItemError | None:
    """Why norm and contrast do not fit the goal and the model, or None where they do."""
    away_from = item.away_from
    if item.goal in EXPLANATIONS:
        if away_from is None:
            return None
        if away_from == item.target:
            message = f"expected another class than the target, got {away_from}"
            return ItemError(field="away_from", message=message)
        return _check_class(card, "away_from", away_from)
    if item.norm is not Norm.L2:
        message = f"expected 'l2' for goal {item.goal.value!r}, got {item.norm.value!r}"
        return ItemError(field="norm", message=message)
    if away_from is not None:
        message = f"expected none for goal {item.goal.value!r}, got {away_from}"
        return ItemError(field="away_from", message=message)
    return None


def _check_mask(card: ModelCard, arrays: Arrays) -> ItemError | None:
    """Why the mask is none for this model, or None where it is or there is none."""
    mask = arrays.get(_MASK)
    if mask is None:
        return None
    problem = _check_array(arrays, _MASK, _image_shape(card)[1:], np.float32)
    if problem is not None:
        return problem
    if not bool(((mask >= 0) & (mask <= 1)).all()):
        return ItemError(field=_MASK, message="expected values in [0, 1], got others or NaN")
    if not mask.any():
        return ItemError(field=_MASK, message="expected values above 0, got zeros alone")
    return None


def _check_carried(card: ModelCard, solver: Solver, arrays: Arrays) -> ItemError | None:
    """Why these are not what a search of ``solver`` carries, or None where they are."""
    problems = [
        _check_array(arrays, _WIRE_NAMES[name], _image_shape(card), np.float32)
        for name in solver.carried_images
    ]
    problems.append(_check_array(arrays, _NUMBERS, (len(solver.carried_numbers),), np.float64))
    return next(filter(None, problems), None)


def _check_array(
    arrays: Arrays, name: str, shape: tuple[int, ...], dtype: type[np.floating[Any]]
) -> ItemError | None:
    array = arrays.get(name)
    if array is not None and array.shape == shape and array.dtype == dtype:
        return None
    got = "nothing" if array is None else f"{array.shape} {array.dtype}"
    return ItemError(field=name, message=f"expected {shape} {np.dtype(dtype)}, got {got}")


def _image_shape(card: ModelCard) -> tuple[int, int, int]:
    return card.input.channels, card.input.height, card.input.width


@torch.no_grad()
def predict_logits(network: nn.Module, images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logits (B, V) float32 of images (B, C, H, W) float32 in [0, 1].

    Raises:
        NotFinite: a logit is infinite or NaN.
    """
    logits: Tensor = checked(network)(
        torch.from_numpy(images).to(next(network.parameters()).device)
    )
    return logits.cpu().numpy()


def advance_items(
    network: nn.Module,
    items: Sequence[tuple[SearchItem, Arrays]],
    *,
    searcher: nn.Module | None = None,
) -> list[Response]:
    """Take every search ``chunk_steps`` on; those that end come back verified.

    Args:
        network: in evaluation mode, float32; verifies what ends.
        items: each one passed `check_item`.
        searcher: takes the steps; default ``network``, or the same in low precision.
    Returns:
        One response for each item, in order; see `candor.contracts.worker`.
    Raises:
        NotFinite: the network answers one of the items with infinite numbers or NaN.
    """
    network, searcher = checked(network), checked(searcher or network)
    responses: dict[int, Response] = {}
    groups: dict[tuple[str, int], list[int]] = {}
    for index, (item, _) in enumerate(items):
        groups.setdefault((item.solver, item.chunk_steps), []).append(index)
    for (solver, chunk_steps), indices in groups.items():
        group = [items[index] for index in indices]
        advanced = _advanced(network, group, solver, chunk_steps, searcher)
        responses |= zip(indices, advanced, strict=True)
    return [responses[index] for index in range(len(items))]


def _advanced(
    network: nn.Module,
    items: Sequence[tuple[SearchItem, Arrays]],
    solver_name: str,
    chunk_steps: int,
    searcher: nn.Module,
) -> list[Response]:
    """`advance_items` for items of one solver and one number of steps."""
    solver = SOLVERS[solver_name]
    state = _batch_of(items, solver, network)
    state = solver.advance(searcher, state, chunk_steps, execute=in_shares)
    is_done = solver.is_finished(state)
    if chunk_steps == 0:
        is_done = torch.ones_like(is_done)
    responses = list(_progress(network, state, solver))
    if bool(is_done.any()):
        result = finish(network, state.select(is_done))
        done = [place for place, has_ended in enumerate(is_done.tolist()) if has_ended]
        for position, place in enumerate(done):
            responses[place] = _end(
                result, position, solver_name, has_mask=_MASK in items[place][1]
            )
    return responses


def _batch_of(
    items: Sequence[tuple[SearchItem, Arrays]], solver: Solver, network: nn.Module
) -> SearchState:
    """All ``items`` as one batch, each where its last chunk left it."""
    device = next(network.parameters()).device
    fresh = begin_checked(
        _stacked([arrays["image"] for _, arrays in items], device),
        goals=torch.tensor([goal_code(item.goal) for item, _ in items], device=device),
        targets=torch.tensor([item.target for item, _ in items], device=device),
        rhos=torch.tensor([item.rho for item, _ in items], dtype=torch.float64, device=device),
        step_counts=torch.tensor([item.step_count for item, _ in items], device=device),
        seeds=torch.tensor([item.seed for item, _ in items], device=device),
        **_asked(items, device),
    )
    places = [place for place, (item, _) in enumerate(items) if item.step > 0]
    if not places:
        return fresh
    carried = _carried([items[place][1] for place in places], solver, device)
    rows = torch.tensor(places, device=device)
    merged = {}
    for name, values in carried.items():
        begun = getattr(fresh, name)
        merged[name] = begun.index_copy(0, rows, values.to(begun.dtype))
    steps = torch.tensor([item.step for item, _ in items], device=device)
    return replace(fresh, steps=steps, **merged)


def _asked(items: Sequence[tuple[SearchItem, Arrays]], device: torch.device) -> dict[str, Tensor]:
    """Masks, norms and classes to move away from, each where an item of the batch asks for one."""
    asked = {}
    if any(_MASK in arrays for _, arrays in items):
        everywhere = np.ones(items[0][1]["image"].shape[1:], np.float32)
        asked["masks"] = _stacked([arrays.get(_MASK, everywhere) for _, arrays in items], device)
    if any(item.norm is not Norm.L2 for item, _ in items):
        codes = [norm_code(item.norm) for item, _ in items]
        asked["norms"] = torch.tensor(codes, device=device)
    if any(item.away_from is not None for item, _ in items):
        classes = [-1 if item.away_from is None else item.away_from for item, _ in items]
        asked["away_from"] = torch.tensor(classes, device=device)
    return asked


def _carried(left: Sequence[Arrays], solver: Solver, device: torch.device) -> dict[str, Tensor]:
    """Fields of a batch, from what each search carried out of its last chunk."""
    carried = {
        name: _stacked([arrays[_WIRE_NAMES[name]] for arrays in left], device)
        for name in solver.carried_images
    }
    numbers = _stacked([arrays[_NUMBERS] for arrays in left], device)
    return carried | dict(zip(solver.carried_numbers, numbers.unbind(1), strict=True))


def _progress(network: nn.Module, state: SearchState, solver: Solver) -> Iterator[Response]:
    """How far each search of the batch is, and what it carries into its next chunk."""
    images = {
        _WIRE_NAMES[name]: getattr(state, name).cpu().numpy() for name in solver.carried_images
    }
    fields = [getattr(state, name).to(torch.float64) for name in solver.carried_numbers]
    numbers = torch.stack(fields, dim=1).cpu().numpy()
    confidences = _best_confidences(network, state).tolist()
    rows = zip(state.steps.tolist(), state.best_rmse.tolist(), confidences, strict=True)
    for place, (step, best_rmse, confidence) in enumerate(rows):
        has_best = math.isfinite(best_rmse)
        progress = SearchProgress(
            step=step,
            best_rmse=best_rmse if has_best else None,
            best_confidence=confidence if has_best else None,
        )
        arrays = {name: values[place] for name, values in images.items()}
        yield progress, arrays | {_NUMBERS: numbers[place]}


@torch.no_grad()
def _best_confidences(network: nn.Module, state: SearchState) -> Tensor:
    """(B,) the target's confidence on the best image; the score of a contrast has to be asked."""
    confidences: Tensor = torch.special.expit(state.best_score)
    if state.away_from is None:
        return confidences
    rows = (state.away_from >= 0).nonzero()[:, 0]
    shares = network(state.best_images[rows]).double().softmax(dim=1)
    return confidences.index_copy(0, rows, shares.gather(1, state.targets[rows, None])[:, 0])


def _end(result: SearchResult, position: int, solver: str, *, has_mask: bool) -> Response:
    """The end of the search at ``position`` of a verified batch."""
    lower = float(result.lower_bounds[position])
    end = SearchEnd(
        status=result.statuses[position],
        rmse=float(result.rmse[position]),
        lower_bound=None if np.isnan(lower) else lower,
        steps=int(result.steps[position]),
        solver=solver,
        rho_1=float(result.rho_1[position]),
        rho_1_5=float(result.rho_1_5[position]),
        rho_inf=float(result.rho_inf[position]),
        rmse_inside=float(result.rmse_inside[position]) if has_mask else None,
        sparsity=float(result.sparsity[position]),
    )
    return end, {
        "image": result.images[position].cpu().numpy(),
        "logits_before": result.logits_before[position].cpu().numpy(),
        "logits_after": result.logits_after[position].cpu().numpy(),
    }


def _stacked(arrays: Sequence[NDArray[Any]], device: torch.device) -> Tensor:
    """A copy: arrays off the wire are read-only views."""
    return torch.from_numpy(np.stack(arrays)).to(device)

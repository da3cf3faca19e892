"""How a finished search ends: verified in float32, inside rho.  Imports siblings and torch."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from candor.contracts.api import SearchStatus
from candor.search.goals import ascent_sign, is_explanation, log_odds, output_condition
from candor.search.paper import is_already_wrong
from candor.search.state import SearchState, rmse

# A point on the boundary may fall back over it when it is evaluated in another batch; it is moved
# outward by these factors until it holds.
_NUDGES = (1.0, 1.0005, 1.002, 1.01)
_BISECTIONS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Verified ends of a batch of searches.

    Attributes:
        images: (B, C, H, W) float32 in [0, 1]; the last picture tried where unresolved.
        rmse: (B,) float64 between ``images`` and the pictures as they came.
        lower_bounds: (B,) float64, NaN unless unresolved: largest RMSE visited without the goal.
        statuses: one `SearchStatus` a search.
        steps: (B,) int64 steps taken.
        logits_before, logits_after: (B, V) float32.
    """

    images: Tensor
    rmse: Tensor
    lower_bounds: Tensor
    statuses: tuple[SearchStatus, ...]
    steps: Tensor
    logits_before: Tensor
    logits_after: Tensor

    def __len__(self) -> int:
        return len(self.statuses)


def join_results(results: Sequence[SearchResult], order: Sequence[int]) -> SearchResult:
    """Results of several batches as one, search i of the whole at position ``order[i]``."""
    statuses = [status for result in results for status in result.statuses]
    tensors = {
        field.name: torch.cat([getattr(result, field.name) for result in results])[list(order)]
        for field in fields(SearchResult)
        if field.name != "statuses"
    }
    return SearchResult(statuses=tuple(statuses[index] for index in order), **tensors)


@torch.no_grad()
def finish(network: nn.Module, state: SearchState) -> SearchResult:
    """Evaluate every search's best picture anew and settle its status.

    Attack, BTR, confident: found when the goal holds for the picture returned, already wrong when
    it held for the picture as it came, else unresolved.  Explanations: the best of three pictures
    inside rho (best visited, the same direction drawn out to rho, the last one drawn to rho); found
    when s_t moved the way it was asked to.

    Args:
        network: in evaluation mode, float32.
        state: searches that `is_finished` or that are to end where they are.
    """
    logits_before = network(state.images)
    is_explained = is_explanation(state.goals)
    images, is_found = state.best_images.clone(), torch.zeros_like(is_explained)
    if bool(is_explained.any()):
        images[is_explained], is_found[is_explained] = _explained(
            network, state.select(is_explained), logits_before[is_explained]
        )
    if not bool(is_explained.all()):
        others = ~is_explained
        images[others], is_found[others] = _minimal(network, state.select(others))
    already_wrong = is_already_wrong(state)
    lower = torch.where(is_found | already_wrong, torch.nan, state.largest_rmse)
    return SearchResult(
        images=images,
        rmse=rmse(images, state.images),
        lower_bounds=lower,
        statuses=tuple(map(_status, is_found.tolist(), already_wrong.tolist())),
        steps=state.steps,
        logits_before=logits_before,
        logits_after=network(images),
    )


def draw_to_rho(images: Tensor, originals: Tensor, rhos: Tensor) -> Tensor:
    """Scale each perturbation so that its RMSE after clipping is rho, never above it.

    Bisection over the scale, because clipping makes the RMSE a non-linear function of it.  A
    perturbation of zero stays; one that cannot reach rho inside the box ends at scale 2^10.

    Args:
        images, originals: (B, C, H, W) float32 in [0, 1].      rhos: (B,) float64.
    """
    deltas = images - originals
    low = torch.zeros_like(rhos)
    high = (2.0 * rhos / rmse(images, originals).clamp_min(1e-12)).clamp(1.0, 1024.0)
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        is_inside = rmse(_scaled(originals, deltas, middle), originals) <= rhos
        low = torch.where(is_inside, middle, low)
        high = torch.where(is_inside, high, middle)
    return _scaled(originals, deltas, low)


def _scaled(originals: Tensor, deltas: Tensor, scales: Tensor) -> Tensor:
    factors = scales.to(deltas.dtype)[:, None, None, None]
    return (originals + factors * deltas).clamp(0.0, 1.0)


def _explained(
    network: nn.Module, state: SearchState, logits_before: Tensor
) -> tuple[Tensor, Tensor]:
    """Best picture inside rho of each explanation, and whether s_t moved as asked."""
    last = (state.images + state.deltas).clamp(0.0, 1.0)
    sign = ascent_sign(state.goals)
    best_images, best_gain = state.images, torch.zeros_like(sign)
    before = log_odds(logits_before, state.targets)
    for candidate in (
        state.best_images,
        draw_to_rho(state.best_images, state.images, state.rhos),
        draw_to_rho(last, state.images, state.rhos),
    ):
        gain = sign * (log_odds(network(candidate), state.targets) - before)
        # A tie goes to the picture nearer to rho, which is what was asked.
        is_better = gain >= best_gain
        best_images = torch.where(is_better[:, None, None, None], candidate, best_images)
        best_gain = torch.where(is_better, gain, best_gain)
    return best_images, best_gain > 0


def _minimal(network: nn.Module, state: SearchState) -> tuple[Tensor, Tensor]:
    """Smallest verified picture of each attack, and whether there is one that is not distance 0."""
    deltas = state.best_images - state.images
    has_found = state.best_rmse.isfinite() & (state.best_rmse > 0)
    images = torch.where(
        state.best_rmse.isfinite()[:, None, None, None],
        state.best_images,
        (state.images + state.deltas).clamp(0.0, 1.0),
    )
    is_verified = torch.zeros_like(has_found)
    for factor in _NUDGES:
        is_pending = has_found & ~is_verified
        if not bool(is_pending.any()):
            break
        nudged = images[is_pending]
        if factor != 1.0:
            pending = state.select(is_pending)
            nudged = (pending.images + factor * deltas[is_pending]).clamp(0.0, 1.0)
        images[is_pending] = nudged
        is_verified[is_pending] = output_condition(
            network(nudged), state.goals[is_pending], state.targets[is_pending]
        )
    return images, is_verified


def _status(is_found: bool, is_wrong: bool) -> SearchStatus:
    if is_wrong:
        return SearchStatus.ALREADY_WRONG
    return SearchStatus.FOUND if is_found else SearchStatus.UNRESOLVED

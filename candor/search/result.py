"""How a finished search ends: verified in float32, inside rho."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial

import torch
from torch import Tensor, nn

from candor.search.geometry import draw_to_rho, where_row
from candor.search.goals import ascent_sign, is_explanation, output_condition, score
from candor.search.sizes import rho_in, rhos_in, rmse_inside, sparsity
from candor.search.state import SearchState, rmse
from candor.terms import Norm, SearchStatus

# A point on the boundary may fall back over it when it is evaluated in another batch or precision;
# it is moved outward by these factors until it holds.
NUDGES = (1.0, 1.0005, 1.002, 1.01, 1.03)
_AT_RHO = 0.999  # from this share of rho on, drawing an image out to rho changes nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchResult:
    """Verified ends of a batch of searches.

    Attributes:
        images: (B, C, H, W) float32 in [0, 1]; the last image tried where unresolved.
        rmse: (B,) float64 between ``images`` and the images as they came.
        lower_bounds: (B,) float64, NaN unless unresolved: largest RMSE visited without the goal.
        statuses: one `SearchStatus` a search.
        steps: (B,) int64 steps taken.
        logits_before, logits_after: (B, V) float32.
        rho_1, rho_1_5, rho_inf: (B,) float64, the size of the perturbation in these norms.
        rmse_inside: (B,) float64, over the pixels whose mask is above 0; NaN without masks.
        sparsity: (B,) float64, share of the pixels of which a colour changed by more than 1/255.
    """

    images: Tensor
    rmse: Tensor
    lower_bounds: Tensor
    statuses: tuple[SearchStatus, ...]
    steps: Tensor
    logits_before: Tensor
    logits_after: Tensor
    rho_1: Tensor
    rho_1_5: Tensor
    rho_inf: Tensor
    rmse_inside: Tensor
    sparsity: Tensor

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
    """Evaluate every search's best image anew and settle its status.

    Attack, BTR, confident: found when the goal holds for the image returned, already wrong when
    it held for the image as it came, else unresolved.  Explanations: the best of three images
    inside rho (best visited, the same direction drawn out to rho, the last one drawn to rho); found
    when the score moved in the requested direction.

    Args:
        network: in evaluation mode, float32.
        state: searches that `is_finished` or that are to end where they are.
    """
    logits_before = network(state.images)
    is_explained = is_explanation(state.goals)
    already_wrong = output_condition(logits_before, state.goals, state.targets)
    images, logits_after = state.images.clone(), logits_before.clone()
    is_found = torch.zeros_like(is_explained)
    for settle, chosen in (
        (_explained, is_explained),
        (_minimal, ~is_explained & ~already_wrong),
    ):
        if bool(chosen.any()):
            images[chosen], logits_after[chosen], is_found[chosen] = settle(
                network, state.select(chosen), logits_before[chosen]
            )
    lower = torch.where(is_found | already_wrong, torch.nan, state.largest_rmse)
    return SearchResult(
        images=images,
        rmse=rmse(images, state.images),
        lower_bounds=lower,
        statuses=tuple(map(_status, is_found.tolist(), already_wrong.tolist())),
        steps=state.steps,
        logits_before=logits_before,
        logits_after=logits_after,
        rho_1=rho_in(Norm.L1, images, state.images),
        rho_1_5=rho_in(Norm.L1_5, images, state.images),
        rho_inf=rho_in(Norm.LINF, images, state.images),
        rmse_inside=rmse_inside(images, state.images, state.masks),
        sparsity=sparsity(images, state.images),
    )


def _explained(
    network: nn.Module, state: SearchState, logits_before: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Best image inside rho of each explanation, its logits, and whether it moved as requested."""
    last = (state.images + state.deltas).clamp(0.0, 1.0)
    sign = ascent_sign(state.goals)
    best_images, best_logits = state.images.clone(), logits_before.clone()
    best_gain = torch.zeros_like(sign)
    before = score(logits_before, state.targets, state.away_from)
    everywhere = torch.ones_like(sign, dtype=torch.bool)
    measure = partial(rhos_in, state.norms)
    lengths = measure(state.best_images, state.images)
    for images, chosen, is_drawn in (
        (_inside_rho(state, lengths), everywhere, False),
        (state.best_images, lengths < _AT_RHO * state.rhos, True),
        (last, everywhere, True),
    ):
        if not bool(chosen.any()):
            continue
        candidate = draw_to_rho(images, state.images, state.rhos, measure) if is_drawn else images
        logits = torch.where(chosen[:, None], 0.0, best_logits)
        logits[chosen] = network(candidate[chosen])
        gain = sign * (score(logits, state.targets, state.away_from) - before)
        # A tie goes to the image nearer to rho, which was requested.
        is_better = chosen & (gain >= best_gain)
        best_images = torch.where(is_better[:, None, None, None], candidate, best_images)
        best_logits = torch.where(is_better[:, None], logits, best_logits)
        best_gain = torch.where(is_better, gain, best_gain)
    return best_images, best_logits, best_gain > 0


def _inside_rho(state: SearchState, lengths: Tensor) -> Tensor:
    """The best images; of ``lengths`` above rho by rounding, as a mask or norm may bring it, drawn.

    A few large changes are rounded together, many small ones cancel.
    """
    is_beyond = lengths > state.rhos
    if (state.masks is None and state.norms is None) or not bool(is_beyond.any()):
        return state.best_images
    drawn = draw_to_rho(state.best_images, state.images, state.rhos, partial(rhos_in, state.norms))
    return where_row(is_beyond, drawn, state.best_images)


def _minimal(
    network: nn.Module, state: SearchState, logits_before: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Smallest verified image of each attack, its logits, and whether the goal holds there."""
    has_found = state.best_rmse.isfinite() & (state.best_rmse > 0)
    last = (state.images + state.deltas).clamp(0.0, 1.0)
    images = torch.where(has_found[:, None, None, None], state.best_images, last)
    deltas = images - state.images
    logits, is_verified = logits_before.clone(), torch.zeros_like(has_found)
    for factor in NUDGES:
        pending = (~is_verified if factor == 1.0 else has_found & ~is_verified).nonzero()[:, 0]
        if not len(pending):
            break
        if factor != 1.0:
            nudged = state.images[pending] + factor * deltas[pending]
            images[pending] = nudged.clamp(0.0, 1.0)
        logits[pending] = network(images[pending])
        is_verified[pending] = has_found[pending] & output_condition(
            logits[pending], state.goals[pending], state.targets[pending]
        )
    return images, logits, is_verified


def _status(is_found: bool, is_wrong: bool) -> SearchStatus:
    if is_wrong:
        return SearchStatus.ALREADY_WRONG
    return SearchStatus.FOUND if is_found else SearchStatus.UNRESOLVED

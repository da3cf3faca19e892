"""The explicit state of a batch of searches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from candor.search.goals import is_explanation, norm_code
from candor.terms import Norm


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchState:
    """A batch of searches between two steps; immutable, every field has the batch first.

    Attributes:
        images: (B, C, H, W) float32 in [0, 1], the images as they came.
        deltas: (B, C, H, W) float32, what the optimiser moves; may leave the box, the perturbation
            that counts is clip(x + delta, 0, 1) - x.
        velocities: (B, C, H, W) float32, momentum of SGD.
        best_images: (B, C, H, W) float32 in [0, 1], the best image so far.
        best_rmse: (B,) float64, its RMSE; inf before there is one.
        best_score: (B,) float64, `candor.search.goals.score` there; NaN before there is one.
        largest_rmse: (B,) float64, largest RMSE visited where the goal did not hold.
        stalls: (B,) int64, steps in a row that brought no clearly better image and promised none.
        rivals: (B,) int64, the wrong class that an attack aims at; -1 before it has one.
        goals, targets: (B,) int64, see `candor.search.goals`.
        rhos: (B,) float64, how far an explanation may go.
        steps, step_counts: (B,) int64, done and to do.
        seeds: (B,) int64.
        masks: (B, 1, H, W) float32 in [0, 1], see `candor.search.geometry.masked`; None where every
            search may change all of its image, which then costs nothing.
        norms: (B,) int64, in which ``rhos`` are measured, see `candor.search.goals.norm_code`; None
            where all are L2.
        away_from: (B,) int64, class that an explanation moves away from, -1 without one; None where
            no search has one.
    """

    images: Tensor
    deltas: Tensor
    velocities: Tensor
    best_images: Tensor
    best_rmse: Tensor
    best_score: Tensor
    largest_rmse: Tensor
    stalls: Tensor
    rivals: Tensor
    goals: Tensor
    targets: Tensor
    rhos: Tensor
    steps: Tensor
    step_counts: Tensor
    seeds: Tensor
    masks: Tensor | None = None
    norms: Tensor | None = None
    away_from: Tensor | None = None

    def __len__(self) -> int:
        return len(self.goals)

    def select(self, chosen: Tensor) -> "SearchState":
        """The searches at ``chosen`` (indices or mask), in that order."""
        return SearchState(**{name: values[chosen] for name, values in self.present()})

    def replaced(self, chosen: Tensor, other: "SearchState") -> "SearchState":
        """A copy whose searches at ``chosen`` are those of ``other``."""
        merged = {}
        for name, values in self.present():
            merged[name] = values.clone()
            merged[name][chosen] = getattr(other, name)
        return SearchState(**merged)

    def present(self) -> Iterator[tuple[str, Tensor]]:
        """The fields that this batch has, by name."""
        for name in _NAMES:
            values = getattr(self, name)
            if values is not None:
                yield name, values


_NAMES = tuple(field.name for field in fields(SearchState))


def concatenate(states: Sequence[SearchState]) -> SearchState:
    """One batch of all searches of ``states``, in order; either all have a field or none."""
    names = [name for name, _ in states[0].present()]
    if any([name for name, _ in state.present()] != names for state in states):
        raise ValueError(f"states: expected the fields {names} in each, got others")
    return SearchState(
        **{name: torch.cat([getattr(state, name) for state in states]) for name in names}
    )


def begin(
    images: Tensor,
    *,
    goals: Tensor,
    targets: Tensor,
    rhos: Tensor,
    step_counts: Tensor,
    seeds: Tensor,
    masks: Tensor | None = None,
    norms: Tensor | None = None,
    away_from: Tensor | None = None,
) -> SearchState:
    """Searches that have taken no step.  (Algorithm 1, lines 2 and 3)

    Args:
        images: (B, C, H, W) float32 in [0, 1]; not modified.
        goals: (B,) int64, codes of `candor.search.goals.goal_code`.
        targets: (B,) int64, the label or the class to explain.
        rhos: (B,) float64 in (0, 1], measured in the norm; used by explanations only.
        step_counts: (B,) int64 >= 1, N of Algorithm 1.
        seeds: (B,) int64; decide the direction taken where a gradient is exactly zero.
        masks: (B, H, W) float32 in [0, 1], each above 0 somewhere: where its image may change;
            default everywhere.
        norms: (B,) int64, codes of `candor.search.goals.norm_code`; default and for the other goals
            L2.
        away_from: (B,) int64, the class that an explanation moves away from, another than the
            target; -1 without one.
    Raises:
        ValueError: a dtype, shape or range is wrong.
    """
    _check_images(images)
    batch = len(images)
    vectors = {"goals": goals, "targets": targets, "step_counts": step_counts, "seeds": seeds}
    asked = {"norms": norms, "away_from": away_from}
    chosen = {name: values for name, values in asked.items() if values is not None}
    for name, values in (vectors | chosen).items():
        if values.shape != (batch,) or values.dtype != torch.int64:
            raise ValueError(
                f"{name}: expected ({batch},) int64, got {tuple(values.shape)} {values.dtype}"
            )
    if rhos.shape != (batch,) or not bool(((rhos > 0) & (rhos <= 1)).all()):
        raise ValueError(f"rhos: expected ({batch},) in (0, 1], got {rhos!r}")
    _check_explanations_alone(goals, targets, norms, away_from)
    if masks is not None:
        _check_masks(images, masks)
    return begin_checked(images, rhos=rhos, masks=masks, **vectors, **chosen)


def begin_checked(
    images: Tensor,
    *,
    goals: Tensor,
    targets: Tensor,
    rhos: Tensor,
    step_counts: Tensor,
    seeds: Tensor,
    masks: Tensor | None = None,
    norms: Tensor | None = None,
    away_from: Tensor | None = None,
) -> SearchState:
    """`begin` for arguments that the caller has checked already, as a worker does its messages."""
    batch, device = len(images), images.device
    return SearchState(
        images=images,
        deltas=torch.zeros_like(images),
        velocities=torch.zeros_like(images),
        best_images=images.clone(),
        best_rmse=torch.full((batch,), float("inf"), dtype=torch.float64, device=device),
        best_score=torch.full((batch,), float("nan"), dtype=torch.float64, device=device),
        largest_rmse=torch.zeros(batch, dtype=torch.float64, device=device),
        stalls=torch.zeros(batch, dtype=torch.int64, device=device),
        rivals=torch.full((batch,), -1, device=device),
        goals=goals,
        targets=targets,
        rhos=rhos.to(torch.float64),
        steps=torch.zeros(batch, dtype=torch.int64, device=device),
        step_counts=step_counts,
        seeds=seeds,
        masks=None if masks is None else masks[:, None],
        norms=norms,
        away_from=away_from,
    )


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.dtype != torch.float32:
        raise ValueError(
            f"images: expected (B, C, H, W) float32, got {tuple(images.shape)} {images.dtype}"
        )
    # NaN fails this comparison too.
    if len(images) and not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError("images: expected values in [0, 1], got others or NaN")


def _check_masks(images: Tensor, masks: Tensor) -> None:
    expected = (len(images), *images.shape[2:])
    if masks.shape != expected or masks.dtype != torch.float32:
        raise ValueError(
            f"masks: expected {expected} float32, got {tuple(masks.shape)} {masks.dtype}"
        )
    if not bool(((masks >= 0) & (masks <= 1)).all()):
        raise ValueError("masks: expected values in [0, 1], got others or NaN")
    if not bool((masks > 0).flatten(1).any(dim=1).all()):
        raise ValueError("masks: expected each above 0 somewhere, got one of zeros")


def _check_explanations_alone(
    goals: Tensor, targets: Tensor, norms: Tensor | None, away_from: Tensor | None
) -> None:
    is_other = ~is_explanation(goals)
    if norms is not None and bool((is_other & (norms != norm_code(Norm.L2))).any()):
        raise ValueError("norms: expected L2 for every goal but explanations, got another norm")
    if away_from is None:
        return
    if bool((is_other & (away_from >= 0)).any()):
        raise ValueError("away_from: expected -1 for every goal but explanations, got a class")
    if bool((away_from == targets).any()):
        raise ValueError("away_from: expected other classes than the targets, got a target")


def rmse(images: Tensor, originals: Tensor) -> Tensor:
    """(B,) float64 RMSE between two batches (B, C, H, W) on the [0, 1] scale."""
    difference = images.to(torch.float64) - originals
    return difference.square().flatten(1).mean(dim=1).sqrt()

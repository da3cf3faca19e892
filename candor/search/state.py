"""The explicit state of a batch of searches."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor


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
        best_score: (B,) float64, log-odds of s_t there; NaN before there is one.
        largest_rmse: (B,) float64, largest RMSE visited where the goal did not hold.
        stalls: (B,) int64, steps in a row that brought no clearly better image and promised none.
        rivals: (B,) int64, the wrong class that an attack aims at; -1 before it has one.
        goals, targets: (B,) int64, see `candor.search.goals`.
        rhos: (B,) float64, RMSE an explanation may reach.
        steps, step_counts: (B,) int64, done and to do.
        seeds: (B,) int64.
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

    def __len__(self) -> int:
        return len(self.goals)

    def select(self, chosen: Tensor) -> "SearchState":
        """The searches at ``chosen`` (indices or mask), in that order."""
        return SearchState(**{name: getattr(self, name)[chosen] for name in _NAMES})

    def replaced(self, chosen: Tensor, other: "SearchState") -> "SearchState":
        """A copy whose searches at ``chosen`` are those of ``other``."""
        merged = {}
        for name in _NAMES:
            values = getattr(self, name).clone()
            values[chosen] = getattr(other, name)
            merged[name] = values
        return SearchState(**merged)


_NAMES = tuple(field.name for field in fields(SearchState))


def concatenate(states: Sequence[SearchState]) -> SearchState:
    """One batch of all searches of ``states``, in order."""
    return SearchState(
        **{name: torch.cat([getattr(state, name) for state in states]) for name in _NAMES}
    )


def begin(
    images: Tensor,
    *,
    goals: Tensor,
    targets: Tensor,
    rhos: Tensor,
    step_counts: Tensor,
    seeds: Tensor,
) -> SearchState:
    """Searches that have taken no step.  (Algorithm 1, lines 2 and 3)

    Args:
        images: (B, C, H, W) float32 in [0, 1]; not modified.
        goals: (B,) int64, codes of `candor.search.goals.goal_code`.
        targets: (B,) int64, the label or the class to explain.
        rhos: (B,) float64 in (0, 1]; used by explanations only.
        step_counts: (B,) int64 >= 1, N of Algorithm 1.
        seeds: (B,) int64; decide the direction taken where a gradient is exactly zero.
    Raises:
        ValueError: a dtype, shape or range is wrong.
    """
    _check_images(images)
    batch = len(images)
    vectors = {"goals": goals, "targets": targets, "step_counts": step_counts, "seeds": seeds}
    for name, values in vectors.items():
        if values.shape != (batch,) or values.dtype != torch.int64:
            raise ValueError(
                f"{name}: expected ({batch},) int64, got {tuple(values.shape)} {values.dtype}"
            )
    if rhos.shape != (batch,) or not bool(((rhos > 0) & (rhos <= 1)).all()):
        raise ValueError(f"rhos: expected ({batch},) in (0, 1], got {rhos!r}")
    return begin_checked(images, rhos=rhos, **vectors)


def begin_checked(
    images: Tensor,
    *,
    goals: Tensor,
    targets: Tensor,
    rhos: Tensor,
    step_counts: Tensor,
    seeds: Tensor,
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
    )


def _check_images(images: Tensor) -> None:
    if images.ndim != 4 or images.dtype != torch.float32:
        raise ValueError(
            f"images: expected (B, C, H, W) float32, got {tuple(images.shape)} {images.dtype}"
        )
    # NaN fails this comparison too.
    if len(images) and not bool(((images >= 0) & (images <= 1)).all()):
        raise ValueError("images: expected values in [0, 1], got others or NaN")


def rmse(images: Tensor, originals: Tensor) -> Tensor:
    """(B,) float64 RMSE between two batches (B, C, H, W) on the [0, 1] scale."""
    difference = images.to(torch.float64) - originals
    return difference.square().flatten(1).mean(dim=1).sqrt()

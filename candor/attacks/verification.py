"""Verification of what an attack proposes: moved toward the original, then evaluated alone.

An attack proposes one image for each original.  It counts only if the goal holds for the network's
outputs on that image alone (batch of 1, float32, clipped to [0, 1]); whether the same holds after
rounding to 8 bits is recorded beside it.
"""

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum

import torch
from torch import Tensor, nn

from candor.attacks.candidates import Candidates
from candor.attacks.margin import holds
from candor.search.result import NUDGES
from candor.search.state import rmse
from candor.terms import Goal

_BISECTIONS = 14  # the segment is known to 1/16384 of its length
_LEVELS = 255.0


class Status(StrEnum):
    """How an attack on one image ended.

    ALREADY_WRONG: the goal held for the image as it came, distance 0.
    FOUND: an image was found and verified alone.
    UNRESOLVED: none was found; the radius is at least nothing known, see ``lower_bound``.
    UNVERIFIED: one was proposed, but alone it is none; treated as unresolved.
    NOT_TRIED: the attack itself failed, so nothing is known, see ``failure``; never resisted.
    """

    ALREADY_WRONG = "already_wrong"
    FOUND = "found"
    UNRESOLVED = "unresolved"
    UNVERIFIED = "unverified"
    NOT_TRIED = "not_tried"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """One image's end, as a row of the ledger has it.

    Attributes:
        radius: RMSE of the verified image; 0 if already wrong, None without one.
        lower_bound: RMSE up to which nothing was found; None with a radius and where not tried.
        rounded_radius: RMSE after rounding to 8 bits; None without an image.
        holds_rounded: whether the goal still holds then.
        image_sha256: of the verified image's float32 bytes, C order.
        failure: of the attack; None unless not tried.
    """

    status: Status
    radius: float | None = None
    lower_bound: float | None = None
    rounded_radius: float | None = None
    holds_rounded: bool | None = None
    image_sha256: str | None = None
    steps: int = 0
    failure: str | None = None


@torch.no_grad()
def tighten(
    network: nn.Module, originals: Tensor, labels: Tensor, goal: Goal, candidates: Candidates
) -> Candidates:
    """Move every found image towards its original, as near as the goal still holds.

    Bisection along the segment, forward passes only; the image never gets farther away.
    """
    deltas = candidates.images - originals
    inside = torch.zeros(len(originals), device=originals.device)
    outside = torch.ones_like(inside)
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        trial = (originals + middle[:, None, None, None] * deltas).clamp(0.0, 1.0)
        is_outside = holds(network(trial), labels, goal)
        outside = torch.where(is_outside, middle, outside)
        inside = torch.where(is_outside, inside, middle)
    moved = (originals + outside[:, None, None, None] * deltas).clamp(0.0, 1.0)
    images = torch.where(candidates.is_found[:, None, None, None], moved, candidates.images)
    return replace(candidates, images=images, steps=candidates.steps + _BISECTIONS)


@torch.no_grad()
def verify(
    network: nn.Module, originals: Tensor, labels: Tensor, goal: Goal, candidates: Candidates
) -> list[Verified]:
    """Every proposal on its own: one end an image, in order."""
    return [
        _verify_one(network, originals[row], labels[row], goal, candidates, row)
        for row in range(len(originals))
    ]


def _verify_one(
    network: nn.Module, original: Tensor, label: Tensor, goal: Goal, proposed: Candidates, row: int
) -> Verified:
    steps = int(proposed.steps[row])
    if _holds_alone(network, original, label, goal):
        return Verified(
            status=Status.ALREADY_WRONG, radius=0.0, rounded_radius=0.0, holds_rounded=True
        )
    if row in proposed.failures:
        return Verified(status=Status.NOT_TRIED, failure=proposed.failures[row])
    bound = float(proposed.lower_bounds[row])
    if not bool(proposed.is_found[row]):
        return Verified(status=Status.UNRESOLVED, lower_bound=bound, steps=steps)
    for factor in NUDGES:
        image = proposed.images[row]
        if factor != 1.0:
            image = (original + factor * (image - original)).clamp(0.0, 1.0)
        if _holds_alone(network, image, label, goal):
            break
    else:
        return Verified(status=Status.UNVERIFIED, lower_bound=bound, steps=steps)
    rounded = (image * _LEVELS).round() / _LEVELS
    return Verified(
        status=Status.FOUND,
        radius=_distance(image, original),
        rounded_radius=_distance(rounded, original),
        holds_rounded=_holds_alone(network, rounded, label, goal),
        image_sha256=hashlib.sha256(image.cpu().contiguous().numpy().tobytes()).hexdigest(),
        steps=steps,
    )


def _holds_alone(network: nn.Module, image: Tensor, label: Tensor, goal: Goal) -> bool:
    return bool(holds(network(image[None]), label[None], goal)[0])


def _distance(image: Tensor, original: Tensor) -> float:
    return float(rmse(image[None], original[None])[0])

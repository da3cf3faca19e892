"""Attacks inside a fixed L2 ball, gradient-free and hard-label ones too.

Each answers whether it found an image within ``eps`` (L2, pixels in [0, 1]); `candidates.tighten`
then turns what was found into a radius.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from pyautoattack import AutoAttack
from torch import Generator, Tensor, nn

from candor.attacks.verification import (
    Candidates,
    directions_like,
    goal_margin,
    holds,
    score_gradients,
    to_length,
)
from candor.search.state import rmse
from candor.terms import Goal

PGD_STEP_SHARE = 2.5  # step length is this times eps over the number of steps (Madry et al.)
LABEL_TRIALS = 20  # random directions at the boundary, one estimate of the hard-label attack
_AUTOATTACK_TARGETS = 9
_DLR_CLASSES = 4  # the targeted DLR loss of APGD compares four logits


def fgsm(network: nn.Module, originals: Tensor, labels: Tensor, eps: float) -> Candidates:
    """One step of length ``eps`` down the margin's gradient: the L2 form of FGSM (1412.6572).

    Args:
        originals: (B, C, H, W) float32 in [0, 1].     labels: (B,) int64.     eps: L2 > 0.
    """
    _, _, gradients = score_gradients(network, originals, _margin(labels))
    pictures = project(originals - to_length(gradients, _lengths(originals, eps)), originals, eps)
    return _judged(network, originals, pictures, labels, 1)


def pgd(
    network: nn.Module,
    originals: Tensor,
    labels: Tensor,
    eps: float,
    *,
    steps: int,
    start: Tensor | None = None,
    score: Callable[[Tensor], Tensor] | None = None,
) -> Candidates:
    """Projected gradient descent with normalised steps.  (Madry et al., arXiv 1706.06083)

    Args:
        originals, labels, eps: as in `fgsm`.
        steps: >= 1; each image stops moving at its first success.
        start: (B, C, H, W) first images; the originals by default.
        score: of logits (B, V), to be lowered; by default the margin of the true class.
    """
    score = score or _margin(labels)
    pictures = originals if start is None else project(start, originals, eps)
    lengths = _lengths(originals, PGD_STEP_SHARE * eps / steps)
    for _ in range(steps):
        logits, _, gradients = score_gradients(network, pictures, score)
        is_done = holds(logits, labels, Goal.ATTACK)[:, None, None, None]
        moved = project(pictures - to_length(gradients, lengths), originals, eps)
        pictures = torch.where(is_done, pictures, moved)
    return _judged(network, originals, pictures, labels, steps)


def autoattack(
    network: nn.Module, originals: Tensor, labels: Tensor, eps: float, seeds: Sequence[int]
) -> tuple[Candidates, list[str]]:
    """Standard AutoAttack, L2 (arXiv 2003.01690), and the warnings it gave.

    Its random numbers belong to a batch, so it gets one image at a time.  With fewer than four
    classes the targeted attacks do not exist; their untargeted forms run instead.

    Args:
        originals, labels, eps: as in `fgsm`.     seeds: one an image.
    """
    class_count = network(originals[:1]).shape[1]
    custom = ["apgd-ce", "fab", "square"]
    return _library_attack(
        network,
        originals,
        labels,
        eps,
        seeds,
        attacks=None if class_count >= _DLR_CLASSES else custom,
        targets=min(_AUTOATTACK_TARGETS, class_count - 1),
    )


def square(
    network: nn.Module,
    originals: Tensor,
    labels: Tensor,
    eps: float,
    seeds: Sequence[int],
    *,
    queries: int,
) -> tuple[Candidates, list[str]]:
    """Square Attack, L2: random search over outputs, no gradient (arXiv 1912.00049), and warnings.

    Args:
        originals, labels, eps, seeds: as in `autoattack`.     queries: forward passes an image.
    """
    return _library_attack(
        network, originals, labels, eps, seeds, attacks=["square"], targets=1, queries=queries
    )


@torch.no_grad()
def label_only(
    network: nn.Module,
    originals: Tensor,
    labels: Tensor,
    eps: float,
    seeds: Sequence[int],
    *,
    queries: int,
) -> Candidates:
    """Hard-label attack after HopSkipJump (arXiv 1904.02144): sees predictions only.

    From a random image of another prediction it goes to the boundary by bisection, estimates the
    boundary's normal from the predictions of random neighbours, steps along it and bisects again.

    Args:
        originals, labels, eps, seeds: as in `autoattack`; found is what ends within ``eps``.
        queries: forward passes an image, about.
    """
    pictures = torch.stack(
        [
            _label_only_one(network, original, label, Generator().manual_seed(seed), queries)
            for original, label, seed in zip(originals, labels, seeds, strict=True)
        ]
    )
    inside = rmse(pictures, originals) * _root(originals) <= eps
    judged = _judged(network, originals, pictures, labels, queries)
    return Candidates(
        images=judged.images,
        is_found=judged.is_found & inside,
        lower_bounds=torch.zeros(len(originals), dtype=torch.float64),
        steps=judged.steps,
    )


def random_start(originals: Tensor, eps: float, seeds: Sequence[int]) -> Tensor:
    """(B, C, H, W) images on the sphere of L2 radius ``eps``, clipped to the box."""
    return project(originals + eps * directions_like(originals, seeds), originals, eps)


def project(pictures: Tensor, originals: Tensor, eps: float) -> Tensor:
    """Images moved into the L2 ball of radius ``eps``, then into [0, 1], which keeps them in."""
    deltas = pictures - originals
    kept = deltas.flatten(1).norm(dim=1).clamp_max(eps)
    return (originals + to_length(deltas, kept)).clamp(0.0, 1.0)


def _label_only_one(
    network: nn.Module, original: Tensor, label: Tensor, generator: Generator, queries: int
) -> Tensor:
    image = _other_prediction(network, original, label, generator)
    if image is None:
        return original
    rounds = max(1, queries // (LABEL_TRIALS + 20))
    for number in range(1, rounds + 1):
        image = _to_boundary(network, original, image, label)
        gap = float((image - original).norm())
        directions = torch.randn(LABEL_TRIALS, *original.shape, generator=generator)
        directions = to_length(directions.to(original), torch.ones(LABEL_TRIALS))
        trials = (image + 0.1 * gap * directions).clamp(0.0, 1.0)
        is_other = (network(trials).argmax(1) != label).float() * 2 - 1
        # Without the mean the estimate varies less; where all trials agree nothing would be left.
        weights = is_other - is_other.mean()
        if not bool(weights.any()):
            weights = is_other
        normal = (weights[:, None, None, None] * directions).sum(0)
        normal = normal / normal.norm().clamp_min(1e-30)
        image = _step_out(network, image, normal, gap / math.sqrt(number), label)
    return _to_boundary(network, original, image, label)


def _other_prediction(
    network: nn.Module, original: Tensor, label: Tensor, generator: Generator
) -> Tensor | None:
    for _ in range(10):
        trials = torch.rand(LABEL_TRIALS, *original.shape, generator=generator).to(original)
        is_other = network(trials).argmax(1) != label
        if bool(is_other.any()):
            return trials[is_other][0]
    return None


def _to_boundary(network: nn.Module, original: Tensor, image: Tensor, label: Tensor) -> Tensor:
    inside, outside = 0.0, 1.0
    for _ in range(12):
        middle = (inside + outside) / 2
        trial = original + middle * (image - original)
        if int(network(trial[None]).argmax(1)) != int(label):
            outside = middle
        else:
            inside = middle
    return original + outside * (image - original)


def _step_out(
    network: nn.Module, image: Tensor, normal: Tensor, length: float, label: Tensor
) -> Tensor:
    """The longest of length, length/2, ... that still changes the prediction."""
    for _ in range(8):
        trial = (image + length * normal).clamp(0.0, 1.0)
        if int(network(trial[None]).argmax(1)) != int(label):
            return trial
        length /= 2
    return image


def _library_attack(
    network: nn.Module,
    originals: Tensor,
    labels: Tensor,
    eps: float,
    seeds: Sequence[int],
    *,
    attacks: list[str] | None,
    targets: int,
    queries: int | None = None,
) -> tuple[Candidates, list[str]]:
    warnings: list[str] = []
    pictures = []
    for row, seed in enumerate(seeds):
        version = "standard" if attacks is None else "custom"
        runner = AutoAttack(
            network, norm="L2", eps=eps, seed=seed, version=version, attacks=attacks,
            device=originals.device,
        )  # fmt: skip
        runner.apgd_targeted.n_target_classes = runner.fab.n_target_classes = targets
        if queries is not None:
            runner.square.n_queries = queries
        # The library seeds torch's global generator; it is put back as it was.
        image = originals[row : row + 1]
        with torch.random.fork_rng(), _collected(runner.logger, warnings):
            try:
                image, _ = runner.run_standard_evaluation(
                    image, labels[row : row + 1], batch_size=1
                )
            except RuntimeError as err:
                # Square trips over outputs that tie exactly, as saturated networks' do.
                warnings.append(f"gave up on an image: {err}")
        pictures.append(image)
    found = project(torch.cat(pictures), originals, eps)
    steps = queries if queries is not None else 0
    return _judged(network, originals, found, labels, steps), sorted(set(warnings))


@contextmanager
def _collected(logger: logging.Logger, messages: list[str]) -> Iterator[None]:
    """Put the logger's warnings into ``messages`` instead of on the screen."""

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Collect(logging.WARNING)
    was_propagating, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = was_propagating


@torch.no_grad()
def _judged(
    network: nn.Module, originals: Tensor, pictures: Tensor, labels: Tensor, steps: int
) -> Candidates:
    is_found = holds(network(pictures), labels, Goal.ATTACK)
    return Candidates(
        images=pictures,
        is_found=is_found,
        lower_bounds=torch.where(is_found, 0.0, rmse(pictures, originals)),
        steps=torch.full((len(labels),), steps),
    )


def _margin(labels: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits: goal_margin(logits, labels, Goal.ATTACK)


def _lengths(originals: Tensor, length: float) -> Tensor:
    return torch.full((len(originals),), length, device=originals.device)


def _root(originals: Tensor) -> float:
    """Factor from RMSE to L2."""
    return math.sqrt(originals[0].numel())

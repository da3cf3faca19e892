"""Adapter to pyautoattack, one image at a time."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from pyautoattack import AutoAttack
from torch import Tensor, nn

from candor.attacks.candidates import Candidates, proposed
from candor.attacks.projection import project


def run_library(
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
    """Attacks of the library, L2, and the warnings they gave.

    The library's random numbers belong to a batch, so it gets one image at a time.

    Args:
        network, originals, labels, eps: as in `candor.attacks.fgsm.fgsm`.
        seeds: one for each image.
        attacks: names that the library gives them; None for the standard set.
        targets: classes that the targeted attacks aim at.
        queries: of Square, for each image; None for the library's number.
    """
    warnings: list[str] = []
    images = []
    for row, seed in enumerate(seeds):
        version = "standard" if attacks is None else "custom"
        runner = AutoAttack(
            network, norm="L2", eps=eps, seed=seed, version=version, attacks=attacks,
            device=originals.device,
        )  # fmt: skip
        runner.apgd_targeted.n_target_classes = runner.fab.n_target_classes = targets
        if queries is not None:
            runner.square.n_queries = queries
        images.append(_run_one(runner, originals[row : row + 1], labels[row : row + 1], warnings))
    found = project(torch.cat(images), originals, eps)
    return proposed(network, originals, found, labels, queries or 0), sorted(set(warnings))


def _run_one(runner: AutoAttack, image: Tensor, label: Tensor, warnings: list[str]) -> Tensor:
    """(1, C, H, W), the image itself where the library gave up; adds to ``warnings``."""
    # The library seeds torch's global generator; it is put back as it was.
    with torch.random.fork_rng(), _collected(runner.logger, warnings):
        try:
            attacked: Tensor = runner.run_standard_evaluation(image, label, batch_size=1)[0]
        except RuntimeError as err:
            # Square trips over outputs that tie exactly, as saturated networks' do.
            warnings.append(f"gave up on an image: {err}")
            return image
    return attacked


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

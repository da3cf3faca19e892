"""Adapter to pyautoattack: one image at a time, and what its attacks on many have in common."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from pyautoattack import AutoAttack, checks
from torch import Tensor, nn

from candor.attacks.candidates import Candidates, proposed
from candor.attacks.counting import CountedNetwork
from candor.attacks.memory import is_out_of_memory
from candor.attacks.projection import project
from candor.search.network import checked
from candor.terms import NotFinite

_LOGGER = "auto-attack"  # the library's
_COUNTED = re.compile(r"there are \d+ points")


def run_library(
    network: nn.Module,
    originals: Tensor,
    labels: Tensor,
    eps: float,
    seeds: Sequence[int],
    *,
    attacks: Sequence[str] | None,
    targets: int,
    queries: int | None = None,
) -> tuple[Candidates, list[str]]:
    """Attacks of the library, L2, and the warnings they gave.

    The library's random numbers belong to a batch, so it gets one image at a time;
    `candor.attacks.compacted` does the same to many at once.  An image on which it raises an error
    is one of the `Candidates.failures`.

    Args:
        network, originals, labels, eps: as in `candor.attacks.fgsm.fgsm`.
        seeds: one for each image.
        attacks: names that the library gives them; None for the standard set.
        targets: classes that the targeted attacks aim at.
        queries: of Square, for each image; None for the library's number.
    Raises:
        NotFinite: the network answers with infinite numbers or NaN.
    """
    counted = CountedNetwork(checked(network))
    originals = originals.contiguous()  # the library calls `view`
    warnings: list[str] = []
    failures: dict[int, str] = {}
    images, counts = [], []
    for row, seed in enumerate(seeds):
        image, label = originals[row : row + 1], labels[row : row + 1]
        runner = library_runner(counted, eps, seed, attacks, targets, queries, originals.device)
        try:
            images.append(_run_one(runner, image, label, warnings))
        except Exception as err:  # whatever the library meets
            if is_passed_on(err):
                raise
            failures[row] = f"{type(err).__name__}: {' '.join(str(err).split())}"
            images.append(image)
        counts.append(counted.take())
    found = project(torch.cat(images), originals, eps)
    candidates = proposed(counted, originals, found, labels, 0)
    candidates = replace(candidates, failures=failures, steps=torch.tensor(counts))
    return candidates, sorted(set(warnings))


def is_passed_on(error: Exception) -> bool:
    """Whether an error is none of the library's, so that it ends the audit and not one attack."""
    return isinstance(error, NotFinite) or is_out_of_memory(error)


def check_model(network: nn.Module, image: Tensor, label: Tensor) -> None:
    """The library's own look at a network, logged as its warnings are.

    Args:
        image, label: (1, C, H, W) and (1,).
    """
    logger = logging.getLogger(_LOGGER)
    checks.check_randomized(network, image, label, bs=1, logger=logger)
    checks.check_range_output(network, image, logger=logger)
    checks.check_dynamic(network, image, logger=logger)


def library_runner(
    network: nn.Module,
    eps: float,
    seed: int,
    attacks: Sequence[str] | None,
    targets: int,
    queries: int | None,
    device: torch.device,
) -> AutoAttack:
    """The library set up for attacks within L2 ``eps``; arguments as of `run_library`."""
    runner = AutoAttack(
        network,
        norm="L2",
        eps=eps,
        seed=seed,
        version="standard" if attacks is None else "custom",
        attacks=None if attacks is None else list(attacks),
        device=device,
    )
    runner.apgd_targeted.n_target_classes = runner.fab.n_target_classes = targets
    if queries is not None:
        runner.square.n_queries = queries
    return runner


def _run_one(runner: AutoAttack, image: Tensor, label: Tensor, warnings: list[str]) -> Tensor:
    """(1, C, H, W), the image itself where nothing was found; adds to ``warnings``."""
    # The library seeds torch's global generator; it is put back as it was.
    with torch.random.fork_rng(), collected(warnings):
        attacked: Tensor = runner.run_standard_evaluation(image, label, batch_size=1)[0]
    return attacked


@contextmanager
def collected(messages: list[str]) -> Iterator[None]:
    """Put the library's warnings into ``messages`` instead of on the screen."""

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            # How many images of a batch have no gradient depends on the batch.
            messages.append(_COUNTED.sub("there are points", record.getMessage()))

    handler, logger = Collect(logging.WARNING), logging.getLogger(_LOGGER)
    was_propagating, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = was_propagating

"""Measure 1: image-steps per second of the engine against the plain loop."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from candor.runtime.compiled import compile_network, share_sizes
from candor.runtime.threads import in_shares
from candor.search import paper
from candor.search.goals import goal_code
from candor.search.state import SearchState, begin
from candor.terms import Goal
from tools.bench.baseline import (
    fastest_threads,
    on_threads,
    plain_explanations,
    plain_network,
)
from tools.bench.inputs import ROBUST, SHAPE, other_targets, released_network, test_images
from tools.bench.table import Options, Row

GOALS = {1: 1.7, 8: 2.5, 32: 3.0}
_STEPS = 10


def measure(options: Options) -> list[Row]:
    """The same steps of an explanation both ways, turn by turn in one run."""
    network = released_network(options, ROBUST)
    sizes = (1, *share_sizes(max(GOALS), torch.device("cpu")))
    plain, compiled = plain_network(network), compile_network(network, sizes, SHAPE)
    images, labels = test_images(options, max(GOALS))
    targets = other_targets(labels, 10, options.seed)
    return [
        _row(plain, compiled, images[:size], targets[:size], options.repeats, goal)
        for size, goal in GOALS.items()
    ]


def _row(
    plain: nn.Module,
    compiled: nn.Module,
    images: Tensor,
    targets: Tensor,
    repeats: int,
    goal: float,
) -> Row:
    state = _explanations(images, targets)

    def explain_plainly() -> object:
        return plain_explanations(plain, images, targets, rho=0.1, steps=_STEPS)

    threads = fastest_threads(explain_plainly)

    def explain_at_its_fastest() -> object:
        with on_threads(threads):
            return explain_plainly()

    ours, theirs = interleaved(
        lambda: paper.advance(compiled, state, _STEPS, execute=in_shares),
        explain_at_its_fastest,
        repeats,
    )
    image_steps = len(images) * _STEPS
    ratios = [slow / fast for fast, slow in zip(ours, theirs, strict=True)]
    ratio = statistics.median(ratios)
    return Row(
        measure=f"1 engine, ResNet-44, batch {len(images)}",
        ours=image_steps / statistics.median(ours),
        baseline=image_steps / statistics.median(theirs),
        unit="image-steps/s",
        ratio=ratio,
        goal=f">= {goal:g} x the plain loop",
        is_met=ratio >= goal,
        n=repeats,
        detail=f"plain: {threads} threads; ratios {min(ratios):.2f} to {max(ratios):.2f}",
    )


def interleaved(
    ours: Callable[[], object], theirs: Callable[[], object], repeats: int
) -> tuple[list[float], list[float]]:
    """Seconds of each, turn by turn after one turn that does not count."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for turn in range(repeats + 1):
        for run, times in zip((ours, theirs), seconds, strict=True):
            started = time.perf_counter()
            run()
            if turn:
                times.append(time.perf_counter() - started)
    return seconds


def _explanations(images: Tensor, targets: Tensor) -> SearchState:
    count = len(images)
    return begin(
        images,
        goals=torch.full((count,), goal_code(Goal.EXPLAIN_FOR)),
        targets=targets,
        rhos=torch.full((count,), 0.1, dtype=torch.float64),
        step_counts=torch.full((count,), _STEPS),
        seeds=torch.arange(count),
    )

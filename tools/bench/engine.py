"""Measure 1: image-steps per second of the engine, of the network alone, and of the plain loop."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from candor.runtime.threads import in_shares, on_threads, spread_over
from candor.search.goals import goal_code
from candor.search.solvers import SOLVERS
from candor.search.state import SearchState, begin
from candor.terms import Goal
from tools.bench.baseline import plain_explanations, plain_network
from tools.bench.inputs import (
    ROBUST,
    SIZES,
    other_targets,
    released_network,
    served_network,
    test_images,
)
from tools.bench.machine import BFLOAT16, has_amx, precisions
from tools.bench.table import Options, Row
from tools.bench.timing import Times, interleaved, spread

_STEPS = 10
_RHO = 0.1
_OF_RAW = 0.9  # of the rate of the network alone
_OVER_PLAIN, _OVER_PLAIN_AMX = 2.0, 5.0


@dataclass(frozen=True, slots=True)
class Case:
    """What one group of rows is measured on.

    Attributes:
        name: of the network.
        plain, engine: the network of the plain loop, and the one that the engine calls.
        images, targets: (B, C, H, W) and (B,), on the networks' device.
    """

    name: str
    precision: str
    plain: nn.Module
    engine: nn.Module
    images: Tensor
    targets: Tensor


def measure(options: Options) -> list[Row]:
    """The same steps of explanations three ways, turn by turn, in every precision there is.

    The network is compiled as search workers have it.
    """
    network = released_network(options, ROBUST)
    device = torch.device("cpu")
    images, labels = test_images(options, max(SIZES))
    targets = other_targets(labels, 10, options.seed)
    plain = plain_network(network)
    rows = []
    for precision in precisions(device):
        engine = served_network(options, ROBUST, precision).searcher
        for size in SIZES:
            case = Case("ResNet-44", precision, plain, engine, images[:size], targets[:size])
            rows += rows_of(case, options.repeats)
    return rows


def rows_of(case: Case, repeats: int, *, steps: int = _STEPS) -> list[Row]:
    """Two rows a solver: the engine against the network alone, and against the plain loop.

    The plain loop takes its turns on one thread and on all, and the faster counts.
    """

    def plain(count: int) -> object:
        with on_threads(count):
            return plain_explanations(case.plain, case.images, case.targets, rho=_RHO, steps=steps)

    all_threads = torch.get_num_threads()
    counts = [all_threads] if case.images.is_cuda else sorted({1, all_threads})
    state = _explanations(case.images, case.targets, steps)
    raw, *times = interleaved(
        [
            lambda: _raw(case.engine, case.images, steps),
            *(partial(plain, count) for count in counts),
            *(
                lambda advance=solver.advance: advance(case.engine, state, steps, execute=in_shares)
                for solver in SOLVERS.values()
            ),
        ],
        repeats,
    )
    ours = times[len(counts) :]
    theirs, threads = min(zip(times, counts, strict=False), key=lambda pair: pair[0].median)
    return [
        row
        for solver, times in zip(SOLVERS, ours, strict=True)
        for row in (
            _raw_row(case, solver, times, raw, steps),
            _plain_row(case, solver, times, theirs, steps, threads),
        )
    ]


def _raw(engine: nn.Module, images: Tensor, steps: int) -> None:
    """Forward pass and input gradient alone, the batch in the same shares on the same threads."""

    def work(rows: Tensor) -> None:
        own = images[rows.to(images.device)]
        for _ in range(steps):
            inputs = own.clone().requires_grad_()
            torch.autograd.grad(engine(inputs).sum(), inputs)

    rows = torch.arange(len(images))
    if images.is_cuda:
        work(rows)
    else:
        spread_over(engine, work, rows, len(images))


def _raw_row(case: Case, solver: str, ours: Times, raw: Times, steps: int) -> Row:
    ratios = raw.ratios(ours)
    ratio = statistics.median(ratios)
    return _row(
        case,
        f"{solver}, of the network alone",
        (ours.median, raw.median),
        steps,
        ratio,
        _OF_RAW,
        f"ratios {spread(ratios)}; of processor time {raw.cpu_ratio(ours):.2f}",
        len(ratios),
    )


def _plain_row(case: Case, solver: str, ours: Times, plain: Times, steps: int, threads: int) -> Row:
    ratios = plain.ratios(ours)
    is_wide = case.precision == BFLOAT16 and has_amx() and len(case.images) >= max(SIZES)
    return _row(
        case,
        f"{solver}, over the plain loop",
        (ours.median, plain.median),
        steps,
        statistics.median(ratios),
        _OVER_PLAIN_AMX if is_wide else _OVER_PLAIN,
        f"plain: float32, {threads} threads; ratios {spread(ratios)}; of processor time "
        f"{plain.cpu_ratio(ours):.2f}",
        len(ratios),
    )


def _row(
    case: Case,
    name: str,
    seconds: Sequence[float],
    steps: int,
    ratio: float,
    least: float,
    detail: str,
    repeats: int,
) -> Row:
    image_steps = len(case.images) * steps
    ours, theirs = (image_steps / each for each in seconds)
    return Row(
        measure=f"1 engine, {case.name}, {case.precision}, batch {len(case.images)}, {name}",
        ours=ours,
        baseline=theirs,
        unit="image-steps/s",
        ratio=ratio,
        goal=f">= {least:g} x",
        is_met=ratio >= least,
        n=repeats,
        detail=detail,
    )


def _explanations(images: Tensor, targets: Tensor, steps: int) -> SearchState:
    count, device = len(images), images.device
    return begin(
        images,
        goals=torch.full((count,), goal_code(Goal.EXPLAIN_FOR), device=device),
        targets=targets,
        rhos=torch.full((count,), _RHO, dtype=torch.float64, device=device),
        step_counts=torch.full((count,), steps, device=device),
        seeds=torch.arange(count, device=device),
    )

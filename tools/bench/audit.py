"""Measure 8: both ARAs of an audit by `fast` against the plain 450-step loop."""

import time
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from candor import terms
from candor.data.cifar10 import load_cifar10
from candor.robustness.ara import accuracy_robustness_area, naive_accuracy, paired_difference
from candor.runtime.compiled import compile_network, share_sizes
from candor.runtime.threads import in_shares
from candor.search.batch import plan_goal, run_searches
from candor.terms import Goal, SearchStatus
from tools.bench.baseline import RADIUS_STEPS, plain_network, plain_radii
from tools.bench.inputs import ROBUST, SHAPE, released_network, test_images
from tools.bench.table import Options, Row

_GOALS = (Goal.ATTACK, Goal.BTR)
_BATCH = 64
_IMAGES_A_COMPARED = 5  # audited for each image of the other measures: 1,000
_IMAGES_A_PLAIN = 25  # audited for each that the plain loop gets
_FASTER = 15.0


@dataclass(frozen=True, slots=True)
class _Searched:
    """One goal: (N,) RMSE, (N,) bool where it is only a lower bound, and the time it took."""

    radii: NDArray[np.float64]
    is_unresolved: NDArray[np.bool_]
    seconds: float


def measure(options: Options) -> list[Row]:
    """`fast` as `candor ara` runs it on all images, the plain loop on the first of them.

    The plain loop gets a subset because the whole would take hours; it keeps every image to the
    last step, so its time is in proportion to their number.  Images already wrong are part of both.
    """
    count = _IMAGES_A_COMPARED * options.image_count
    plain_count = max(2, count // _IMAGES_A_PLAIN)
    network = released_network(options, ROBUST)
    images, labels = test_images(options, count)
    started = time.perf_counter()
    compiled = compile_network(network, share_sizes(_BATCH, torch.device("cpu"))[1:], SHAPE)
    compile_seconds = time.perf_counter() - started
    fast = {goal: _fast(compiled, images, labels, goal) for goal in _GOALS}
    eager = plain_network(network)
    plain = {
        goal: _plain(eager, images[:plain_count], labels[:plain_count], goal) for goal in _GOALS
    }
    everything = load_cifar10(options.data_dir, "test")
    naive = naive_accuracy(everything.labels.numpy(), len(everything.class_names))
    return [
        _time_row(fast, plain, compile_seconds),
        *(_area_row(goal, fast[goal], plain[goal], naive, options.seed) for goal in _GOALS),
    ]


def _fast(network: nn.Module, images: Tensor, labels: Tensor, goal: Goal) -> _Searched:
    started = time.perf_counter()
    plan = plan_goal(goal, labels, steps=terms.FAST_RADIUS_STEPS)
    result = run_searches(
        network, images, plan, solver="fast", batch_size=_BATCH, execute=in_shares
    )
    seconds = time.perf_counter() - started
    unresolved = np.array([status is SearchStatus.UNRESOLVED for status in result.statuses])
    radii = np.where(unresolved, result.lower_bounds.numpy(), result.rmse.numpy())
    return _Searched(radii, unresolved, seconds)


def _plain(network: nn.Module, images: Tensor, labels: Tensor, goal: Goal) -> _Searched:
    started = time.perf_counter()
    parts = zip(torch.split(images, _BATCH), torch.split(labels, _BATCH), strict=True)
    found = [plain_radii(network, *part, goal) for part in parts]
    seconds = time.perf_counter() - started
    radii, unresolved = (torch.cat(column).numpy() for column in zip(*found, strict=True))
    return _Searched(radii.astype(np.float64), unresolved, seconds)


def _time_row(
    fast: dict[Goal, _Searched], plain: dict[Goal, _Searched], compile_seconds: float
) -> Row:
    count, plain_count = (len(found[Goal.ATTACK].radii) for found in (fast, plain))
    searching = sum(found.seconds for found in fast.values())
    measured = sum(found.seconds for found in plain.values())
    ours, theirs = compile_seconds + searching, measured * count / plain_count
    return Row(
        measure=f"8 audit, both ARAs of {count} images, ResNet-44 {ROBUST}",
        ours=ours,
        baseline=theirs,
        unit="s",
        ratio=theirs / ours,
        goal=f">= {_FASTER:g} x less wall time than {RADIUS_STEPS} plain steps",
        is_met=theirs >= _FASTER * ours,
        n=count,
        detail=(
            f"plain: {measured:.1f} s for n = {plain_count}, in proportion; ours: compiling "
            f"{compile_seconds:.1f} s, searching {searching:.1f} s ({theirs / searching:.1f} x "
            f"alone); {torch.get_num_threads()} threads, one run"
        ),
    )


def _area_row(goal: Goal, fast: _Searched, plain: _Searched, naive: float, seed: int) -> Row:
    """Both ARAs over the images that both saw."""
    count = len(plain.radii)
    ours = _Searched(fast.radii[:count], fast.is_unresolved[:count], fast.seconds)
    own, other = (
        accuracy_robustness_area(
            found.radii,
            naive=naive,
            generator=np.random.default_rng(seed),
            is_unresolved=found.is_unresolved,
        )
        for found in (ours, plain)
    )
    difference = paired_difference(
        ours.radii, plain.radii, naive=naive, generator=np.random.default_rng(seed)
    )
    return Row(
        measure=f"8 audit, {goal} ARA, ResNet-44 {ROBUST}",
        ours=own.value,
        baseline=other.value,
        unit="RMSE",
        ratio=other.value / own.value if own.value else None,
        goal="<= that of the plain loop on the same images",
        is_met=own.value <= other.value,
        n=count,
        detail=(
            f"95 %: ours {own.low:.4f} to {own.high:.4f}, plain {other.low:.4f} to "
            f"{other.high:.4f}, paired difference {difference.low:.5f} to {difference.high:.5f}; "
            f"unresolved: ours {own.unresolved_count}, plain {other.unresolved_count}"
        ),
    )

"""Measure 10: standard AutoAttack on many images of a shipped network, and the library alone."""

import time
from functools import partial

import torch
from torch import Tensor, nn

from candor.attacks.autoattack import autoattack, target_count
from candor.attacks.batching import PaddedBatches
from candor.attacks.candidates import Candidates
from candor.attacks.library import run_library
from candor.audit.sections.summary import ROBUSTBENCH_EPS_L2, ROBUSTBENCH_ROWS
from candor.models.folder import load_model
from candor.robustness.ara import accuracy_interval
from candor.runtime.preparation import compiled_for
from candor.runtime.threads import spread_over
from candor.stack.archives import MODELS_DIR
from tools.bench.inputs import test_images
from tools.bench.table import Options, Row
from tools.small_models import SMALL_MODEL

_BATCH = 64
_IMAGES_A_COMPARED = 5  # attacked for each image of the other measures: 1,000
_ALONE = 10  # of them by the library alone, one after the other
_REQUIRED_SECONDS = 3600.0


def measure(options: Options) -> list[Row]:
    """The shipped network of 32 x 32 pixels, compiled as an audit has it."""
    loaded = load_model(MODELS_DIR / SMALL_MODEL)
    images, labels = test_images(options, _IMAGES_A_COMPARED * options.image_count)
    started = time.perf_counter()
    compiled = compiled_for(loaded, _BATCH)
    seconds = time.perf_counter() - started
    return rows_of(loaded.network, compiled, images, labels, options.seed, compile_seconds=seconds)


def rows_of(
    network: nn.Module,
    compiled: nn.Module,
    images: Tensor,
    labels: Tensor,
    seed: int,
    *,
    compile_seconds: float = 0.0,
) -> list[Row]:
    """Time, robust accuracy, and whether the library alone comes to the same verdicts.

    The images that the library sees alone are the first that the network has right; it calls
    ``network`` as it is, one image at a time, and no PGD goes before its attacks.
    """
    found, seconds = _attacked(compiled, images, labels, seed)
    right = (_predictions(compiled, images) == labels).nonzero()[:, 0]
    return [
        _time_row(len(images), seconds + compile_seconds, compile_seconds),
        _accuracy_row(len(images), len(right), int((~found.is_found).sum())),
        _verdicts_row(network, images, labels, right[:_ALONE], found, seed),
    ]


def _attacked(
    network: nn.Module, images: Tensor, labels: Tensor, seed: int
) -> tuple[Candidates, float]:
    started = time.perf_counter()
    found, _ = autoattack(
        network,
        images,
        labels,
        ROBUSTBENCH_EPS_L2,
        _seeds(len(images), seed),
        batch_size=_BATCH,
        spread=partial(spread_over, network),
    )
    return found, time.perf_counter() - started


def _seeds(count: int, seed: int) -> list[int]:
    return [seed + row for row in range(count)]


@torch.no_grad()
def _predictions(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network(part).argmax(1) for part in torch.split(images, _BATCH)])


def _time_row(count: int, seconds: float, compile_seconds: float) -> Row:
    return Row(
        measure=f"10 AutoAttack, L2 {ROBUSTBENCH_EPS_L2:g}, {SMALL_MODEL}",
        ours=seconds,
        baseline=None,
        unit="s",
        ratio=None,
        goal=f"<= {_REQUIRED_SECONDS:g} s",
        is_met=seconds <= _REQUIRED_SECONDS,
        n=count,
        detail=f"compiling {compile_seconds:.1f} s; {torch.get_num_threads()} threads, one run",
    )


def _accuracy_row(count: int, right: int, unbroken: int) -> Row:
    robust, clean = accuracy_interval(unbroken, count), accuracy_interval(right, count)
    rows = ", ".join(f"{name} {its_robust:g}" for name, _, its_robust in ROBUSTBENCH_ROWS)
    return Row(
        measure=f"10 AutoAttack, L2 {ROBUSTBENCH_EPS_L2:g}, robust accuracy",
        ours=100.0 * robust.value,
        baseline=None,
        unit="%",
        ratio=None,
        goal="shown",
        is_met=True,
        n=count,
        detail=(
            f"95 % {robust.low:.1%} to {robust.high:.1%}; clean {clean.value:.1%} ({clean.low:.1%} "
            f"to {clean.high:.1%}); RobustBench, 10,000 images: {rows}"
        ),
    )


def _verdicts_row(
    network: nn.Module, images: Tensor, labels: Tensor, rows: Tensor, found: Candidates, seed: int
) -> Row:
    classes = network(images[:1]).shape[1]
    started = time.perf_counter()
    alone, _ = run_library(
        PaddedBatches(network),
        images[rows],
        labels[rows],
        ROBUSTBENCH_EPS_L2,
        [_seeds(len(images), seed)[row] for row in rows.tolist()],
        attacks=None,
        targets=target_count(classes),
    )
    seconds = time.perf_counter() - started
    equal = int((alone.is_found == found.is_found[rows]).sum())
    return Row(
        measure=f"10 AutoAttack, L2 {ROBUSTBENCH_EPS_L2:g}, verdicts of the library alone",
        ours=float(equal),
        baseline=float(len(rows)),
        unit="images",
        ratio=None,
        goal="every one the same",
        is_met=equal == len(rows),
        n=len(rows),
        detail=f"broken: {int(alone.is_found.sum())}; {seconds / len(rows):.1f} s an image alone",
    )

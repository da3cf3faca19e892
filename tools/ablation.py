"""What every start of solver `fast` is worth: each left out in turn, on the same images.

    python -m tools.ablation --images 200 --models model_store/cifar10-robust resnet44-all.pt

A variant may spend as many steps as the full set: the steps of a start that is left out go to the
others.  The result is written after every variant, so that a run that is stopped is not lost;
--show prints it.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import stats
from torch import Tensor, nn

from candor import terms
from candor.contracts.json_text import json_text
from candor.files.writing import write_file
from candor.models.folder import load_model
from candor.runtime.compiled import compile_network, share_sizes
from candor.runtime.processor import this_processor
from candor.runtime.threads import in_shares
from candor.search.batch import plan_goal, run_with
from candor.search.solvers import fast_solver
from candor.search.starts import STARTS, Aim, Point, Start
from candor.stack.archives import MODELS_DIR
from candor.terms import Goal, SearchStatus
from tools.bench.inputs import ROBUST, SHAPE, correct_images, released_network
from tools.bench.table import Options
from tools.small_models import SMALL_MODEL

_BATCH = 32
_CLEARLY_WORSE = 1.05
_RESAMPLES = 10_000
_FULL = "all starts"
_WIDTH = 130  # of the printed table, characters
_MODELS = (str(MODELS_DIR / SMALL_MODEL), f"resnet44-{ROBUST}.pt")


@dataclass(frozen=True, slots=True, kw_only=True)
class Radii:
    """Attack radii of one variant.

    Attributes:
        rmse: (N,) float64, infinite where no perturbation was found.
        steps: (N,) int64, evaluations of the network in each search.
    """

    rmse: NDArray[np.float64]
    steps: NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One variant against the full set of starts, on the same images.

    Attributes:
        network, variant: names.
        n: images.
        median_ratio, mean_ratio: of the radius to that of the full set; the mean is geometric.
            Above 1 the variant is worse.
        median_low, median_high, mean_low, mean_high: 95 % bootstrap intervals over the images.
        worse: share of the images whose radius is more than 5 % larger.
        worse_low, worse_high: 95 % Wilson interval.
        steps: mean of a search.
        missing: images without a perturbation.
    """

    network: str
    variant: str
    n: int
    median_ratio: float
    median_low: float
    median_high: float
    mean_ratio: float
    mean_low: float
    mean_high: float
    worse: float
    worse_low: float
    worse_high: float
    steps: float
    missing: int


def variants() -> dict[str, tuple[Start, ...]]:
    """The full table, each start left out in turn, and the last start alone.

    Without the first start no scouting is needed.  One more variant keeps that start and leaves out
    the scouting alone: the start then aims at the likeliest wrong class.
    """
    unscouted = replace(STARTS[0], point=Point.ORIGINAL, aim=Aim.LIKELIEST_CLASS)
    left_out = {
        f"without {start.name}": tuple(other for other in STARTS if other is not start)
        for start in STARTS
    }
    return {
        _FULL: STARTS,
        **left_out,
        "without scouting": (unscouted, *STARTS[1:]),
        f"{STARTS[-1].name} alone": STARTS[-1:],
    }


def attack_radii(
    network: nn.Module, images: Tensor, labels: Tensor, starts: Sequence[Start]
) -> Radii:
    """Radii of attacks that walk through ``starts``, each with the default number of steps.

    Args:
        images: (N, C, H, W) float32 in [0, 1].      labels: (N,) int64.
    """
    plan = plan_goal(Goal.ATTACK, labels, steps=terms.FAST_RADIUS_STEPS)
    result = run_with(
        fast_solver(starts), network, images, plan, batch_size=_BATCH, execute=in_shares
    )
    is_found = np.array([status is SearchStatus.FOUND for status in result.statuses])
    return Radii(rmse=np.where(is_found, result.rmse.numpy(), np.inf), steps=result.steps.numpy())


def compared(network: str, variant: str, ours: Radii, full: Radii, *, seed: int = 0) -> Row:
    """A variant's row; where neither found a perturbation the ratio is 1."""
    with np.errstate(invalid="ignore"):
        ratios = np.where(np.isinf(ours.rmse) & np.isinf(full.rmse), 1.0, ours.rmse / full.rmse)
    count = len(ratios)
    generator = np.random.default_rng(seed)
    resampled = ratios[generator.integers(0, count, (_RESAMPLES, count))]
    medians = np.quantile(np.median(resampled, axis=1), (0.025, 0.975))
    means = np.quantile(np.exp(np.log(resampled).mean(axis=1)), (0.025, 0.975))
    is_worse = ratios > _CLEARLY_WORSE
    share = stats.binomtest(int(is_worse.sum()), count).proportion_ci(method="wilson")
    return Row(
        network=network,
        variant=variant,
        n=count,
        median_ratio=float(np.median(ratios)),
        median_low=float(medians[0]),
        median_high=float(medians[1]),
        mean_ratio=float(np.exp(np.log(ratios).mean())),
        mean_low=float(means[0]),
        mean_high=float(means[1]),
        worse=float(is_worse.mean()),
        worse_low=float(share.low),
        worse_high=float(share.high),
        steps=float(ours.steps.mean()),
        missing=int(np.isinf(ours.rmse).sum()),
    )


def rows_of(name: str, network: nn.Module, images: Tensor, labels: Tensor) -> Iterator[Row]:
    """A row for each variant, as soon as it is measured."""
    full = attack_radii(network, images, labels, STARTS)
    for variant, starts in variants().items():
        is_full = variant == _FULL
        radii = full if is_full else attack_radii(network, images, labels, starts)
        yield compared(name, variant, radii, full)


def network_at(path: str, options: Options) -> tuple[str, nn.Module]:
    """Name and network of a model folder, or of a released checkpoint `resnet44-NAME.pt`."""
    stem = Path(path).stem
    if Path(path).suffix == ".pt":
        return stem, released_network(options, stem.removeprefix("resnet44-"))
    return Path(path).name, load_model(Path(path)).network


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """As a table whose columns are explained in `Row`."""
    table = Table("network", "variant", "n", "median ratio", "mean ratio", "> 5 % worse", "steps")
    for row in rows:
        table.add_row(
            row.network,
            row.variant,
            str(row.n),
            f"{row.median_ratio:.4f} [{row.median_low:.4f}, {row.median_high:.4f}]",
            f"{row.mean_ratio:.4f} [{row.mean_low:.4f}, {row.mean_high:.4f}]",
            f"{row.worse:.1%} [{row.worse_low:.1%}, {row.worse_high:.1%}]",
            f"{row.steps:.1f}",
        )
    console.print(table)


def main() -> None:
    command = argparse.ArgumentParser(prog="python -m tools.ablation", description=__doc__)
    command.add_argument("--models", nargs="+", default=_MODELS, metavar="PATH")
    command.add_argument("--images", type=int, default=200)
    command.add_argument("--seed", type=int, default=0, help="of the images drawn")
    command.add_argument("--out", type=Path, default=Path("ablation.json"))
    command.add_argument("--show", nargs="+", type=Path, help="print earlier results, compute none")
    arguments = command.parse_args()
    rows = _read(arguments.show) if arguments.show else _measured(arguments)
    print_rows(rows, Console(width=_WIDTH))


def _measured(arguments: argparse.Namespace) -> list[Row]:
    options = Options(
        data_dir=Path(os.environ.get("CANDOR_DATA", ".")),
        reference_dir=Path(os.environ.get("CANDOR_REFERENCE", ".")),
        image_count=arguments.images,
        repeats=1,
        seed=arguments.seed,
    )
    rows: list[Row] = []
    for path in arguments.models:
        name, plain = network_at(path, options)
        sizes = share_sizes(_BATCH, torch.device("cpu"))[1:]
        network = compile_network(plain, sizes, SHAPE)
        images, labels = correct_images(options, network, options.image_count)
        for row in rows_of(name, network, images, labels):
            rows.append(row)
            _write(arguments.out, rows)
    return rows


def _read(paths: Sequence[Path]) -> list[Row]:
    return [Row(**row) for path in paths for row in json.loads(path.read_text())["rows"]]


def _write(path: Path, rows: Sequence[Row]) -> None:
    content = {
        "torch": torch.__version__,
        "processor": this_processor().name,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "steps": terms.FAST_RADIUS_STEPS,
        "starts": [
            {**asdict(start), "point": start.point.name, "aim": start.aim.name} for start in STARTS
        ],
        "rows": [asdict(row) for row in rows],
    }
    write_file(path, (json_text(content, indent=2) + "\n").encode())


if __name__ == "__main__":
    main()

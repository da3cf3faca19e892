"""What a norm is worth: how many pixels an explanation changes for the same confidence.

    python -m tools.bench.norms --images 200 --models model_store/cifar10-robust resnet44-all.pt

Each image is explained in L2 at one RMSE.  In L1.5 and L1 the smallest rho is then looked for,
image by image, at which the target is no less likely, so that all explanations of an image are
equally convincing and differ in what they change.  The table goes into docs/solver-fast.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from candor import terms
from candor.runtime.compiled import compile_network, share_sizes
from candor.runtime.threads import in_shares
from candor.search.batch import plan_goal, run_searches
from candor.search.goals import log_odds
from candor.search.result import SearchResult
from candor.stack.archives import MODELS_DIR
from candor.terms import Goal, Norm
from tools.ablation import network_at
from tools.bench.inputs import ROBUST, SHAPE, other_targets, test_images
from tools.bench.table import options_of, parser
from tools.sections import write_section
from tools.small_models import SMALL_MODEL

PAGE = Path(__file__).resolve().parents[2] / "docs" / "solver-fast.md"
_MODELS = (str(MODELS_DIR / SMALL_MODEL), f"resnet44-{ROBUST}.pt")
_RHO = 0.1  # RMSE of the explanations in L2
_OTHERS = (Norm.L1_5, Norm.L1)
_LARGEST = {Norm.L1_5: 0.2, Norm.L1: 0.12}  # rho that is tried
_SMALLEST_SHARE = 1 / 8  # of the largest
_HALVINGS = 6  # of the range of rho on a logarithmic scale; the last is 3.3 % wide
_MOST = 0.9  # of the squared change of an image
_BATCH = 32
_HEAD = (
    "| network | norm | n | confidence | pixels changed | of those in L2 | fewer than in L2 "
    "| 90 % of the change in | RMSE | rho_1 | largest change |"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The explanations of one norm; (3,) are the quartiles over the images.

    Attributes:
        network, norm: names.
        n: images where the norm reaches the confidence of L2; the others have no part in it.
        confidence: (3,) of the target.
        sparsity: (3,) share of the pixels of which a colour changed by more than 1/255.
        ratio: (3,) of the changed pixels to those of L2 on the same image.
        fewer: share of the images of which fewer pixels change than in L2.
        core: (3,) share of the pixels that hold 90 % of the squared change.
        rmse, rho_1, rho_inf: (3,) sizes.
    """

    network: str
    norm: Norm
    n: int
    confidence: NDArray[np.float64]
    sparsity: NDArray[np.float64]
    ratio: NDArray[np.float64]
    fewer: float
    core: NDArray[np.float64]
    rmse: NDArray[np.float64]
    rho_1: NDArray[np.float64]
    rho_inf: NDArray[np.float64]


def rows_of(name: str, network: nn.Module, images: Tensor, targets: Tensor) -> list[Row]:
    """One row for each norm, L2 first."""
    plain = explained(network, images, targets, Norm.L2, torch.full((len(images),), _RHO))
    wanted = log_odds(plain.logits_after, targets)
    rows = [_row(name, Norm.L2, plain, plain, images, targets)]
    for norm in _OTHERS:
        rhos, is_reached = matching_rhos(network, images, targets, norm, wanted)
        found = explained(network, images, targets, norm, rhos)
        rows.append(_row(name, norm, found, plain, images, targets, is_reached))
    return rows


def explained(
    network: nn.Module, images: Tensor, targets: Tensor, norm: Norm, rhos: Tensor
) -> SearchResult:
    """The explanations of solver `fast`, each at its own rho (N,)."""
    plan = plan_goal(Goal.EXPLAIN_FOR, targets, steps=terms.FAST_EXPLAIN_STEPS, norm=norm)
    plan = replace(plan, rhos=rhos.double())
    return run_searches(network, images, plan, solver="fast", batch_size=_BATCH, execute=in_shares)


def matching_rhos(
    network: nn.Module, images: Tensor, targets: Tensor, norm: Norm, wanted: Tensor
) -> tuple[Tensor, Tensor]:
    """(N,) smallest rho found whose log-odds are at least ``wanted`` (N,), and where there is one.

    By bisection; where the log-odds do not rise with rho throughout, one of several such rhos.
    """
    high = torch.full((len(images),), _LARGEST[norm], dtype=torch.float64)
    low = high * _SMALLEST_SHARE
    is_reached = torch.zeros(len(images), dtype=torch.bool)
    for tried in range(_HALVINGS + 1):
        rhos = high if tried == 0 else (low * high).sqrt()
        result = explained(network, images, targets, norm, rhos)
        is_enough = log_odds(result.logits_after, targets) >= wanted
        is_reached = is_reached | is_enough
        high = torch.where(is_enough, rhos, high)
        low = torch.where(is_enough | (rhos == high), low, rhos)
    return high, is_reached


def core_share(deltas: Tensor) -> Tensor:
    """(N,) share of the pixels that hold 90 % of the squared change of deltas (N, C, H, W)."""
    squares = deltas.double().square().sum(dim=1).flatten(1)
    held = squares.sort(dim=1, descending=True).values.cumsum(dim=1)
    return ((held < _MOST * held[:, -1:]).sum(dim=1) + 1) / squares.shape[1]


def section(rows: Sequence[Row]) -> str:
    """The table in Markdown."""
    return "\n".join([_HEAD, "|---" * (_HEAD.count("|") - 1) + "|", *map(_line, rows)])


def _line(row: Row) -> str:
    cells = [
        row.network,
        row.norm.value,
        str(row.n),
        _quartiles(row.confidence, ".2f"),
        _quartiles(row.sparsity, ".1%"),
        _quartiles(row.ratio, ".2f"),
        f"{row.fewer:.0%}",
        _quartiles(row.core, ".1%"),
        _quartiles(row.rmse, ".3f"),
        _quartiles(row.rho_1, ".3f"),
        _quartiles(row.rho_inf, ".2f"),
    ]
    return f"| {' | '.join(cells)} |"


def _quartiles(values: NDArray[np.float64], form: str) -> str:
    first, median, third = (format(value, form) for value in values)
    return f"{median} ({first} to {third})"


def _row(
    name: str,
    norm: Norm,
    result: SearchResult,
    plain: SearchResult,
    images: Tensor,
    targets: Tensor,
    is_reached: Tensor | None = None,
) -> Row:
    chosen = torch.ones(len(targets), dtype=torch.bool) if is_reached is None else is_reached
    ratios = result.sparsity / plain.sparsity
    shares = result.logits_after.softmax(dim=1).gather(1, targets[:, None])[:, 0]

    def over(values: Tensor) -> NDArray[np.float64]:
        if not bool(chosen.any()):
            return np.full(3, np.nan)
        quartiles: NDArray[np.float64] = np.quantile(values[chosen].double(), (0.25, 0.5, 0.75))
        return quartiles

    return Row(
        network=name,
        norm=norm,
        n=int(chosen.sum()),
        confidence=over(shares),
        sparsity=over(result.sparsity),
        ratio=over(ratios),
        core=over(core_share(result.images - images)),
        fewer=float((ratios[chosen] < 1.0).double().mean()),
        rmse=over(result.rmse),
        rho_1=over(result.rho_1),
        rho_inf=over(result.rho_inf),
    )


def main() -> None:
    command = parser("python -m tools.bench.norms", __doc__)
    command.add_argument("--models", nargs="+", default=_MODELS, metavar="PATH")
    command.add_argument("--page", type=Path, default=PAGE, help="whose table is replaced")
    arguments = command.parse_args()
    options = options_of(arguments)
    images, labels = test_images(options, options.image_count)
    targets = other_targets(labels, 10, options.seed)
    rows: list[Row] = []
    for path in arguments.models:
        name, plain = network_at(path, options)
        network = compile_network(plain, share_sizes(_BATCH, torch.device("cpu"))[1:], SHAPE)
        rows += rows_of(name, network, images, targets)
        print(section(rows), flush=True)
    write_section(arguments.page, "norms", section(rows))


if __name__ == "__main__":
    main()

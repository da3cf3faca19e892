"""`make bench-train`: time and gradient of a training step with L_adv, in every precision.

The reference is eager double backward in float32.  Required: 3 times faster with AMX, else twice,
at a gradient whose cosine with the reference's is 0.999 or more.
"""

import copy
import itertools
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Generator, Tensor, nn

from candor.contracts.card import ModelCard
from candor.data.registry import load_dataset
from candor.models.folder import build_from_card, load_model
from candor.runtime.allocator import keep_freed_memory
from tools.bench.machine import BFLOAT16, description, has_amx
from tools.bench.table import Options, Row, options_of, parser, show
from training.config import TrainConfig
from training.engine import Engine, runner
from training.step import StepLoss, step_loss

_BATCH = 128
_TRAINED = Path(__file__).resolve().parents[2] / "model_store" / "cifar10-robust"
_FIRST_PSI = 220.0  # which an untrained network starts with in the paper's runs (III-C)

_REFERENCE = TrainConfig(architecture="cifar-resnet20", epochs=1)  # of the step, not of the network
_DIFFERENCE = replace(_REFERENCE, penalty_mode="finite-difference", engine="compiled")
_INNER = replace(_REFERENCE, penalty_mode="inner-gradient", engine="compiled")
_PLAIN = replace(_REFERENCE, psi_mode="fixed")
_DOUBLE, _OURS = "double backward", ("finite difference", "inner gradient", "inner, bfloat16")
_STEPS = {
    _DOUBLE: _REFERENCE,
    "finite difference": _DIFFERENCE,
    "inner gradient": _INNER,
    "inner, bfloat16": replace(_INNER, precision=BFLOAT16),
    "plain": _PLAIN,
    "plain, compiled": replace(_PLAIN, engine="compiled"),
    "plain, compiled, bfloat16": replace(_PLAIN, engine="compiled", precision=BFLOAT16),
}


@dataclass(frozen=True, slots=True)
class _Step:
    """A network as one configuration runs it, with a batch and psi."""

    called: nn.Module
    images: Tensor
    labels: Tensor
    config: TrainConfig
    psi: float

    def gradient(self, of: Callable[[StepLoss, float], Tensor]) -> Tensor:
        """All weights' gradient of a part of the loss, in one row."""
        self.called.zero_grad(set_to_none=True)
        is_half = self.config.precision == BFLOAT16
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            losses = step_loss(
                self.called,
                self.images,
                self.labels,
                config=self.config,
                class_count=10,
                is_penalised=self.config.has_penalty,
                generator=Generator().manual_seed(0),
            )
        torch.autograd.backward(of(losses, self.psi))
        weights = self.called.parameters()
        return torch.cat([w.grad.flatten() for w in weights if w.grad is not None])


def _whole(losses: StepLoss, psi: float) -> Tensor:
    if losses.penalty is None:
        return losses.cross_entropy
    return losses.cross_entropy + psi * losses.penalty


def _penalty_alone(losses: StepLoss, psi: float) -> Tensor:
    assert losses.penalty is not None
    # As part of the whole, so that every weight has a gradient.
    return psi * losses.penalty + 0.0 * losses.cross_entropy


def measure(options: Options) -> list[Row]:
    keep_freed_memory()
    data = load_dataset("cifar10", "train", options.data_dir)
    generator = Generator().manual_seed(options.seed)
    chosen = torch.randperm(len(data), generator=generator)[:_BATCH]
    images = data.images(chosen).contiguous(memory_format=torch.channels_last)
    model = load_model(_TRAINED)
    last_psi = float(model.card.recipe["history"][-1]["psi"])
    networks = {
        "untrained": (_untrained(model.card, options.seed), _FIRST_PSI),
        "trained": (model.network.requires_grad_().train(), last_psi),
    }
    rows = []
    for state, (network, psi) in networks.items():
        steps = {
            name: _step(network, images, data.labels[chosen], config, psi)
            for name, config in _STEPS.items()
        }
        for name in _OURS:
            rows += _agreement(f"{name}, {state} network", steps[name], steps[_DOUBLE])
    return _times(steps, options.repeats) + rows


def _step(
    network: nn.Module, images: Tensor, labels: Tensor, config: TrainConfig, psi: float
) -> _Step:
    called = runner(copy.deepcopy(network), Engine(config.engine))
    is_eager = config.engine == Engine.EAGER
    # The layout each had before there was another: what `torch` gives without being asked.
    batch = images.contiguous() if is_eager else images
    return _Step(called, batch, labels, config, psi)


def _untrained(card: ModelCard, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_from_card(card).train()


def _agreement(what: str, ours: _Step, reference: _Step) -> list[Row]:
    rows = []
    for name, part in (("whole gradient", _whole), ("L_adv alone", _penalty_alone)):
        got, expected = ours.gradient(part).double(), reference.gradient(part).double()
        cosine = torch.nn.functional.cosine_similarity(got, expected, dim=0).item()
        difference = ((got - expected).norm() / expected.norm()).item()
        rows.append(
            Row(
                measure=f"{name}: {what}",
                ours=cosine,
                baseline=None,
                unit="cosine",
                ratio=None,
                goal=">= 0.999",
                is_met=cosine >= 0.999,
                n=_BATCH,
                detail=f"relative difference {difference:.2g}, psi {ours.psi:g}",
            )
        )
    return rows


def _times(steps: dict[str, _Step], repeats: int) -> list[Row]:
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step.gradient(_whole)  # compiles, and fills the caches
    # In turn, so that what else the machine does meets all of them.
    for _, (name, step) in itertools.product(range(repeats), steps.items()):
        start = time.perf_counter(), time.process_time()
        step.gradient(_whole)
        # With one thread its own time, whoever else wants the core.
        is_alone = torch.get_num_threads() == 1
        seconds[name].append(
            time.process_time() - start[1] if is_alone else time.perf_counter() - start[0]
        )
    least = 3.0 if has_amx() else 2.0
    faster, cheaper = f">= {least:g} x faster than double backward", "<= 3 x the plain step"
    rows = [_time_row(seconds, name, _DOUBLE, faster, least) for name in _OURS]
    rows += [_time_row(seconds, name, "plain", cheaper, 1 / 3) for name in _OURS]
    rows += [_time_row(seconds, name, "plain", "", 0.0) for name in seconds if "plain," in name]
    return rows


def _time_row(
    seconds: dict[str, list[float]], name: str, baseline: str, goal: str, least: float
) -> Row:
    ours, other = (1000 * statistics.median(seconds[key]) for key in (name, baseline))
    spread = f"{1000 * min(seconds[name]):.0f}-{1000 * max(seconds[name]):.0f} ms"
    return Row(
        measure=f"step, {name} | {baseline}",
        ours=ours,
        baseline=other,
        unit="ms",
        ratio=other / ours,
        goal=goal,
        is_met=other / ours >= least,
        n=len(seconds[name]),
        detail=f"{spread}, {torch.get_num_threads()} threads",
    )


def main() -> None:
    arguments = parser("make bench-train", __doc__).parse_args()
    print(description(torch.device("cpu")))
    show(measure(options_of(arguments)), arguments)


if __name__ == "__main__":
    main()

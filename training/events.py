"""Writes the progress of a training run for TensorBoard."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from candor.runtime.threads import in_shares
from candor.search.batch import plan_goal, run_searches
from candor.terms import Goal
from training.loop import Progress

_STEPS_BETWEEN = 10
_SEARCH_STEPS = 20
_RHO = 0.1


class RunEvents:
    """Writes scalars every few steps, and explanations of a few images at each epoch's end.

    A callable for the ``report`` of `training.loop.train`.  It draws nothing and leaves weights,
    statistics and modes as they are, so a run ends the same with it and without.  A resumed run
    takes back what a killed one wrote after its last checkpoint.

    The explanations are those for the true class: above, the images; below, the same changed by
    solver `paper` within an RMSE of 0.1.

    Args:
        folder: made where it is missing.
        network: the one that is trained.
        images: (B, C, H, W) float32 in [0, 1].
        labels: (B,) int64.
    """

    def __init__(self, folder: Path, network: nn.Module, images: Tensor, labels: Tensor) -> None:
        self._folder = folder
        self._network = network
        self._images = images
        self._labels = labels
        self._writer: SummaryWriter | None = None

    def __call__(self, progress: Progress) -> None:
        if self._writer is None:
            self._writer = SummaryWriter(str(self._folder), purge_step=progress.step)
        if progress.step % _STEPS_BETWEEN == 0 or progress.is_epoch_end:
            self._write_scalars(self._writer, progress)
        if progress.is_epoch_end:
            self._writer.add_image("explanations", self._explained(), progress.step)
            self._writer.flush()

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _write_scalars(self, writer: SummaryWriter, progress: Progress) -> None:
        for name, value in (
            ("loss", progress.cross_entropy),
            ("accuracy", progress.accuracy),
            ("psi", progress.psi),
            ("gradient_norm", progress.gradient_norm),
            ("learning_rate", progress.learning_rate),
        ):
            writer.add_scalar(name, value, progress.step)

    def _explained(self) -> Tensor:
        """(C, 2 H, B W)."""
        device = next(self._network.parameters()).device
        images = self._images.to(device)
        plan = plan_goal(Goal.EXPLAIN_FOR, self._labels, steps=_SEARCH_STEPS, rho=_RHO)
        modes = {module: module.training for module in self._network.modules()}
        self._network.eval()
        try:
            found = run_searches(
                self._network, images, plan, solver="paper", execute=in_shares
            ).images
        finally:
            for module, was_training in modes.items():
                module.training = was_training
        rows = torch.stack([images, found.to(device)]).cpu()
        return rows.permute(2, 0, 3, 1, 4).flatten(3).flatten(1, 2)

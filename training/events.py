"""Writes the progress of a training run for TensorBoard."""

import logging
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.tensorboard.summary import image, scalar

from candor.runtime.threads import in_shares
from candor.search.batch import plan_goal, run_searches
from candor.terms import Goal
from training.event_file import EventFile
from training.loop import Progress

_STEPS_BETWEEN = 10
_SEARCH_STEPS = 20
_RHO = 0.1
_log = logging.getLogger("training.events")


class RunEvents:
    """Writes scalars every few steps, and explanations of a few images at each epoch's end.

    A callable for the ``report`` of `training.loop.train`.  It draws nothing and leaves weights,
    statistics and modes as they are, so a run ends the same with it and without.  A resumed run
    takes back what a killed one wrote after its last checkpoint.  Where they cannot be written, as
    on a full disk, one line says so, and the run goes on without.

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
        self._file: EventFile | None = None
        self._has_failed = False

    def __call__(self, progress: Progress) -> None:
        if self._has_failed:
            return
        try:
            self._write(progress)
        except OSError as err:
            self._has_failed = True
            _log.warning(
                "%s: no longer written (%s); the training goes on", self._folder, err.strerror
            )

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _write(self, progress: Progress) -> None:
        if self._file is None:
            self._file = EventFile(self._folder, progress.step)
        if progress.step % _STEPS_BETWEEN == 0 or progress.is_epoch_end:
            self._write_scalars(self._file, progress)
        if progress.is_epoch_end:
            self._file.add(
                image("explanations", self._explained(), dataformats="CHW"), progress.step
            )

    def _write_scalars(self, file: EventFile, progress: Progress) -> None:
        for name, value in (
            ("loss", progress.cross_entropy),
            ("accuracy", progress.accuracy),
            ("psi", progress.psi),
            ("gradient_norm", progress.gradient_norm),
            ("learning_rate", progress.learning_rate),
        ):
            file.add(scalar(name, value), progress.step)

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

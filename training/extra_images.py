"""Annotated images joined to the training data of a run.  (III-H)"""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path

from candor.data.annotated import drawn, joined, judged_beside, load_annotated
from candor.data.images import Images, ImageSet
from training.config import TrainConfig


class Control(StrEnum):
    """What to train with instead of the images judged unchanged."""

    RANDOM = "random"


def join_extra_images(
    config: TrainConfig, data: Images, extra: Path | None, control: Control | None
) -> tuple[TrainConfig, Images]:
    """The configuration with the extra images' digest, and the data with these images.

    Raises:
        ValueError: a control without extra images, a data set not held in memory, or see
            `candor.data.annotated`.
        DataMissing, DataDamaged: see `candor.data.annotated.load_annotated`.
    """
    if extra is None:
        if control is not None:
            raise ValueError(f"--control: expected only with --extra, got {control}")
        return replace(config, extra_digest=""), data
    if not isinstance(data, ImageSet):
        raise ValueError(f"--extra: expected data held in memory, got {data.name!r}")
    chosen = load_annotated(extra, data)
    if control is Control.RANDOM:
        # The paper's control (IV-C): as many judged images, whatever their verdicts.
        chosen = drawn(load_annotated(judged_beside(extra), data), len(chosen), config.seed)
    return replace(config, extra_digest=chosen.digest()), joined(data, chosen)

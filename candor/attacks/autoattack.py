"""Standard AutoAttack, L2."""

from collections.abc import Sequence

from torch import Tensor, nn

from candor.attacks.candidates import Candidates
from candor.attacks.library import run_library

_TARGETS = 9
_DLR_CLASSES = 4  # the targeted DLR loss of APGD compares four logits
_UNTARGETED = ("apgd-ce", "fab", "square")


def replacement_of_standard(class_count: int) -> tuple[str, ...] | None:
    """Attacks that `autoattack` runs in place of the standard set; None where it runs that."""
    return None if class_count >= _DLR_CLASSES else _UNTARGETED


def target_count(class_count: int) -> int:
    """Classes that the targeted attacks of the standard set aim at."""
    return min(_TARGETS, class_count - 1)


def autoattack(
    network: nn.Module, originals: Tensor, labels: Tensor, eps: float, seeds: Sequence[int]
) -> tuple[Candidates, list[str]]:
    """The four attacks of arXiv 2003.01690, and the warnings they gave.

    With fewer than four classes the targeted attacks do not exist; their untargeted forms run
    instead.

    Args:
        network, originals, labels, eps: as in `candor.attacks.fgsm.fgsm`.
        seeds: one for each image.
    """
    class_count = network(originals[:1]).shape[1]
    return run_library(
        network,
        originals,
        labels,
        eps,
        seeds,
        attacks=replacement_of_standard(class_count),
        targets=target_count(class_count),
    )

"""Standard AutoAttack, L2."""

from collections.abc import Sequence

from torch import Tensor, nn

from candor.attacks.batching import Spread, in_turn
from candor.attacks.candidates import Candidates
from candor.attacks.compacted import run_compacted

CHEAP_STEPS = 20  # of PGD, before the four attacks
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
    network: nn.Module,
    originals: Tensor,
    labels: Tensor,
    eps: float,
    seeds: Sequence[int],
    *,
    cheap_steps: int = CHEAP_STEPS,
    smaller: Candidates | None = None,
    batch_size: int = 64,
    spread: Spread = in_turn,
) -> tuple[Candidates, list[str]]:
    """The four attacks of arXiv 2003.01690, and the warnings they gave.

    They run one after the other on all images at once, and each sees only those that are still
    classified correctly: neither the wrong ones, nor those that a smaller ball or PGD in the same
    ball has broken already.  With fewer than four classes the targeted attacks do not exist; their
    untargeted forms run instead, one image at a time.

    Args:
        network, originals, labels, eps: as in `candor.attacks.fgsm.fgsm`.
        seeds: one for each image.
        cheap_steps: of PGD; 0 for none.
        smaller: what was found in a smaller ball around the same images.
        batch_size: images that one evaluation takes.
        spread: how the batches are run; `candor.runtime.threads.spread_over` gives each a thread.
    """
    class_count = network(originals[:1]).shape[1]
    return run_compacted(
        replacement_of_standard(class_count),
        network,
        originals,
        labels,
        eps,
        seeds,
        targets=target_count(class_count),
        cheap_steps=cheap_steps,
        smaller=smaller,
        batch_size=batch_size,
        spread=spread,
    )

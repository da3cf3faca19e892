"""Square Attack, L2."""

from collections.abc import Sequence

from torch import Tensor, nn

from candor.attacks.candidates import Candidates
from candor.attacks.library import run_library


def square(
    network: nn.Module,
    originals: Tensor,
    labels: Tensor,
    eps: float,
    seeds: Sequence[int],
    *,
    queries: int,
) -> tuple[Candidates, list[str]]:
    """Random search over the outputs without a gradient, and warnings.  (arXiv 1912.00049)

    Args:
        network, originals, labels, eps, seeds: as in `candor.attacks.autoattack.autoattack`.
        queries: forward passes for each image.
    """
    return run_library(
        network, originals, labels, eps, seeds, attacks=["square"], targets=1, queries=queries
    )

"""Square Attack, L2."""

from collections.abc import Sequence

from torch import Tensor, nn

from candor.attacks.batching import Spread, in_turn
from candor.attacks.candidates import Candidates
from candor.attacks.compacted import run_compacted


def square(
    network: nn.Module,
    originals: Tensor,
    labels: Tensor,
    eps: float,
    seeds: Sequence[int],
    *,
    queries: int,
    batch_size: int = 64,
    spread: Spread = in_turn,
) -> tuple[Candidates, list[str]]:
    """Random search over the outputs without a gradient, and warnings.  (arXiv 1912.00049)

    Args:
        network, originals, labels, eps, seeds, batch_size, spread: as in
            `candor.attacks.autoattack.autoattack`.
        queries: forward passes for each image.
    """
    return run_compacted(
        ["square"],
        network,
        originals,
        labels,
        eps,
        seeds,
        targets=1,
        queries=queries,
        batch_size=batch_size,
        spread=spread,
    )

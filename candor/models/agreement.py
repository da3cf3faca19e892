"""How far two computations of the same logits may be apart."""

import numpy as np
from numpy.typing import NDArray

LOGIT_TOLERANCE = 1e-4  # of the largest logit: float32 summed in another order


def logit_difference(
    logits: NDArray[np.float32], expected: NDArray[np.float32], *, more: float = 0.0
) -> float:
    """Largest absolute difference of two batches of logits (N, V).

    Args:
        more: what is allowed beyond rounding, as a share of the largest logit.
    Raises:
        ValueError: it is more than rounding explains.
    """
    difference = float(np.abs(logits - expected).max())
    largest = (LOGIT_TOLERANCE + more) * max(1.0, float(np.abs(expected).max()))
    if not difference <= largest:
        raise ValueError(
            f"logits: expected a difference to torch's of at most {largest:.2g}, "
            f"got {difference:.2g}"
        )
    return difference

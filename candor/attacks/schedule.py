"""How the step lengths of minimal-norm attacks fall."""

import math

LAST_STEP_SHARE = 0.01  # of the first step length, of DDN and FMN alike


def cosine(step: int, steps: int, first: float = 1.0, last: float = LAST_STEP_SHARE) -> float:
    """From ``first`` at step 0 towards ``last`` at ``steps`` along half a cosine."""
    return last + (first - last) * (1 + math.cos(math.pi * step / steps)) / 2

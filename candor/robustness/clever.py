"""CLEVER: an extreme-value estimate of the L2 radius, not a bound.

(Weng et al., arXiv 1801.10578.)  A network that hides its gradients gets too large a score
(Goodfellow, arXiv 1804.07870), so the number is only ever shown beside radii that were found.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import kstest, weibull_max
from torch import Generator, Tensor, nn

SMALLEST_P_VALUE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class CleverScore:
    """Estimate for one image.

    Attributes:
        radius_l2: smallest over the other classes, at most the ball's radius.
        is_fitted: whether the Weibull distribution of the class that decided is not rejected
            (Kolmogorov-Smirnov, 5 %).
    """

    radius_l2: float
    is_fitted: bool


def clever(
    network: nn.Module,
    image: Tensor,
    *,
    ball_l2: float,
    batches: int,
    samples: int,
    generator: Generator,
) -> CleverScore:
    """Untargeted CLEVER score: min over classes of margin / estimated Lipschitz constant.

    The largest gradient length of each of ``batches`` draws follows a reverse Weibull
    distribution; its end point estimates the constant of the margin y_c - y_j in the ball.  The
    gradients of all logits are taken once a point and serve every class j.

    Args:
        network: in evaluation mode; maps (B, C, H, W) to logits.
        image: (C, H, W) float32 in [0, 1].
        ball_l2: radius of the ball that is sampled, L2 > 0.
        batches, samples: draws, and points of each; >= 1, at least 5 draws for a fit.
        generator: source of the points.
    """
    if not ball_l2 > 0.0:
        raise ValueError(f"ball_l2: expected (0, inf), got {ball_l2!r}")
    if batches < 5 or samples < 1:
        raise ValueError(f"batches, samples: expected >= 5 and >= 1, got {batches}, {samples}")
    with torch.no_grad():
        logits = network(image[None])[0]
    own = int(logits.argmax())
    largest = np.stack(
        [
            _gradient_lengths(network, image, own, ball_l2, samples, generator).max(axis=0)
            for _ in range(batches)
        ]
    )
    margins = (logits[own] - logits).double().cpu().numpy()
    scores = []
    for other in range(len(margins)):
        if other == own:
            continue
        constant, is_fitted = _end_point(largest[:, other])
        radius = min(float(margins[other]) / constant, ball_l2) if constant > 0 else ball_l2
        scores.append((radius, is_fitted))
    radius, is_fitted = min(scores)
    return CleverScore(radius_l2=radius, is_fitted=is_fitted)


def _gradient_lengths(
    network: nn.Module, image: Tensor, own: int, ball: float, samples: int, generator: Generator
) -> NDArray[np.float64]:
    """(samples, V) lengths of the margins' gradients at uniform points of the ball."""
    directions = torch.randn(samples, image.numel(), generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    reach = torch.rand(samples, 1, generator=generator) ** (1.0 / image.numel())
    offsets = (ball * reach * directions).view(samples, *image.shape).to(image)
    with torch.enable_grad():
        points = (image + offsets).clamp(0.0, 1.0).requires_grad_()
        totals = network(points).sum(dim=0)
        rows = [
            torch.autograd.grad(total, points, retain_graph=True)[0].flatten(1) for total in totals
        ]
    gradients = torch.stack(rows, dim=1)
    lengths: NDArray[np.float64] = (
        (gradients[:, own : own + 1] - gradients).norm(dim=2).double().cpu().numpy()
    )
    return lengths


def _end_point(largest: NDArray[np.float64]) -> tuple[float, bool]:
    """Right end of the reverse Weibull distribution fitted to block maxima."""
    spread = float(np.ptp(largest))
    # All draws alike, as of a linear network: there is nothing to extrapolate.
    if spread <= 1e-6 * float(np.max(np.abs(largest))):
        return float(largest.max()), True
    shape, location, scale = weibull_max.fit(
        largest, 1.0, loc=float(largest.max()) + 0.1 * spread, scale=spread
    )
    p_value = kstest(largest, "weibull_max", args=(shape, location, scale)).pvalue
    # The maximum itself was seen; a fit that ends below it is none.
    end = max(float(location), float(largest.max()))
    return end, bool(p_value > SMALLEST_P_VALUE)

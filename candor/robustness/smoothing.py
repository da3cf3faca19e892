"""Randomised smoothing: certified L2 radii.  (arXiv 1902.02918)

The smoothed classifier g predicts the class that the base classifier f predicts most often under
Gaussian noise.  With probability at least 1 - alpha no perturbation of L2 length below the radius
changes the prediction of g.  Nothing is said about f itself.
"""

from dataclasses import dataclass

import torch
from scipy.stats import binomtest, norm
from torch import Generator, Tensor, nn

ABSTAIN = -1
_BATCH = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """What is certain about one image.

    Attributes:
        prediction: class of the smoothed classifier; `ABSTAIN` where no class is certain enough.
        radius_l2: certified L2 radius on the [0, 1] pixel scale; 0 where it abstains.
    """

    prediction: int
    radius_l2: float


def certify(
    network: nn.Module,
    image: Tensor,
    *,
    sigma: float,
    selection_samples: int,
    samples: int,
    alpha: float,
    generator: Generator,
) -> Certificate:
    """Algorithm CERTIFY: R = sigma Phi^-1(p_A) with p_A a one-sided Clopper-Pearson bound.

    Args:
        network: base classifier in evaluation mode; maps (B, C, H, W) to logits.  It sees noisy
            images unclipped, as the certificate needs.
        image: (C, H, W) float32 in [0, 1].
        sigma: standard deviation of the noise of one pixel, > 0.
        selection_samples, samples: noisy copies that choose the class, and that bound its share;
            >= 1.  They are different copies.
        alpha: probability that the certificate is wrong, (0, 1).
        generator: source of the noise.
    """
    _check(sigma, selection_samples, samples, alpha)
    chosen = int(_counts(network, image, sigma, selection_samples, generator).argmax())
    hits = int(_counts(network, image, sigma, samples, generator)[chosen])
    low = lower_bound(hits, samples, alpha)
    if low <= 0.5:
        return Certificate(prediction=ABSTAIN, radius_l2=0.0)
    return Certificate(prediction=chosen, radius_l2=float(sigma * norm.ppf(low)))


def lower_bound(hits: int, samples: int, alpha: float) -> float:
    """One-sided (1 - alpha) Clopper-Pearson bound of a share of ``hits`` in ``samples``."""
    interval = binomtest(hits, samples).proportion_ci(1.0 - 2.0 * alpha, method="exact")
    return float(interval.low)


@torch.no_grad()
def _counts(
    network: nn.Module, image: Tensor, sigma: float, samples: int, generator: Generator
) -> Tensor:
    counts: Tensor | None = None
    for start in range(0, samples, _BATCH):
        size = min(_BATCH, samples - start)
        noise = torch.randn(size, *image.shape, generator=generator).to(image)
        logits = network(image + sigma * noise)
        batch = torch.bincount(logits.argmax(1), minlength=logits.shape[1])
        counts = batch if counts is None else counts + batch
    assert counts is not None
    return counts


def _check(sigma: float, selection_samples: int, samples: int, alpha: float) -> None:
    if not 0.0 < sigma < float("inf"):
        raise ValueError(f"sigma: expected (0, inf), got {sigma!r}")
    for name, value in {"selection_samples": selection_samples, "samples": samples}.items():
        if value < 1:
            raise ValueError(f"{name}: expected [1, inf), got {value!r}")
    if not 0.0 < alpha < 0.5:
        raise ValueError(f"alpha: expected (0, 0.5), got {alpha!r}")

"""How two maps over an image's pixels relate.

A map is (H, W) float64, larger where a pixel counts more.
"""

import math

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

Map = NDArray[np.float64]

TOP_SHARE = 0.2  # of the pixels: a saliency's salient region


def energy_share(energy: Map, saliency: Map) -> float:
    """Share of ``energy`` inside the top fifth of the pixels of ``saliency``, [0, 1].

    The paper's test of a saliency (II-B): an adversarial change should lie mostly in the region
    marked salient.  Pixels tied at the limit count in proportion, so that a flat saliency has
    exactly a fifth.
    """
    wanted = TOP_SHARE * saliency.size
    limit = np.sort(saliency, axis=None)[::-1][math.ceil(wanted) - 1]
    is_above, is_tied = saliency > limit, saliency == limit
    part = (wanted - is_above.sum()) / is_tied.sum()
    total = float(energy.sum())
    inside = float(energy[is_above].sum() + part * energy[is_tied].sum())
    return min(1.0, inside / total) if total > 0 else TOP_SHARE


def rank_correlation(first: Map, second: Map) -> float:
    """Spearman's, [-1, 1]; 0 where one of the two is flat."""
    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    return float(np.clip(spearmanr(first, second, axis=None).statistic, -1.0, 1.0))


def cosine(first: Map, second: Map) -> float:
    """Cosine of the angle between the two, [-1, 1]; 0 where one of them is zero."""
    product = float(np.linalg.norm(first) * np.linalg.norm(second))
    if product == 0:
        return 0.0
    return float(np.clip(np.vdot(first, second) / product, -1.0, 1.0))

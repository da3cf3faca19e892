"""How large a perturbation is, in every norm, and how much of the image it changes."""

from collections.abc import Callable

import torch
from torch import Tensor

from candor.search.goals import NORMS, norm_code
from candor.search.state import rmse
from candor.terms import Norm

EXPONENTS = {Norm.L1: 1.0, Norm.L1_5: 1.5, Norm.L2: 2.0}  # of the norms that have one
_VISIBLE = 1.0 / 255.0  # one level of a picture of 8 bits


def powers(norm: Norm, values: Tensor) -> Tensor:
    """``values`` >= 0 to the power p of a norm of `EXPONENTS`."""
    if norm is Norm.L1_5:
        return values * values.sqrt()
    return values if norm is Norm.L1 else values.square()


def rho_in(norm: Norm, images: Tensor, originals: Tensor) -> Tensor:
    """(B,) float64 rho_p = (mean |delta|^p)^(1/p) between two batches (B, C, H, W) in [0, 1]."""
    if norm is Norm.L2:
        return rmse(images, originals)
    changes = _changes(images, originals).flatten(1)
    if norm is Norm.LINF:
        return changes.amax(dim=1)
    means: Tensor = powers(norm, changes).mean(dim=1)
    return means.pow(1.0 / EXPONENTS[norm])


def rhos_in(norms: Tensor | None, images: Tensor, originals: Tensor) -> Tensor:
    """(B,) float64 `rho_in`, each in its norm; the RMSE where ``norms`` is None."""
    lengths = rmse(images, originals)
    if norms is None:
        return lengths
    return by_norm(norms, lengths, lambda norm, rows: rho_in(norm, images[rows], originals[rows]))


def by_norm(norms: Tensor, plain: Tensor, work: Callable[[Norm, Tensor], Tensor]) -> Tensor:
    """(B, ...) the rows of ``plain`` in L2, and what ``work`` makes of the rows of another norm.

    Args:
        norms: (B,) int64 codes, see `candor.search.goals.norm_code`.
        work: called with a norm and the indices (R,) of its rows; returns (R, ...).
    """
    for norm in NORMS:
        rows = (norms == norm_code(norm)).nonzero()[:, 0]
        if norm is not Norm.L2 and len(rows):
            plain = plain.index_copy(0, rows, work(norm, rows).to(plain.dtype))
    return plain


def rmse_inside(images: Tensor, originals: Tensor, masks: Tensor | None) -> Tensor:
    """(B,) float64 RMSE over the pixels whose mask is above 0; NaN where there are no masks.

    Args:
        images, originals: (B, C, H, W).     masks: (B, 1, H, W).
    """
    if masks is None:
        return torch.full((len(images),), torch.nan, dtype=torch.float64, device=images.device)
    is_inside = (masks > 0).expand_as(images).flatten(1)
    squares = _changes(images, originals).square().flatten(1)
    return ((squares * is_inside).sum(dim=1) / is_inside.sum(dim=1)).sqrt()


def sparsity(images: Tensor, originals: Tensor) -> Tensor:
    """(B,) float64 share of the pixels of which a colour changed by more than 1/255."""
    return (_changes(images, originals).amax(dim=1) > _VISIBLE).double().flatten(1).mean(dim=1)


def _changes(images: Tensor, originals: Tensor) -> Tensor:
    return (images.to(torch.float64) - originals).abs()

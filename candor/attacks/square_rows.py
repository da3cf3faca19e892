"""The search of Square Attack, L2, on many images at once, each as if it were alone.

Step and schedule are those of the library (`pyautoattack.square`), whose batch shares its windows.
Here every image has windows and random numbers of its own, drawn in the order in which the library
draws them for one image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from pyautoattack.square import SquareAttack
from torch import Generator, Tensor

_SMALLEST_WINDOW = 3
_STRIPES = 5  # squares along an edge of the first image
_CORNERS = 4  # numbers of a query: top and left of two windows; then the pattern, then the signs
_TINY = 1e-12


@torch.no_grad()
def square_rows(
    attack: SquareAttack, originals: Tensor, labels: Tensor, seeds: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Random search over the margin; an image stops at its first success.  (arXiv 1912.00049)

    Args:
        attack: L2; holds the network, eps, the queries and the schedule.
        originals: (B, C, H, W) float32 in [0, 1].     labels: (B,) int64.
        seeds: one for each image.
    Returns:
        (B, C, H, W) the last images, the originals where no search reached another class, and (B,)
        int64 evaluations.
    """
    attack.init_hyperparam(originals)
    draws = _Draws(attack, originals.shape, seeds, originals.device)
    images = _striped(attack, originals, draws)
    margins = attack.margin_and_loss(images, labels)[0]
    queries = torch.ones(len(labels), dtype=torch.int64)
    for query in range(attack.n_queries):
        left = (margins > 0).nonzero()[:, 0]
        if not len(left):
            break
        moved = _moved(attack, originals[left], images[left], draws.of_query(query, left), query)
        reached = attack.margin_and_loss(moved, labels[left])[0]
        is_better = (reached < margins[left]) | (reached <= 0)
        images[left[is_better]] = moved[is_better]
        margins[left[is_better]] = reached[is_better]
        queries[left.cpu()] += 1
    is_found = (margins <= 0)[:, None, None, None]
    return torch.where(is_found, images, originals), queries


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Random numbers in [0, 1) of one query, an image a row.

    Attributes:
        corners: (B, 4), top and left of the window that changes, then of the one that is emptied.
        pattern: (B,), which way the pattern lies.     signs: (B, C), of the channels.
    """

    corners: Tensor
    pattern: Tensor
    signs: Tensor


class _Draws:
    """All random numbers of the images, those of image i from its own seed."""

    def __init__(
        self, attack: SquareAttack, shape: torch.Size, seeds: Sequence[int], device: torch.device
    ) -> None:
        self.channels = shape[1]
        down, across = _stripes(shape)
        self._start = down * across * (1 + self.channels)
        self._query = _CORNERS + 1 + self.channels
        count = self._start + attack.n_queries * self._query
        rows = [torch.rand(count, generator=Generator().manual_seed(seed)) for seed in seeds]
        self._numbers = torch.stack(rows).to(device)

    def of_stripe(self, number: int) -> _Numbers:
        """Of a square of the first images; there are no corners to draw."""
        begin = number * (1 + self.channels)
        drawn = self._numbers[:, begin : begin + 1 + self.channels]
        return _Numbers(drawn[:, :0], drawn[:, 0], drawn[:, 1:])

    def of_query(self, query: int, rows: Tensor) -> _Numbers:
        begin = self._start + query * self._query
        drawn = self._numbers[rows, begin : begin + self._query]
        return _Numbers(drawn[:, :_CORNERS], drawn[:, _CORNERS], drawn[:, _CORNERS + 1 :])


def _stripes(shape: torch.Size) -> tuple[int, int]:
    """How many squares the first images have from top to bottom and from left to right."""
    size = shape[2] // _STRIPES
    return shape[2] // size, shape[3] // size


def _pattern(attack: SquareAttack, size: int, drawn: _Numbers) -> Tensor:
    """(B, C, size, size): the library's pattern upright or on its side, with a sign a channel."""
    upright = torch.zeros(size, size, device=drawn.signs.device)
    upright[: size // 2] = attack.eta_rectangles(size // 2, size)
    upright[size // 2 :] = -1.0 * attack.eta_rectangles(size - size // 2, size)
    upright /= (upright**2).sum(dim=(0, 1), keepdim=True).sqrt()
    lies = (drawn.pattern > 0.5)[:, None, None, None]
    signs = torch.sign(2 * drawn.signs - 1)[:, :, None, None]
    # Contiguous, for the order of a sum is that of the memory.
    sideways = upright.T.contiguous()
    return torch.where(lies, sideways[None, None], upright[None, None]) * signs


def _striped(attack: SquareAttack, originals: Tensor, draws: _Draws) -> Tensor:
    """The first images: patterns side by side over the whole image."""
    size = originals.shape[2] // _STRIPES
    first = (originals.shape[2] - size * _STRIPES) // 2
    down, across = _stripes(originals.shape)
    deltas = torch.zeros_like(originals)
    for number in range(down * across):
        top, left = (first + size * place for place in divmod(number, across))
        pattern = _pattern(attack, size, draws.of_stripe(number))
        window = deltas[:, :, top : top + size, left : left + size]
        window += pattern[:, :, : window.shape[2], : window.shape[3]]
    return _in_ball(attack, originals, deltas)


def _in_ball(attack: SquareAttack, originals: Tensor, deltas: Tensor) -> Tensor:
    """(B, C, H, W) images with these perturbations at L2 eps, clipped to the box."""
    images: Tensor = (originals + attack.normalize(deltas) * attack.eps).clamp(0.0, 1.0)
    return images


def _window_size(attack: SquareAttack, shape: torch.Size, query: int) -> int:
    """Odd, and falling with the queries."""
    height, width = shape[2:]
    share = attack.p_selection(query)
    size = max(round(math.sqrt(share * height * width)), _SMALLEST_WINDOW)
    return min(size + (size % 2 == 0), height, width)


def _moved(
    attack: SquareAttack, originals: Tensor, images: Tensor, drawn: _Numbers, query: int
) -> Tensor:
    """One proposal an image: a window changes, and another gives it its share of the length."""
    deltas = images - originals
    _, channels, height, width = deltas.shape
    size = _window_size(attack, deltas.shape, query)
    room = torch.tensor([height - size, width - size], device=deltas.device).repeat(2)
    corners = (room * drawn.corners).long()
    changed, emptied = (_window(corners[:, at : at + 2], channels, size) for at in (0, 2))
    before = deltas[changed]
    own_length = (before**2).sum(dim=(-2, -1), keepdim=True).sqrt()
    is_either = torch.zeros_like(deltas)
    is_either[changed] = is_either[emptied] = 1.0
    lengths = attack.lp_norm(images - originals)
    both_lengths = ((deltas * is_either) ** 2).sum(dim=(-2, -1), keepdim=True).sqrt()
    pattern = _pattern(attack, size, drawn) + before / (_TINY + own_length)
    unused = torch.max((attack.eps * torch.ones_like(pattern)) ** 2 - lengths**2, 0 * pattern)
    pattern = (
        pattern
        / (_TINY + (pattern**2).sum(dim=(-2, -1), keepdim=True).sqrt())
        * (unused / channels + both_lengths**2).sqrt()
    )
    deltas[emptied] = 0.0
    deltas[changed] = pattern
    return _in_ball(attack, originals, deltas)


def _window(corners: Tensor, channels: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Indices of a square at ``corners`` (B, 2) of each image: (B, C, size, size)."""
    device = corners.device
    along = torch.arange(size, device=device)
    rows = torch.arange(len(corners), device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[None, :, None, None]
    down = (corners[:, :1] + along)[:, None, :, None]
    across = (corners[:, 1:] + along)[:, None, None, :]
    return rows, channel, down, across

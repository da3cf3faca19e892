"""Batched augmentations on the device: no Python per image.  Imports torch only."""

import torch
from torch import Generator, Tensor
from torch.nn import functional


def random_crop_flip(images: Tensor, *, padding: int, generator: Generator) -> Tensor:
    """Reflect the border by ``padding``, crop back at random, flip half of them.  (III-I1)

    Args:
        images: (B, C, H, W) float, not modified.
        padding: pixels of reflected border, < min(H, W).
        generator: the only source of randomness; on the device of ``images``.
    Returns:
        (B, C, H, W) of the same dtype.
    """
    batch, _, height, width = images.shape
    device = images.device
    shifts = torch.randint(2 * padding + 1, (2, batch), generator=generator, device=device)
    is_flipped = torch.rand(batch, generator=generator, device=device) < 0.5
    rows = shifts[0][:, None] + torch.arange(height, device=device)
    columns = shifts[1][:, None] + torch.arange(width, device=device)
    columns = torch.where(is_flipped[:, None], columns.flip(1), columns)
    padded = functional.pad(images, (padding,) * 4, mode="reflect")
    samples = torch.arange(batch, device=device)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[samples, rows[:, :, None], columns[:, None, :]]
    return cropped.permute(0, 3, 1, 2)

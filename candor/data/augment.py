"""Augmentations of whole batches on the device, without a Python loop over images."""

import math
from typing import Protocol

import torch
from kornia.geometry.transform import get_affine_matrix2d, hflip, warp_affine
from torch import Generator, Tensor
from torch.nn import functional

# Of a radiograph (III-I4): the trained region, and what its widest view needs of the film.
REGION_SIZE = 256
WINDOW_SIZE = 704
_SHEAR = math.radians(30.0)
_ROTATION = 45.0  # degrees
_SCALES = (0.61, 1.65)
_ERASED_SIDE = 64


class Augmentation(Protocol):
    """Makes training images from the images that were read.

    ``images`` is (B, C, H, W) float in [0, 1] and is not modified; ``generator``, on its device, is
    the only source of randomness; ``padding`` is `TrainConfig.crop_padding` in pixels.
    """

    def __call__(self, images: Tensor, *, padding: int, generator: Generator) -> Tensor: ...


def random_crop_flip(images: Tensor, *, padding: int, generator: Generator) -> Tensor:
    """Reflects the border by ``padding``, crops back at random and flips half.  (III-I1)

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


def random_flip(images: Tensor, *, padding: int, generator: Generator) -> Tensor:
    """Flips half of the images; their crops were drawn when they were read.  (III-I2, III-I3)

    Raises:
        ValueError: ``padding`` is not 0, although nothing is padded here.
    """
    _check_no_padding(padding)
    is_flipped = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(is_flipped[:, None, None, None], hflip(images), images)


def random_radiograph(images: Tensor, *, padding: int, generator: Generator) -> Tensor:
    """Shears, rotates and scales windows of a film to regions and erases a square.  (III-I4)

    Shear is horizontal and uniform in [-30, 30] degrees, rotation uniform in [-45, 45] degrees.
    The scale is log-uniform in [0.61, 1.65], which is 1/1.65 to 1.65: as often smaller as larger.
    The side of the square is uniform in 0 to 64 pixels, and so is its position; it is black or
    white.  The paper gives only the ranges; one square for each image is assumed.

    Args:
        images: (B, C, `WINDOW_SIZE`, `WINDOW_SIZE`) float in [0, 1], not modified.
        padding: must be 0.
        generator: the only source of randomness; on the device of ``images``.
    Returns:
        (B, C, `REGION_SIZE`, `REGION_SIZE`) of the same dtype.
    """
    _check_no_padding(padding)
    draws = torch.rand(7, len(images), generator=generator, device=images.device)
    turned = _warped(images, shear=draws[0], rotation=draws[1], scale=draws[2])
    return _erased(turned, side=draws[3], top=draws[4], left=draws[5], value=draws[6])


def _warped(images: Tensor, *, shear: Tensor, rotation: Tensor, scale: Tensor) -> Tensor:
    """``shear``, ``rotation`` and ``scale`` are (B,) in [0, 1), the position in their ranges."""
    low, high = _SCALES
    factors = low * (high / low) ** scale
    middle = torch.full((len(images), 2), (WINDOW_SIZE - 1) / 2, device=images.device)
    matrices = get_affine_matrix2d(
        translations=torch.full_like(middle, (REGION_SIZE - WINDOW_SIZE) / 2),
        center=middle,
        scale=factors[:, None].expand(-1, 2),
        angle=(2.0 * rotation - 1.0) * _ROTATION,
        sx=(2.0 * shear - 1.0) * _SHEAR,
        sy=torch.zeros_like(shear),
    )
    return warp_affine(images, matrices[:, :2].to(images.dtype), (REGION_SIZE, REGION_SIZE))


def _erased(images: Tensor, *, side: Tensor, top: Tensor, left: Tensor, value: Tensor) -> Tensor:
    """All four are (B,) in [0, 1)."""
    sides = (side * (_ERASED_SIDE + 1)).floor()
    is_inside = []
    for start, length in ((top, images.shape[2]), (left, images.shape[3])):
        first = (start * (length - sides + 1)).floor()[:, None]
        pixels = torch.arange(length, device=images.device)
        is_inside.append((pixels >= first) & (pixels < first + sides[:, None]))
    mask = is_inside[0][:, None, :, None] & is_inside[1][:, None, None, :]
    colours = (value < 0.5).to(images.dtype)[:, None, None, None]
    return torch.where(mask, colours, images)


def _check_no_padding(padding: int) -> None:
    if padding:
        raise ValueError(f"crop_padding: expected 0 for this data set, got {padding}")

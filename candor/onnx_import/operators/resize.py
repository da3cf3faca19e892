"""Sampling of maps: Resize and Upsample by one matrix an axis, and at points of a grid."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from candor.onnx_import.operators.operator import Operator, Versions

_Kernel = Callable[[Tensor], Tensor]
_ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "round_prefer_floor": lambda x: torch.ceil(x - 0.5),
    "round_prefer_ceil": lambda x: torch.floor(x + 0.5),
    "floor": torch.floor,
    "ceil": torch.ceil,
}


def resize(
    x: Tensor,
    roi: list[float] | None = None,
    scales: list[float] | None = None,
    sizes: list[int] | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    if coordinate_transformation_mode == "tf_crop_and_resize":
        raise ValueError("coordinate_transformation_mode: tf_crop_and_resize is not supported")
    if coordinate_transformation_mode == "align_corners" and scales:
        _check_whole([x.shape[axis] for axis in axes or range(x.ndim)], scales)
    places = [axis % x.ndim for axis in axes] if axes else list(range(x.ndim))
    old = [x.shape[axis] for axis in places]
    new, factors = _sizes(old, scales, sizes, keep_aspect_ratio_policy)
    for axis, size, factor in zip(places, new, factors, strict=True):
        if size == x.shape[axis] and factor == 1:
            continue
        points = _points(x.shape[axis], size, factor, coordinate_transformation_mode).to(x.device)
        if mode == "nearest":
            near = _ROUNDINGS[nearest_mode](points).long().clamp(0, x.shape[axis] - 1)
            x = x.index_select(axis, near)
            continue
        shrink = min(factor, 1.0) if antialias else 1.0
        reach, kernel = (2, _cubic(cubic_coeff_a)) if mode == "cubic" else (1, _triangle)
        matrix = _matrix(points, x.shape[axis], reach, kernel, shrink, bool(exclude_outside))
        x = torch.tensordot(x, matrix.to(x.dtype), ([axis], [1])).movedim(-1, axis)
    return x


def _check_whole(old: list[int], scales: list[float]) -> None:
    for size, scale in zip(old, scales, strict=True):
        if size * scale != round(size * scale):
            raise ValueError(
                f"scales: expected whole sizes with align_corners, got {size} * {scale}; "
                "ONNX and its runtimes disagree about the rest"
            )


def resize_10(x: Tensor, scales: list[float], *, mode: str = "nearest") -> Tensor:
    """Resize of version 10, and Upsample."""
    return resize(
        x,
        None,
        scales,
        mode=mode,
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )


def _sizes(
    old: list[int], scales: list[float] | None, sizes: list[int] | None, policy: str
) -> tuple[list[int], list[float]]:
    if scales:
        return [math.floor(size * scale) for size, scale in zip(old, scales, strict=True)], scales
    if not sizes:
        raise ValueError("expected scales or sizes, got neither")
    factors = [goal / size for goal, size in zip(sizes, old, strict=True)]
    if policy == "stretch":
        return list(sizes), factors
    factor = min(factors) if policy == "not_larger" else max(factors)
    return [math.floor(size * factor + 0.5) for size in old], [factor] * len(old)


def _points(old: int, new: int, factor: float, mode: str) -> Tensor:
    """Where the centre of each new pixel lies among the old ones."""
    places = torch.arange(new, dtype=torch.float64)
    if mode == "align_corners":
        return places * ((old - 1) / (new - 1)) if new > 1 else torch.zeros_like(places)
    if mode == "asymmetric":
        return places / factor
    if mode == "pytorch_half_pixel" and new == 1:
        return torch.zeros_like(places)
    if mode == "half_pixel_symmetric":
        adjustment = new / (factor * old)
        return old / 2 * (1 - adjustment) + (places + 0.5) / factor - 0.5
    if mode in ("half_pixel", "pytorch_half_pixel"):
        return (places + 0.5) / factor - 0.5
    raise ValueError(f"coordinate_transformation_mode: {mode!r} is not supported")


def _matrix(
    points: Tensor, old: int, reach: int, kernel: _Kernel, shrink: float, exclude: bool
) -> Tensor:
    """(new, old): the weights of the old pixels; those beyond the border fall on its pixel."""
    radius = math.ceil(reach / shrink) + 1
    steps = torch.arange(-radius, radius + 1, device=points.device)
    places = torch.floor(points).long()[:, None] + steps
    weights = kernel((places - points[:, None]) * shrink)
    if exclude:
        weights = torch.where((places >= 0) & (places < old), weights, 0.0)
    weights = weights / weights.sum(1, keepdim=True)
    matrix = weights.new_zeros(len(points), old)
    return matrix.scatter_add(1, places.clamp(0, old - 1), weights)


def _triangle(distance: Tensor) -> Tensor:
    return (1 - distance.abs()).clamp(min=0.0)


def _cubic(a: float) -> _Kernel:
    def kernel(distance: Tensor) -> Tensor:
        d = distance.abs()
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        return torch.where(d <= 1, near, torch.where(d < 2, far, 0.0))

    return kernel


_MODES = {"linear": "bilinear", "bilinear": "bilinear", "nearest": "nearest"}
_MODES |= {"cubic": "bicubic", "bicubic": "bicubic"}


def grid_sample(
    x: Tensor,
    grid: Tensor,
    *,
    align_corners: int = 0,
    mode: str = "linear",
    padding_mode: str = "zeros",
) -> Tensor:
    if x.ndim != 4:
        raise ValueError(f"expected maps (N, C, H, W), got {x.ndim} axes")
    return F.grid_sample(x, grid, _MODES[mode], padding_mode, bool(align_corners))


OPERATORS: dict[str, Versions] = {
    "GridSample": ((16, Operator(grid_sample)),),
    "Resize": ((10, Operator(resize_10, (1,))), (11, Operator(resize, (1, 2, 3)))),
    "Upsample": ((1, Operator(resize_10, (1,))),),
}

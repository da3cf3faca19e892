"""What ``preprocessor_config.json`` of transformers says of an image."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from candor.contracts.card import Preprocessing
from candor.contracts.violations import sentence

_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # Pillow's numbers
_WARPED_FROM = 384  # pixels: ConvNeXt's processor cuts nothing from there on


def _height_width(size: Any) -> tuple[int, int]:
    if isinstance(size, dict):
        edge = size.get("shortest_edge") or 0
        return int(size.get("height") or edge), int(size.get("width") or edge)
    return int(size or 0), int(size or 0)


def of_processor(given: Mapping[str, Any]) -> tuple[tuple[int, int], Preprocessing]:
    """Height and width of an input, and how an image becomes one.

    Raises:
        ValueError: what no card can say; the message names the field.
    """
    factor = given.get("rescale_factor", 1 / 255)
    if not given.get("do_rescale", True) or abs(factor * 255 - 1) > 1e-6:
        raise ValueError("rescale_factor: expected 1/255, got another")
    for name in ("rescale_offset", "do_pad", "do_thumbnail"):
        if given.get(name):
            raise ValueError(f"{name}: expected false, got {given[name]!r}")
    if not given.get("do_resize", True):
        raise ValueError("do_resize: expected true, got false")
    resize, edge, shape = _of_size(given)
    is_normal = bool(given.get("do_normalize", True))
    std = tuple(given.get("image_std", ())) if is_normal else ()
    if given.get("include_top"):  # EfficientNet's processor divides twice
        std = tuple(value**2 for value in std)
    values = {
        "resize": resize,
        "edge": edge,
        "interpolation": _FILTERS[int(given.get("resample", 2))],
        "offset": "floor",
        "channel_order": "bgr" if given.get("do_flip_channel_order") else "rgb",
        "normalization": "candor" if is_normal else "network",
        "mean": tuple(given.get("image_mean", ())) if is_normal else (),
        "std": std,
    }
    try:
        return shape, Preprocessing.model_validate(values)
    except ValidationError as err:
        raise ValueError(sentence(err)) from err


def _of_size(given: Mapping[str, Any]) -> tuple[str, tuple[int, ...], tuple[int, int]]:
    """How the image is resized, to which edges, and height and width after the crop."""
    size = given.get("size")
    shorter = size.get("shortest_edge") if isinstance(size, dict) else None
    if given.get("do_center_crop"):
        before = (int(shorter),) if shorter else _height_width(size)
        return "shorter-edge" if shorter else "exact", before, _height_width(given["crop_size"])
    shape = _height_width(size)
    if not all(shape):
        raise ValueError(f"size: expected height and width, got {size!r}")
    if not shorter:
        return "exact", shape, shape
    if "crop_pct" not in given:
        raise ValueError("do_center_crop: expected true for a shortest_edge, got false")
    if shorter >= _WARPED_FROM:
        return "exact", shape, shape
    return "shorter-edge", (int(shorter / given["crop_pct"]),), shape

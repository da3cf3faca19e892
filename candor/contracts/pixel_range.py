"""The one check that pixels lie in [0, 1], wherever an image enters."""

from typing import Any

from numpy.typing import NDArray


def pixel_range_error(pixels: NDArray[Any]) -> str | None:
    """Why ``pixels`` are not an image on the [0, 1] scale, or None if they are.

    Args:
        pixels: array of any shape and any floating-point type; not modified.
    """
    # NaN fails this comparison too.
    is_outside = ~((pixels >= 0) & (pixels <= 1))
    if not is_outside.any():
        return None
    # In full, because a rounded value could read as one that is permitted.
    return f"expected finite values in [0, 1], got {float(pixels[is_outside].flat[0])!r}"

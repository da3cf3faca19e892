"""Photographs to start with, which installed packages ship; none is part of Candor.

scikit-image's are CC0 or in the public domain, scikit-learn's under CC BY 2.0 (temple by
danielbuechele, flower by vultilion).  Their files are read without importing the packages.
"""

from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageOps

_EDGE = 256  # pixels of a square


class Photograph(NamedTuple):
    """One of them.

    Attributes:
        name: in links and options.
        shows: what people see on it, for those who do not see it.
        package, file: where it lies.
        place: of the square along the longer side, 0 is left, 1 is right.
    """

    name: str
    shows: str
    package: str
    file: str
    place: float = 0.5

    @property
    def path(self) -> Path | None:
        """The file; None where its package is not installed."""
        found = find_spec(self.package)
        places = (found.submodule_search_locations if found else None) or ()
        paths = (Path(place) / self.file for place in places)
        return next((path for path in paths if path.is_file()), None)


PHOTOGRAPHS = (
    Photograph("temple", "a temple", "sklearn", "datasets/images/china.jpg"),
    Photograph("flower", "a flower", "sklearn", "datasets/images/flower.jpg"),
    Photograph("cat", "a cat", "skimage", "data/chelsea.png"),
    Photograph("horse", "the silhouette of a horse", "skimage", "data/horse.png"),
    Photograph("rocket", "a rocket on its launch pad", "skimage", "data/rocket.jpg"),
    Photograph("coffee", "a cup of coffee", "skimage", "data/coffee.png", 0.3),
    Photograph("astronaut", "an astronaut", "skimage", "data/astronaut.png"),
)
# Drawn by this module, for where no package has a photograph.
DRAWING = Photograph("ship", "a drawing of a cargo ship at sea", "", "")


def photographs() -> tuple[Photograph, ...]:
    """Those of the packages that are installed, or `DRAWING` alone."""
    return tuple(one for one in PHOTOGRAPHS if one.path is not None) or (DRAWING,)


@cache
def square(photograph: Photograph) -> bytes:
    """JPEG of its middle as a square of 256 pixels.

    Raises:
        FileNotFoundError: its package is not installed.
    """
    image = ship() if photograph == DRAWING else _cut(photograph)
    content = BytesIO()
    image.save(content, format="JPEG", quality=90)
    return content.getvalue()


def _cut(photograph: Photograph) -> Image.Image:
    path = photograph.path
    if path is None:
        raise FileNotFoundError(
            f"photograph {photograph.name}: expected {photograph.file} of the installed package "
            f"{photograph.package}, found none"
        )
    with Image.open(path) as image:
        return ImageOps.fit(image.convert("RGB"), (_EDGE, _EDGE), centering=(photograph.place, 0.5))


def ship() -> Image.Image:
    """A cargo ship at sea, square."""
    image = Image.new("RGB", (_EDGE, _EDGE))
    draw = ImageDraw.Draw(image)
    for row in range(_EDGE):
        draw.line([(0, row), (_EDGE, row)], fill=_backdrop(row))
    for left, top in ((70, 106), (104, 92), (138, 106)):
        colour = ((178, 62, 46), (214, 176, 72), (72, 110, 150))[(left - 70) // 34]
        draw.rectangle((left, top, left + 30, 140), fill=colour)
    draw.rectangle((178, 74, 214, 140), fill=(236, 234, 226))
    draw.rectangle((184, 84, 208, 94), fill=(60, 74, 92))
    draw.rectangle((190, 50, 204, 74), fill=(150, 44, 40))
    draw.polygon([(26, 140), (234, 140), (214, 186), (52, 186)], fill=(44, 48, 60))
    draw.polygon([(44, 172), (222, 172), (214, 186), (52, 186)], fill=(142, 40, 36))
    draw.line([(48, 140), (48, 84)], fill=(70, 70, 74), width=4)
    return image


def _backdrop(row: int) -> tuple[int, int, int]:
    """Sky that pales toward the horizon, sea that darkens toward the foot."""
    if row < 180:
        share = row / 180
        return round(112 + 92 * share), round(160 + 60 * share), round(208 + 28 * share)
    share = (row - 180) / (_EDGE - 180)
    return round(52 - 26 * share), round(104 - 40 * share), round(140 - 44 * share)

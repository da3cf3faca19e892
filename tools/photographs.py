"""The photographs of the console, from those that scikit-image ships, as small squares.

`python -m tools.photographs` writes them anew.  scikit-image names the photographer and the licence
of each where it describes its data: all are CC0 or in the public domain.
"""

from importlib.resources import files
from pathlib import Path

from PIL import Image, ImageOps

from candor.gateway.web.photographs import PHOTOGRAPHS

_PAGES = Path(__file__).resolve().parents[1] / "candor" / "gateway" / "web" / "pages"
_EDGE = 256  # pixels
# File, and where the square lies along the longer side: 0 is left, 1 is right.
_SOURCES = {
    "cat": ("chelsea.png", 0.5),
    "horse": ("horse.png", 0.5),
    "rocket": ("rocket.jpg", 0.5),
    "coffee": ("coffee.png", 0.3),
    "astronaut": ("astronaut.png", 0.5),
}


def main() -> None:
    for photograph in PHOTOGRAPHS:
        name, place = _SOURCES[photograph.name]
        with files("skimage").joinpath("data", name).open("rb") as source:
            image = Image.open(source).convert("RGB")
        square = ImageOps.fit(image, (_EDGE, _EDGE), centering=(place, 0.5))
        square.save(_PAGES / photograph.file, quality=90, optimize=True)


if __name__ == "__main__":
    main()

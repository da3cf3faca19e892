"""The photographs that installed packages ship, and the drawing in their place."""

import io

import pytest
from PIL import Image

from candor.images import photographs
from candor.images.photographs import DRAWING, PHOTOGRAPHS, Photograph, square


@pytest.mark.parametrize("photograph", [*PHOTOGRAPHS, DRAWING], ids=lambda one: one.name)
def test_every_photograph_is_a_square_of_colours(photograph: Photograph) -> None:
    with Image.open(io.BytesIO(square(photograph))) as image:
        assert (image.size, image.mode, image.format) == ((256, 256), "RGB", "JPEG")
        assert len(image.getcolors(2**17) or range(2**17)) > 100


def test_without_their_packages_there_is_a_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    assert photographs.photographs() == (DRAWING,)
    missing = Photograph("none", "nothing", "skimage", "data/chelsea.png")
    with pytest.raises(FileNotFoundError, match="photograph none: expected data/chelsea.png"):
        square(missing)

"""Images of explanations: the difference is signed, centred and to scale; sheets stay crisp."""

import numpy as np
import pytest
from PIL import Image

from candor.viz.images import Panel, difference, sheet


def image(values: np.ndarray) -> Image.Image:
    return Image.fromarray(values.astype(np.uint8))


def test_a_difference_is_signed_centred_on_grey_and_to_scale() -> None:
    before = np.full((5, 7, 3), 100)
    after = before.copy()
    after[0, 0], after[1, 1], after[2, 2] = 151, 49, 100
    result = difference(image(before), image(after))
    shown = np.asarray(result.image)
    assert result.scale == pytest.approx(51 / 255)
    assert shown[0, 0].tolist() == [255] * 3
    assert shown[1, 1].tolist() == [0] * 3
    assert shown[2, 2].tolist() == [128] * 3


def test_no_difference_is_all_grey() -> None:
    same = image(np.full((4, 4, 3), 9))
    result = difference(same, same)
    assert result.scale == 0
    assert set(np.asarray(result.image).ravel().tolist()) == {128}


def test_a_sheet_magnifies_without_mixing_pixels() -> None:
    black_and_red = np.zeros((32, 32, 3))
    black_and_red[:, ::2, 0] = 255
    drawn = np.asarray(sheet([[Panel("", image(black_and_red)), None]]))
    colours = set(map(tuple, drawn.reshape(-1, 3).tolist()))
    assert colours == {(0, 0, 0), (255, 0, 0), (255, 255, 255)}
    assert (drawn == (255, 0, 0)).all(axis=-1).sum() == 32 * 16 * 9 * 9


def test_titles_of_other_scripts_are_drawn() -> None:
    image = pixels_of_one_grey()
    drawn = {
        text: sheet([[Panel(text, image)]]).tobytes() for text in ("\u0436", "\u0437", "\u732b")
    }
    assert len(set(drawn.values())) == 3


def pixels_of_one_grey() -> Image.Image:
    return Image.new("RGB", (8, 8), (90, 90, 90))

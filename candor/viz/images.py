"""Images of explanations for people: crisp, labelled, with the scale written in."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from candor.fonts import drawable, font_file
from candor.images.decode import FILE_LIMITS, open_image

_TILE = 288  # pixels an image's longer side is magnified to, about
_GAP = 24
_TITLE_SIZE, _NOTE_SIZE = 20, 15
_TITLE_HEIGHT, _LINE_HEIGHT = 32, 20
_PAPER, _INK, _MUTED = (255, 255, 255), (20, 20, 20), (90, 90, 90)


@dataclass(frozen=True, slots=True)
class Difference:
    """What an explanation changed.

    Attributes:
        image: mid-grey where nothing changed, brighter where a channel rose, darker where it
            fell; full white or black is a change of ``scale``.
        scale: the largest absolute change, on the [0, 1] pixel scale.
    """

    image: Image.Image
    scale: float


@dataclass(frozen=True, slots=True)
class Panel:
    """One tile of a sheet: a title, an image, lines under it."""

    title: str
    image: Image.Image
    notes: tuple[str, ...] = ()


def opened(encoded: bytes) -> Image.Image:
    """A PNG of the service's response as RGB."""
    return open_image(encoded, formats=("PNG",), limits=FILE_LIMITS)


def difference(before: Image.Image, after: Image.Image) -> Difference:
    """Signed difference of two RGB images of equal size."""
    delta = _pixels(after) - _pixels(before)
    scale = float(np.abs(delta).max())
    shifted = 0.5 + 0.5 * delta / (scale or 1.0)
    image = Image.fromarray(np.rint(shifted * 255).astype(np.uint8))
    return Difference(image=image, scale=scale)


def difference_sheet(title: str, result: Difference) -> Image.Image:
    """A difference alone, magnified, with its scale."""
    return sheet([[Panel(title, result.image, scale_notes(result))]])


def scale_notes(result: Difference) -> tuple[str, ...]:
    return (f"grey: unchanged, white: +{result.scale:.3f}, black: -{result.scale:.3f}",)


def sheet(rows: Sequence[Sequence[Panel | None]]) -> Image.Image:
    """Panels in rows and columns on white; None leaves a place empty."""
    tiles = [[None if panel is None else _tile(panel) for panel in row] for row in rows]
    drawn = [tile for row in tiles for tile in row if tile is not None]
    width = max(tile.width for tile in drawn) + _GAP
    heights = [max(tile.height for tile in row if tile is not None) + _GAP for row in tiles]
    columns = max(len(row) for row in rows)
    canvas = Image.new("RGB", (columns * width + _GAP, sum(heights) + _GAP), _PAPER)
    for row_index, row in enumerate(tiles):
        for column, tile in enumerate(row):
            if tile is not None:
                top = _GAP + sum(heights[:row_index])
                canvas.paste(tile, (_GAP + column * width, top))
    return canvas


def _tile(panel: Panel) -> Image.Image:
    image = _magnified(panel.image)
    title_font = ImageFont.truetype(font_file(), _TITLE_SIZE)
    note_font = ImageFont.truetype(font_file(), _NOTE_SIZE)
    title, notes = drawable(panel.title), tuple(map(drawable, panel.notes))
    widths = [title_font.getlength(title), *map(note_font.getlength, notes)]
    notes_height = _LINE_HEIGHT * len(panel.notes) + 8
    size = (max(image.width, round(max(widths))), _TITLE_HEIGHT + image.height + notes_height)
    tile = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(tile)
    draw.text((0, 2), title, fill=_INK, font=title_font)
    tile.paste(image, (0, _TITLE_HEIGHT))
    for line, note in enumerate(notes):
        top = _TITLE_HEIGHT + image.height + 6 + line * _LINE_HEIGHT
        draw.text((0, top), note, fill=_MUTED, font=note_font)
    return tile


def _magnified(image: Image.Image) -> Image.Image:
    factor = max(1, _TILE // max(image.size))
    size = (image.width * factor, image.height * factor)
    return image.convert("RGB").resize(size, Image.Resampling.NEAREST)


def _pixels(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image.convert("RGB"), dtype=np.float32) / np.float32(255)

"""The sample image with which the console starts, drawn by this module."""

from PIL import Image, ImageDraw

from candor.images.encode import png_of

_EDGE = 256


def sample_png() -> bytes:
    """A cargo ship at sea, square, as PNG."""
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
    return png_of(image)


def _backdrop(row: int) -> tuple[int, int, int]:
    """Sky that pales toward the horizon, sea that darkens toward the foot."""
    if row < 180:
        share = row / 180
        return round(112 + 92 * share), round(160 + 60 * share), round(208 + 28 * share)
    share = (row - 180) / (_EDGE - 180)
    return round(52 - 26 * share), round(104 - 40 * share), round(140 - 44 * share)

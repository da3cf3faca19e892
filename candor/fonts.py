"""The font of documents and images, and what it cannot draw.

DejaVu Sans comes with matplotlib, so the same text looks the same on every machine.  It has Latin,
Greek, Cyrillic, Armenian, Georgian and many signs.  Characters that it lacks are shown by their
code points, and so are scripts from right to left, which nothing here would put in order.
"""

import unicodedata
from functools import cache
from pathlib import Path

import matplotlib as mpl
from matplotlib.ft2font import FT2Font

FAMILY = "DejaVu Sans"
_RIGHT_TO_LEFT = frozenset(("R", "AL", "AN"))  # of Unicode's classes of direction


def font_file(*, is_bold: bool = False) -> Path:
    """The TrueType file of the font."""
    name = "DejaVuSans-Bold.ttf" if is_bold else "DejaVuSans.ttf"
    return Path(mpl.get_data_path()) / "fonts" / "ttf" / name


def drawable(text: str) -> str:
    """``text`` with ``[U+732B]`` in place of each character that cannot be drawn."""
    return "".join(one if is_drawable(one) else f"[U+{ord(one):04X}]" for one in text)


def undrawable(text: str) -> str:
    """The characters of ``text`` that cannot be drawn, each once, in the order of their codes."""
    return "".join(sorted({one for one in text if not is_drawable(one)}))


def is_drawable(char: str) -> bool:
    """Whether the font has the character; blanks and ends of lines need no glyph."""
    if char.isspace():
        return True
    return ord(char) in _charmap() and unicodedata.bidirectional(char) not in _RIGHT_TO_LEFT


@cache
def _charmap() -> frozenset[int]:
    both = (FT2Font(str(font_file(is_bold=is_bold))).get_charmap() for is_bold in (False, True))
    return frozenset.intersection(*map(frozenset, both))

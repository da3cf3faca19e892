"""What every section of the PDF is made of: its styles, paragraphs and tables."""

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle, getSampleStyleSheet
from reportlab.lib.units import mm
from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont
from reportlab.platypus import Paragraph, Table

from candor.fonts import drawable, font_file

BODY = ParagraphStyle("body", parent=getSampleStyleSheet()["BodyText"], fontSize=9, leading=12)
SMALL = ParagraphStyle("small", parent=BODY, fontSize=7, leading=8.6)
WARNING = ParagraphStyle(
    "warning", parent=BODY, backColor=colors.HexColor("#fff3da"), borderPadding=4, spaceBefore=6
)
TITLE = ParagraphStyle("title", parent=BODY, fontSize=17, leading=21, fontName="Helvetica-Bold")
HEAD = ParagraphStyle(
    "head", parent=BODY, fontSize=12, leading=15, spaceBefore=12, fontName="Helvetica-Bold",
    keepWithNext=True,
)  # fmt: skip
TEXT_WIDTH = A4[0] - 36 * mm
# Embedded, as far as it is used, where a text has characters that PDF's own fonts lack.
_FONTS = {False: "DejaVuSans", True: "DejaVuSans-Bold"}
for _is_bold, _name in _FONTS.items():
    pdfmetrics.registerFont(TTFont(_name, str(font_file(is_bold=_is_bold))))


def paragraph(words: str, style: ParagraphStyle = BODY) -> Paragraph:
    """Plain words; where PDF's own fonts lack a character, in one that is embedded."""
    if _is_of_own_fonts(words):
        return Paragraph(escape(words), style)
    font = _FONTS[style.fontName.endswith("-Bold")]
    return Paragraph(f'<font name="{font}">{escape(drawable(words))}</font>', style)


def _is_of_own_fonts(words: str) -> bool:
    """Whether the fonts that every reader of PDF has can draw it."""
    try:
        words.encode("cp1252")
    except UnicodeEncodeError:
        return False
    return True


def table_of(
    rows: Sequence[Sequence[Any]], shares: Sequence[float], *, has_head: bool = True
) -> Table:
    """Texts and other parts in columns, which have ``shares`` of the text's width."""
    cells = [[paragraph(c, SMALL) if isinstance(c, str) else c for c in row] for row in rows]
    style: list[tuple[Any, ...]] = [
        ("VALIGN", (0, 0), (-1, -1), "TOP"),
        ("LINEBELOW", (0, 0), (-1, -1), 0.4, colors.lightgrey),
        ("LEFTPADDING", (0, 0), (-1, -1), 2),
        ("TOPPADDING", (0, 0), (-1, -1), 2),
        ("BOTTOMPADDING", (0, 0), (-1, -1), 2),
    ]
    if has_head:
        style.append(("BACKGROUND", (0, 0), (-1, 0), colors.HexColor("#eef1f5")))
    return Table(
        cells, colWidths=[TEXT_WIDTH * share for share in shares], style=style,
        repeatRows=1 if has_head else 0, hAlign="LEFT", spaceBefore=4, spaceAfter=6,
    )  # fmt: skip

"""A gallery as files that need no network: pages of 60 entries, a style, a script and an index.

Each page holds its entries as HTML, so it can be read and printed without a script.  The script
filters and sorts over all pages; it finds the rows in a script file, because a page that was opened
from a disk may not fetch another file.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from candor.contracts.json_text import json_text
from candor.files.writing import write_files
from candor.gallery.entries import Entry, Gallery
from candor.gallery.shown import FACETS, ORDERS, shown

PAGE_ENTRIES = 60
FIRST_PAGE = "index.html"
_SMALL_EDGE = 100  # images below are magnified without smoothing
_SOURCE = Path(__file__).with_name("page")
_ASSETS = ("gallery.css", "gallery.js")
_INDEX = "gallery-index.js"


def gallery_files(gallery: Gallery) -> dict[str, bytes]:
    """Name and content of every file but the images; the first page is the last."""
    rows = [shown(entry) for entry in gallery.entries]
    pages = [rows[start : start + PAGE_ENTRIES] for start in range(0, len(rows), PAGE_ENTRIES)]
    template = _environment().get_template("gallery.html.j2")
    common = {
        "gallery": gallery,
        "is_small": gallery.edge < _SMALL_EDGE,
        "page_count": max(1, len(pages)),
        "facets": _facets(rows),
        "orders": _orders(rows),
        "empty": shown(Entry(name="", status="")),
        "page_name": page_name,
    }
    files = {name: (_SOURCE / name).read_bytes() for name in _ASSETS}
    files[_INDEX] = f"globalThis.galleryRows = {json_text(rows, is_compact=True)};\n".encode()
    for number, page in reversed(list(enumerate(pages or [[]], 1))):
        text = template.render(number=number, rows=page, **common)
        files[page_name(number)] = text.encode(errors="replace")
    return files


def write_gallery(folder: Path, gallery: Gallery) -> Path:
    """Write the pages into a folder that has the images, and delete pages of an earlier gallery.

    Returns:
        The first page.
    Raises:
        OSError: it cannot be written.
    """
    files = gallery_files(gallery)
    write_files(folder, files)
    for path in folder.glob("page-*.html"):
        if path.name not in files:
            path.unlink()
    return folder / FIRST_PAGE


def page_name(number: int) -> str:
    """The file of page ``number``, counted from 1; the script names them in the same way."""
    return FIRST_PAGE if number == 1 else f"page-{number:04d}.html"


def _environment() -> Environment:
    return Environment(
        loader=FileSystemLoader(_SOURCE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _facets(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str, list[str]]]:
    """Field, label and values of each facet that tells entries apart."""
    found = []
    for name, label in FACETS.items():
        values = sorted({value for row in rows for value in row["choices"][name]})
        if len(values) > 1:
            found.append((name, label, values))
    return found


def _orders(rows: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Value and words of each order that some entry has the number for."""
    return [
        (f"{sign}{name}", words)
        for name, both in ORDERS.items()
        if any(row["numbers"][name] is not None for row in rows)
        for sign, words in zip(("", "-"), both, strict=True)
    ]

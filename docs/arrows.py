"""``python docs/arrows.py`` writes the rooms' arrows of pyproject.toml into architecture.md.

The page's diagram is drawn by hand: no arrow may point from one of its rows to a higher one.
"""

import re
import sys
import tomllib
from pathlib import Path

from candor.files.writing import write_file

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "architecture.md"
_BEGIN, _END = "<!-- arrows -->\n", "<!-- end arrows -->"
_ROOM = re.compile(r"candor\.\w+|training|handlers|tools")


def arrows() -> dict[str, list[str]]:
    """Every room and the rooms it may import, as import-linter checks them; "*" for all."""
    settings = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    (lines,) = (contract["rooms"] for contract in contracts if contract["type"] == "rooms")
    pairs = (line.split(":") for line in lines)
    return {room: allowed.split() for room, allowed in pairs}


def table() -> str:
    """The arrows in Markdown."""
    rows = [_row(room, allowed) for room, allowed in arrows().items()]
    return "\n".join(["| room | may import |", "|---|---|", *rows]) + "\n"


def _row(room: str, allowed: list[str]) -> str:
    names = [f"`{name}`" if name != "*" else "every room" for name in allowed]
    return f"| `{room}` | {', '.join(names) or 'nothing of ours'} |"


def page() -> str:
    """The page as it should be."""
    before, rest = PAGE.read_text().split(_BEGIN)
    return f"{before}{_BEGIN}\n{table()}\n{_END}{rest.split(_END)[1]}"


def is_stale() -> bool:
    """Whether the page shows other arrows than import-linter checks."""
    return PAGE.read_text() != page()


def rows_of_diagram() -> dict[str, int]:
    """The row of every room in the page's diagram, 0 at the top."""
    diagram = PAGE.read_text().split("```text\n")[1].split("```")[0]
    rows = (_ROOM.findall(line) for line in diagram.splitlines())
    return {room: row for row, rooms in enumerate(filter(None, rows)) for room in rooms}


def against_diagram() -> list[str]:
    """Arrows that point upward in the diagram, and rooms that it lacks."""
    rows = rows_of_diagram()
    lacking = [f"{room} is missing" for room in arrows() if room not in rows]
    return lacking + [
        f"{room} -> {imported} points upward"
        for room, allowed in arrows().items()
        for imported in allowed
        if rows.get(imported, sys.maxsize) < rows.get(room, 0)
    ]


if __name__ == "__main__":
    write_file(PAGE, page().encode())
    sys.exit("\n".join(against_diagram()) or None)

"""``python docs/arrows.py`` writes the rooms' arrows of pyproject.toml into architecture.md."""

import sys
import tomllib
from pathlib import Path

DOCS = Path(__file__).resolve().parent
PAGE = DOCS / "architecture.md"
_BEGIN, _END = "<!-- arrows -->\n", "<!-- end arrows -->"


def table() -> str:
    """Every room and the rooms it may import, as import-linter checks them."""
    settings = tomllib.loads((DOCS.parent / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    (rooms,) = (contract["rooms"] for contract in contracts if contract["type"] == "rooms")
    rows = [_row(*line.split(":")) for line in rooms]
    return "\n".join(["| room | may import |", "|---|---|", *rows]) + "\n"


def _row(room: str, allowed: str) -> str:
    names = [f"`{name}`" if name != "*" else "every room" for name in allowed.split()]
    return f"| `{room}` | {', '.join(names) or 'nothing of ours'} |"


def page() -> str:
    """The page as it should be."""
    before, rest = PAGE.read_text().split(_BEGIN)
    return f"{before}{_BEGIN}\n{table()}\n{_END}{rest.split(_END)[1]}"


def is_stale() -> bool:
    """Whether the page shows other arrows than import-linter checks."""
    return PAGE.read_text() != page()


if __name__ == "__main__":
    PAGE.write_text(page())
    sys.exit(0)

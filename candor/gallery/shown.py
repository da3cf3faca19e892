"""An entry as the page shows it: words and numbers are written here and nowhere else.

The page's HTML and the index, from which its script filters and sorts, hold the same rows.
"""

import unicodedata
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from candor.gallery.entries import Entry, Guess

_JOINERS = "\u200c\u200d"  # parts of words in many scripts
_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
_NORMS = {"l1": "L1", "l1.5": "L1.5", "l2": "RMSE", "linf": "Linf"}

# What visitors choose entries by: field of a row's `choices`, and its label.
FACETS = {
    "part": "Part",
    "was": "It was",
    "now": "It is now",
    "target": "Target",
    "status": "Status",
}
# What visitors sort by: number in a row's `numbers`, and what its smallest and largest are called.
ORDERS = {
    "radius": ("radius, smallest first", "radius, largest first"),
    "confidence": ("confidence, lowest first", "confidence, highest first"),
    "change": ("change, smallest first", "change, largest first"),
}


def shown(entry: Entry) -> dict[str, Any]:
    """The row of an entry.

    Returns:
        ``texts``, ``facts`` (a term and a value each), ``images``, ``alts``, the ``choices`` it is
        found by and the ``numbers`` it is sorted by.
    """
    was, now = _said(entry.was), _said(entry.now)
    return {
        "texts": {
            "name": _visible(entry.name),
            "status": entry.status,
            "error": _visible(entry.error or ""),
            "was": was[0],
            "was_share": was[1],
            "now": now[0],
            "now_share": now[1],
        },
        "facts": [[term, value] for term, value in _facts(entry)],
        "images": {
            "original": _address(entry.original),
            "explanation": _address(entry.explanation),
        },
        "alts": {"original": f"image: {was[0]}", "explanation": f"explanation: {now[0]}"},
        "choices": {
            "part": list(entry.parts),
            "was": [was[0]] if was[0] else [],
            "now": [now[0]] if now[0] else [],
            "target": [entry.target] if entry.target else [],
            "status": [entry.status],
        },
        "numbers": {
            "radius": entry.radius_above if entry.radius is None else entry.radius,
            "confidence": entry.after,
            "change": entry.distances.get("l2"),
        },
    }


def radius_words(radius: float | None, above: float | None) -> str:
    """A radius, or the RMSE up to which nothing was found; empty where neither is known."""
    if radius == 0:
        return "0, wrong as it came"
    if radius is not None:
        return f"RMSE {_number(radius)}"
    return "" if above is None else f"above RMSE {_number(above)}"


def _said(guess: Guess | None) -> tuple[str, str]:
    return ("", "") if guess is None else (guess.name, _percent(guess.confidence))


def _facts(entry: Entry) -> Iterator[tuple[str, str]]:
    if entry.parts:
        yield "part", ", ".join(entry.parts)
    if entry.label is not None:
        yield "label", entry.label
    if entry.target is not None:
        shares = (entry.before, entry.after)
        moved = " to ".join(_percent(share) for share in shares if share is not None)
        yield "target", f"{entry.target}{', ' if moved else ''}{moved}"
    if entry.rho is not None:
        yield "asked for", f"{_NORMS.get(entry.norm or 'l2', entry.norm)} {_number(entry.rho)}"
    distances = {name: value for name, value in entry.distances.items() if value is not None}
    if distances:
        words = (f"{_NORMS.get(name, name)} {_number(each)}" for name, each in distances.items())
        yield "change", ", ".join(words)
    if entry.sparsity is not None:
        yield "pixels changed", _percent(entry.sparsity)
    if radius := radius_words(entry.radius, entry.radius_above):
        yield "radius", radius
    yield from entry.notes


def _visible(text: str) -> str:
    """The text with a sign for what nobody sees, such as a turn of the writing direction."""
    return "".join(
        one if one in _JOINERS or unicodedata.category(one) not in _INVISIBLE else "\ufffd"
        for one in text
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _number(value: float) -> str:
    return f"{value:.3g}"


def _address(path: str | None) -> str:
    return "" if path is None else quote(path)

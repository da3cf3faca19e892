"""Parts of a page that a command writes: between ``<!-- NAME -->`` and ``<!-- end NAME -->``."""

import fcntl
from pathlib import Path


def with_section(text: str, name: str, body: str) -> str:
    """The page with another section; all around it stays.

    Raises:
        ValueError: the page has no such section.
    """
    begin, end = f"<!-- {name} -->\n", f"<!-- end {name} -->"
    head, found, rest = text.partition(begin)
    _, closed, tail = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"section: expected one between {begin.strip()} and {end}, got {name!r}")
    return f"{head}{begin}\n{body}\n\n{end}{tail}"


def write_section(path: Path, name: str, body: str) -> None:
    """Replaces a section of a page, see `with_section`; two commands may do so at once."""
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text = with_section(file.read(), name, body)
        file.seek(0)
        file.write(text)
        file.truncate()

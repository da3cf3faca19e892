"""Options of the commands that write signed reports."""

from pathlib import Path
from typing import Annotated

import typer

from candor.audit.report.signing import default_key_file

KeyFile = Annotated[
    Path | None,
    typer.Option("--key", help="Ed25519 private key (PEM); default: one made for this user."),
]
CompareDir = Annotated[
    Path | None, typer.Option("--compare", help="Folder of a report on the same images.")
]


def key_file(path: Path | None) -> Path:
    """The key named, or the user's own."""
    return path or default_key_file()


def required(name: str, path: Path | None) -> Path:
    """The folder of an option that only some of an application's commands need."""
    if path is None:
        raise ValueError(f"{name}: expected a folder (--{name}), got nothing")
    return path


def attack_names(text: str | None) -> tuple[str, ...]:
    """Names between commas; none where nothing was given."""
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())

"""Output of commands: JSON on standard output, text for people on standard error."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console

from candor.contracts.errors import ServiceError
from candor.contracts.json_text import json_text
from candor.contracts.secrets import without_secrets
from candor.stack.errors import ArchiveError, StackError

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def console() -> Console:
    """Text for people, on standard error: standard output is for --json alone."""
    return Console(stderr=True)


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    sys.stdout.write(json_text(value, indent=2) + "\n")
    sys.stdout.flush()


@contextmanager
def clear_errors(command: str) -> Iterator[None]:
    """Turn the errors a user can cause into one line and exit code 1; others stay tracebacks."""
    try:
        yield
    except (ValueError, OSError, ServiceError, ArchiveError, StackError) as err:
        text = without_secrets(f"candor {command}: {err}")
        console().print(text, style="red", markup=False, soft_wrap=True)
        raise typer.Exit(1) from err

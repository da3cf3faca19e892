"""Output of commands: JSON on standard output, text for people on standard error."""

import os
import sys
import traceback
from contextlib import suppress
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console

from candor.cli.missing import missing_package
from candor.contracts.errors import ServiceError
from candor.contracts.json_text import json_text
from candor.contracts.secrets import without_secrets
from candor.contracts.violations import sentence
from candor.stack.errors import ArchiveError, StackError

AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
_TRACEBACK_VARIABLE = "CANDOR_TRACEBACK"
_MAX_CHARS = 2000
NOT_COMPLETE = 3  # there is a report, and attacks failed in it
_STOPPED = 130  # what shells say of Ctrl-C


def console(*, is_error: bool = True, width: int | None = None) -> Console:
    """Text for people, by default on standard error: standard output is for --json alone.

    Names stay as they are: [b] is no markup, and :cat: no picture of a cat.
    """
    return Console(stderr=is_error, width=width, markup=False, emoji=False)


def print_json(value: Any) -> None:
    """One JSON document on standard output.

    Raises:
        OSError: it is closed or full.
    """
    if sys.stdout is None:
        raise OSError("standard output: expected an open one, got a closed one")
    sys.stdout.write(json_text(value, indent=2) + "\n")
    flush_output()


def flush_output() -> None:
    """Raises: OSError: standard output is closed or full; nothing more is written to it then."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as err:
        with suppress(OSError, ValueError):  # Python writes the rest when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OSError(f"standard output: {err.strerror}") from err


def report_failure(command: str, err: BaseException) -> int:
    """Show one line for an error of a command, with the notes added to it; its exit code."""
    if shows_tracebacks():
        traceback.print_exception(err)
    reasons = [_reason(err), *getattr(err, "__notes__", ())]
    text = " ".join("; ".join(reasons).split())[:_MAX_CHARS]
    name = f"candor {command}".strip()
    line = without_secrets(f"{name}: {text}")
    console().print(line, style="red", markup=False, soft_wrap=True)
    return _STOPPED if isinstance(err, KeyboardInterrupt) else 1


def shows_tracebacks() -> bool:
    """Whether the user wants to see where a command failed."""
    return bool(os.environ.get(_TRACEBACK_VARIABLE))


def _reason(err: BaseException) -> str:
    if isinstance(err, KeyboardInterrupt):
        return "stopped"
    if isinstance(err, ModuleNotFoundError):
        with suppress(ModuleNotFoundError):  # a module of ours, which is a defect
            return missing_package(err).removeprefix("candor: ")
    if isinstance(err, ValidationError):
        return sentence(err, "value")
    if isinstance(err, OSError) and err.strerror:
        return ": ".join(str(part) for part in (err.filename, err.strerror) if part is not None)
    if isinstance(err, ValueError | OSError | ServiceError | StackError | ArchiveError):
        return str(err) or type(err).__name__
    if isinstance(err, MemoryError):
        return "the memory is too small for this"
    if type(err).__module__.startswith("sqlalchemy"):
        return f"store: {getattr(err, 'orig', None) or type(err).__name__}"
    return f"internal error ({type(err).__name__}: {err}); {_TRACEBACK_VARIABLE}=1 shows where"

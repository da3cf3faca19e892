"""The command `candor verify`."""

from pathlib import Path
from typing import Annotated

import typer

from candor.audit.report.signing import verify_folder
from candor.cli.audit_screen import show_verdict
from candor.cli.output import AsJson


def verify(
    folder: Annotated[Path, typer.Argument(help="Folder of a report.")],
    public_key: Annotated[
        str | None, typer.Option(help="Base64 of the key it must be signed with.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a report's signature and files; names what was changed, then exits with 1."""
    verdict = verify_folder(folder, public_key)
    show_verdict(verdict, as_json)
    if not verdict.is_genuine:
        raise typer.Exit(1)

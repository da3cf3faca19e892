"""The commands `candor store ...`: export and import."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from candor.cli.output import AsJson, console, print_json
from candor.cli.store_options import DEFAULT_STORE, StoreAddress, opened_store
from candor.store.transfer import export_store, import_store

app = typer.Typer(help="Everything in the store as one file, and back.", no_args_is_help=True)


@app.command("export")
def export(
    out: Annotated[Path, typer.Option(help="Zip to write.")],
    store: StoreAddress = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Write candidates, annotators and annotations to a zip."""
    with opened_store(store) as opened:
        _show(f"{out}:", asdict(export_store(opened, out)), as_json)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="Zip written by `candor store export`.")],
    store: StoreAddress = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Add what a zip holds; what the store already has stays as it is."""
    with opened_store(store) as opened:
        _show("new:", asdict(import_store(opened, file)), as_json)


def _show(heading: str, counts: dict[str, int], as_json: bool) -> None:
    if as_json:
        print_json(counts)
    else:
        shown = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        console().print(f"{heading} {shown}", markup=False)

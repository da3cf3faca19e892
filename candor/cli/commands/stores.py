"""The option that names a store, and `candor store`: export and import."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from candor.cli.output import AsJson, clear_errors, console, print_json

if TYPE_CHECKING:
    from candor.store.engine import Store

DEFAULT_STORE = "runs/store.sqlite"
StoreAddress = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="CANDOR_STORE_URL",
        help="Path of an SQLite file, or postgresql://USER@HOST/NAME.",
    ),
]

app = typer.Typer(help="Everything in the store as one file, and back.", no_args_is_help=True)


@contextmanager
def opened_store(address: str) -> Iterator["Store"]:
    """The store, created or migrated as needed, and closed again."""
    from candor.store.engine import open_store

    store = open_store(address)
    try:
        yield store
    finally:
        store.close()


@app.command("export")
def export(
    out: Annotated[Path, typer.Option(help="Zip to write.")],
    store: StoreAddress = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Write candidates, annotators and annotations to a zip."""
    with clear_errors("store export"), opened_store(store) as opened:
        from candor.store.transfer import export_store

        written = asdict(export_store(opened, out))
        _tell(f"{out}:", written, as_json)


@app.command("import")
def import_(
    file: Annotated[Path, typer.Argument(help="Zip written by `candor store export`.")],
    store: StoreAddress = DEFAULT_STORE,
    as_json: AsJson = False,
) -> None:
    """Add what a zip holds; what the store already has stays as it is."""
    with clear_errors("store import"), opened_store(store) as opened:
        from candor.store.transfer import import_store

        added = asdict(import_store(opened, file))
        _tell("new:", added, as_json)


def _tell(what: str, counts: dict[str, int], as_json: bool) -> None:
    if as_json:
        print_json(counts)
    else:
        shown = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
        console().print(f"{what} {shown}", markup=False)

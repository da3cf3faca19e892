"""The option that names a store, shared by commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from candor.store.engine import Store, open_store

DEFAULT_STORE = "runs/store.sqlite"
StoreAddress = Annotated[
    str,
    typer.Option(
        "--store",
        envvar="CANDOR_STORE_URL",
        help="Path of an SQLite file, or postgresql://USER@HOST/NAME.",
    ),
]


@contextmanager
def opened_store(address: str) -> Iterator[Store]:
    """The store, created or migrated as needed, and closed again."""
    store = open_store(address)
    try:
        yield store
    finally:
        store.close()

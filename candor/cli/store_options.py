"""The option that names a store, shared by commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from sqlalchemy.exc import SQLAlchemyError

from candor.cli.output import console
from candor.contracts.secrets import shown_url
from candor.store.engine import Store, StoreError, is_away, open_store

STORE_VARIABLE = "CANDOR_STORE_URL"


def note_password(ctx: typer.Context, param: typer.CallbackParam, value: str | None) -> str | None:
    """Says where a password is safe, if one stands on the command line: others can read that."""
    source = ctx.get_parameter_source(param.name or "")
    is_typed = source is not None and source.name == "COMMANDLINE"
    if value and is_typed and shown_url(value) != value:
        console().print(
            "store: other users of this machine can read a password in the list of processes; "
            f"give this URL as {STORE_VARIABLE} in the environment",
            markup=False,
        )
    return value


DEFAULT_STORE = "runs/store.sqlite"
StoreAddress = Annotated[
    str,
    typer.Option(
        "--store",
        envvar=STORE_VARIABLE,
        callback=note_password,
        help="Path of an SQLite file, or postgresql://USER@HOST/NAME.",
    ),
]


@contextmanager
def opened_store(address: str) -> Iterator[Store]:
    """The store, created or migrated as needed, and closed again."""
    store = open_store(address)
    try:
        with answering(address):
            yield store
    finally:
        store.close()


@contextmanager
def answering(address: str) -> Iterator[None]:
    """Raises: StoreError: instead of an error of the database, whose text quotes statements."""
    try:
        yield
    except SQLAlchemyError as err:
        if not is_away(err):
            raise
        raise StoreError(f"store: {shown_url(address)} does not answer or is full") from err

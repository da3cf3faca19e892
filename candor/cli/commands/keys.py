"""The commands `candor keys ...`: bearer keys of the service."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from candor.cli.output import AsJson, console, print_json
from candor.gateway.access.keys import add_key, read_keys, revoke_key

KeysFile = Annotated[
    Path,
    typer.Option("--file", envvar="CANDOR_KEYS_FILE", help="File of names and hashes, no keys."),
]
_DEFAULT_FILE = Path("runs/keys")

app = typer.Typer(help="Bearer keys of the service.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Name of the key in lists and logs.")],
    tenant: Annotated[str, typer.Option(help="Who shares the workers and has quotas.")],
    scope: Annotated[
        list[str],
        typer.Option(help="predict, explain, report, annotate or admin; may be repeated."),
    ],
    file: KeysFile = _DEFAULT_FILE,
    as_json: AsJson = False,
) -> None:
    """Make a key and show it, this once; the file keeps its hash."""
    key = add_key(file, name, tenant, scope)
    if as_json:
        print_json({"name": name, "tenant": tenant, "scopes": scope, "key": key})
    else:
        typer.echo(key)


@app.command("list")
def list_(file: KeysFile = _DEFAULT_FILE, as_json: AsJson = False) -> None:
    """Show names, tenants and scopes."""
    known = [entry.identity for entry in read_keys(file)]
    if as_json:
        rows = [{"name": k.name, "tenant": k.tenant, "scopes": sorted(k.scopes)} for k in known]
        print_json({"keys": rows})
        return
    table = Table("name", "tenant", "scopes")
    for identity in known:
        table.add_row(identity.name, identity.tenant, ", ".join(sorted(identity.scopes)))
    console().print(table)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="As the list shows it.")],
    file: KeysFile = _DEFAULT_FILE,
) -> None:
    """Remove a key; a running gateway rejects it from its next request on."""
    revoke_key(file, name)

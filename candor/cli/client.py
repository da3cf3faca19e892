"""Clients for commands: of a running service, or of a model in this process."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from candor.cli.output import console, shows_tracebacks
from candor.client.connection import Tls
from candor.client.sync import CandorClient
from candor.contracts import limits
from candor.contracts.addresses import endpoint
from candor.contracts.api import box_fields
from candor.contracts.errors import invalid_input
from candor.contracts.violations import violations_of
from candor.files.reading import read_file
from candor.gateway.sockets import loopback

if TYPE_CHECKING:
    from candor.stack.in_process import LocalClient

_DEFAULT_PORT = 8500
_LOGS = ("candor", "gateway", "handlers")  # of a service in this process
Address = Annotated[
    str | None,
    typer.Option(
        help="gRPC address of a running service, an IPv6 host in brackets; CANDOR_KEY and "
        "CANDOR_CA are read.",
        show_default=f"port {_DEFAULT_PORT} of this machine's loopback",
    ),
]
ModelName = Annotated[
    str,
    typer.Option("--name", help="Model of the service, NAME or NAME@VERSION; default its first."),
]

RequestT = TypeVar("RequestT", bound=BaseModel)


def open_client(
    model: Path | None, address: str | None, runtime: str | None = "torch"
) -> "CandorClient | LocalClient":
    """Of a model in this process where one is given, else of the service at ``address``."""
    if model is None:
        return service_client(address)
    from candor.stack.in_process import open_local  # the whole gateway: not needed for a service

    if not shows_tracebacks():
        for name in _LOGS:  # without a handler Python writes them on the screen
            logging.getLogger(name).addHandler(logging.NullHandler())
    return open_local(model, runtime, notify=console().print)


def service_client(address: str | None) -> CandorClient:
    """Of a running service, with the key and the authorities of the environment.

    Raises:
        ValueError: ``address`` is none of a gRPC server.
    """
    target = address or endpoint(loopback(), _DEFAULT_PORT)
    authorities = os.environ.get("CANDOR_CA")
    return CandorClient(target, tls=Tls(ca=Path(authorities)) if authorities else None)


def as_request(kind: type[RequestT], values: Mapping[str, Any]) -> RequestT:
    """Raises: ServiceError: INVALID_INPUT, with every bad field."""
    try:
        return kind.model_validate(values)
    except ValidationError as err:
        raise invalid_input(violations_of(err)) from err


def image_value(image: Path) -> dict[str, bytes]:
    """The field ``image`` of a request."""
    return {"encoded": read_file(image, limits.MAX_ENCODED_BYTES)}


def region_value(mask: Path | None, box: str | None, outside: bool) -> dict[str, Any] | None:
    """The field ``region`` of a request; None where the user names none.

    Raises:
        ValueError: a mask and a box, or ``outside`` without either.
    """
    if mask is not None and box is not None:
        raise ValueError("region: expected one of --mask and --box, got both")
    if mask is not None:
        return {"mask": read_file(mask, limits.MAX_ENCODED_BYTES), "outside": outside}
    if box is not None:
        return {"box": _box(box), "outside": outside}
    if outside:
        raise ValueError("outside: expected it with --mask or --box, got it alone")
    return None


def _box(text: str) -> dict[str, int]:
    try:
        return box_fields(text)
    except ValueError as err:
        raise ValueError(f"box: {err}") from err


def class_values(
    field: str, names: Sequence[str] | None, indices: Sequence[int] | None
) -> list[dict[str, int | str]]:
    """Classes as a user writes them, by name and by index, as fields of a request.

    Nothing is guessed from a text: "10" is a name, "#10" an index where no class has that name.

    Raises:
        ValueError: neither a name nor an index is given.
    """
    values: list[dict[str, int | str]] = [{"name": name} for name in names or ()]
    values += [{"index": index} for index in indices or ()]
    if not values:
        raise ValueError(f"{field}: expected --{field} NAME or --{field}-index INDEX, got none")
    return values


def class_value(field: str, name: str | None, index: int | None) -> dict[str, int | str] | None:
    """The same for a field that takes one class; None where the user names none.

    Raises:
        ValueError: both a name and an index are given.
    """
    if name is not None and index is not None:
        raise ValueError(f"{field}: expected one of --{field} and --{field}-index, got both")
    if name is None and index is None:
        return None
    return {"index": index} if name is None and index is not None else {"name": name or ""}

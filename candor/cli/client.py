"""Clients for commands: of a running service, or of a model in this process."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from pydantic import BaseModel, ValidationError

from candor.cli.output import console
from candor.client.connection import Tls
from candor.client.sync import CandorClient
from candor.contracts.errors import FieldViolation, invalid_input

if TYPE_CHECKING:
    from candor.stack.in_process import LocalClient

DEFAULT_ADDRESS = "127.0.0.1:8500"
Address = Annotated[
    str,
    typer.Option(help="gRPC address of a running service; CANDOR_KEY and CANDOR_CA are read."),
]
ModelName = Annotated[
    str,
    typer.Option("--name", help="Model of the service, NAME or NAME@VERSION; default its first."),
]

RequestT = TypeVar("RequestT", bound=BaseModel)


def open_client(
    model: Path | None, address: str, runtime: str | None = "torch"
) -> "CandorClient | LocalClient":
    """Of a model in this process where one is given, else of the service at ``address``."""
    if model is None:
        return service_client(address)
    from candor.stack.in_process import open_local  # the whole gateway: not needed for a service

    return open_local(model, runtime, notify=console().print)


def service_client(address: str) -> CandorClient:
    """Of a running service, with the key and the authorities of the environment."""
    authorities = os.environ.get("CANDOR_CA")
    return CandorClient(address, tls=Tls(ca=Path(authorities)) if authorities else None)


def as_request(kind: type[RequestT], values: Mapping[str, Any]) -> RequestT:
    """Raises: ServiceError: INVALID_INPUT, with every bad field."""
    try:
        return kind.model_validate(values)
    except ValidationError as err:
        raise invalid_input(
            [
                FieldViolation(
                    ".".join(map(str, item["loc"])), f"got {item['input']!r}: {item['msg']}"
                )
                for item in err.errors()
            ]
        ) from err


def image_value(image: Path) -> dict[str, bytes]:
    """The field ``image`` of a request."""
    return {"encoded": image.read_bytes()}


def class_value(text: str) -> dict[str, int | str]:
    """A class as a user writes it, by index or by name, as the field of a request."""
    return {"index": int(text)} if text.isdigit() else {"name": text}

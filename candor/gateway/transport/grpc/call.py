"""What every gRPC method needs: metadata as text, the deadline, and refusals with details."""

from collections.abc import Iterable
from typing import Any, NoReturn

from grpc import aio

from candor.contracts.errors import ServiceError
from candor.rpc import status

REQUEST_ID_KEY = "x-request-id"
_NO_DEADLINE_SECONDS = 1e8  # what the library reports without one is years away


def text_metadata(pairs: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    """The first text value of every key."""
    first_last = reversed(tuple(pairs or ()))
    return {key: value for key, value in first_last if isinstance(value, str)}


def seconds_left(context: "aio.ServicerContext[Any, Any]") -> float | None:
    left = context.time_remaining()
    return None if left is None or left > _NO_DEADLINE_SECONDS else left


async def abort(
    context: "aio.ServicerContext[Any, Any]", error: ServiceError, request_id: str
) -> NoReturn:
    """Ends the call with everything there is to say of ``error``."""
    details = status.to_rpc_status(error, request_id).SerializeToString()
    trailing = ((REQUEST_ID_KEY, request_id), (status.DETAILS_KEY, details))
    await context.abort(status.GRPC_CODES[error.code], status.short_message(error), trailing)
    raise AssertionError("abort always raises")

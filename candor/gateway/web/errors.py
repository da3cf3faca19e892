"""What people read in place of a page that could not be made, or of a form that was refused."""

from collections.abc import Mapping
from typing import NamedTuple

from fastapi import Request, Response

from candor.contracts.errors import ServiceError
from candor.gateway.web.assets import page
from candor.rpc import status


class Form(NamedTuple):
    """A form that was sent, to be sent again."""

    action: str
    fields: Mapping[str, str]


def wants_page(request: Request) -> bool:
    """Whether a browser shows the response to a person."""
    return "text/html" in request.headers.get("accept", "")


def error_page(error: ServiceError, back: str, form: Form | None = None) -> Response:
    """A page with the status and the Retry-After of the API's response.

    Args:
        back: the path of a link to go on with.
        form: what was refused; the page sends it again at a press of a button.
    """
    response = page(
        "error.html",
        http_status=status.HTTP_STATUS[error.code],
        message=error.message,
        seconds=error.retry_seconds,
        back=back,
        form=form,
    )
    response.headers.update(status.retry_after(error))
    return response

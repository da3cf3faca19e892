"""The console at `/`: a page over the REST API.

The server renders what it knows; the script calls the same endpoints as any other client.
"""

from collections import Counter
from collections.abc import Sequence

from fastapi import FastAPI, Response
from starlette.exceptions import HTTPException

from candor.contracts.api import ModelRef
from candor.contracts.names import versioned
from candor.gateway.access.rules import Access, add_page
from candor.gateway.pools import PICTURES
from candor.gateway.service.candor_service import CandorService
from candor.gateway.web.assets import page
from candor.images.photographs import photographs, square


def add_console(
    app: FastAPI,
    service: CandorService,
    *,
    grpc_port: int,
    has_annotations: bool,
    has_docs: bool,
    needs_keys: bool,
) -> None:
    """Adds the page and its photographs.

    Args:
        grpc_port: shown in the commands to copy.
        has_annotations, has_docs: whether there are such pages to link to.
        needs_keys: the commands to copy take a key from the environment's CANDOR_KEY.
    """

    async def console() -> Response:
        models = [summary.model for summary in service.list_models().models]
        return page(
            "console.html",
            models=_choices(models),
            photographs=photographs(),
            grpc_port=grpc_port,
            has_annotations=has_annotations,
            has_docs=has_docs,
            needs_keys=needs_keys,
        )

    async def photograph(name: str) -> Response:
        found = next((one for one in photographs() if one.name == name), None)
        if found is None:
            raise HTTPException(404, "no such photograph")
        content = await PICTURES.run(square, found)
        return Response(content, media_type="image/jpeg", headers={"cache-control": "no-cache"})

    add_page(app, "GET", "/", console, Access.ANY_KEY)
    add_page(app, "GET", "/photographs/{name}", photograph, Access.PUBLIC)


def _choices(models: Sequence[ModelRef]) -> list[str]:
    """Every model name, and each version of those that have several."""
    counts = Counter(model.name for model in models)
    exact = [versioned(model.name, model.version) for model in models if counts[model.name] > 1]
    return [*counts, *exact]

"""The console at `/`: a page over the REST door.  Imports gateway parts only.

The server renders what it knows, the script asks the same endpoints as any other client.
"""

from fastapi import FastAPI, Response

from gateway.page_files import page
from gateway.sample import sample_png
from gateway.service import CandorService

SAMPLE = "/pages/sample.png"


def add_console(
    app: FastAPI, service: CandorService, *, grpc_port: int, has_annotations: bool
) -> None:
    """Adds the page and its sample picture.

    Args:
        grpc_port: told in the lines to copy.
        has_annotations: whether there is an annotation page to link to.
    """
    sample = sample_png()

    async def console() -> Response:
        models = [summary.model.name for summary in service.list_models().models]
        return page(
            "console.html", models=models, grpc_port=grpc_port, has_annotations=has_annotations
        )

    async def sample_picture() -> Response:
        return Response(sample, media_type="image/png", headers={"cache-control": "no-cache"})

    for path, endpoint in (("/", console), (SAMPLE, sample_picture)):
        app.add_api_route(
            path, endpoint, methods=["GET"], include_in_schema=False, response_model=None
        )

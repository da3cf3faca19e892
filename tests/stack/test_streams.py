"""Streams and deadlines on the real service."""

import io

import httpx
from PIL import Image

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.stack.supervisor import Stack

_ENDLESS_STEPS = 2000


def _request(image: api.ImageInput, steps: int) -> api.ExplainRequest:
    return api.ExplainRequest(
        image=image, targets=(api.ClassRef(index=3),), rhos=(0.1,), steps=steps, solver="paper"
    )


def test_stream_shows_the_search_and_ends_with_its_answer(
    stack: Stack, client: CandorClient, images: list[api.ImageInput]
) -> None:
    request = _request(images[0], 150)
    *progress, last = client.explain_stream(request)
    reported = [event.progress for event in progress if event.progress is not None]
    assert last.result is not None
    (found,) = last.result.explanations
    assert found.steps == 150
    assert not found.is_partial
    running = [progress for progress in reported if progress.step > 0]
    assert running, "too quick to be watched"
    assert Image.open(io.BytesIO(running[-1].preview_png)).size == (32, 32)
    assert running[-1].best_rmse is not None
    assert running[-1].best_rmse <= 0.1
    body = request.model_dump(mode="json", exclude_none=True)
    url = f"{stack.rest_url}/v1/explain/stream"
    with httpx.stream("POST", url, json=body, timeout=60) as response:
        lines = list(response.iter_lines())
    assert "event: result" in lines
    again = client.explain(request).explanations[0]
    assert again.from_cache
    assert again.confidence_after == found.confidence_after


def test_deadline_brings_a_verified_partial_answer(
    stack: Stack, images: list[api.ImageInput]
) -> None:
    probe = api.ProbeRequest(
        image=images[1], goals=(api.ProbeGoal.BTR,), steps=_ENDLESS_STEPS, solver="paper"
    )
    with CandorClient(stack.grpc_address, timeout_seconds=6.0) as hasty:
        (found,) = hasty.explain(_request(images[1], _ENDLESS_STEPS)).explanations
        (probed,) = hasty.probe(probe).results
    assert found.is_partial
    assert 0 < found.steps < _ENDLESS_STEPS
    assert found.rmse <= found.rho
    assert found.confidence_after > found.confidence_before
    assert probed.is_partial
    assert 0 < probed.steps < _ENDLESS_STEPS

"""Two versions of a model behind one real service, each in workers of its own."""

import time

import httpx
import pytest

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.service.routing import Route, Routes, request_key
from candor.stack.archives import archive_names
from candor.stack.supervisor import Stack
from tests.stack.versions import ROUTES


@pytest.fixture(autouse=True)
def needs_versions(stack: Stack) -> None:
    if stack.models != ("tiny@1.0", "tiny@1.1"):
        pytest.skip("the shipped models have one version each")


def agreements(stack: Stack) -> dict[str, float]:
    """By verb, as Prometheus reads it."""
    head = 'candor_shadow_total{model="tiny@1.1",outcome="agree",verb="'
    lines = httpx.get(stack.metrics_url).text.splitlines()
    counters = [line.removeprefix(head).split('"} ') for line in lines if line.startswith(head)]
    return {verb: float(count) for verb, count in counters}


def is_shadowed(stack: Stack, image: api.ImageInput) -> bool:
    routes = Routes(stack.models, {name: Route(**fields) for name, fields in ROUTES.items()})
    key = request_key("", image.encoded or b"")
    return routes.shadow_of(stack.models[0], key) is not None


def test_each_version_answers_from_workers_of_its_own(
    stack: Stack, client: CandorClient, images: list[api.ImageInput]
) -> None:
    pids = {
        stack.worker_pid(model, role) for model in stack.models for role in ("predict", "search")
    }
    assert len(pids) == len(archive_names(stack.models)) == 4
    for name in ("", "tiny", *stack.models):
        answer = client.predict(api.PredictRequest(image=images[0], model=name))
        version = name.partition("@")[2] or "1.0"
        assert (answer.model.name, answer.model.version) == ("tiny", version)
    with pytest.raises(
        ServiceError, match=r"expected one of tiny@1\.0, tiny@1\.1, got 'tiny@2'"
    ) as caught:
        client.predict(api.PredictRequest(image=images[0], model="tiny@2"))
    assert caught.value.code is ErrorCode.MODEL_NOT_FOUND


def test_the_same_weights_agree_in_the_shadow(
    stack: Stack, client: CandorClient, images: list[api.ImageInput]
) -> None:
    before = agreements(stack)
    image = next(one for one in images if is_shadowed(stack, one))
    target = (api.ClassRef(index=1),)
    client.predict(api.PredictRequest(image=image))
    client.explain(api.ExplainRequest(image=image, targets=target, rhos=(0.05,), steps=10))
    client.probe(api.ProbeRequest(image=image, steps=10))
    give_up = time.monotonic() + 30
    while not all(agreements(stack)[verb] > before[verb] for verb in before):
        assert time.monotonic() < give_up, agreements(stack)
        time.sleep(0.2)

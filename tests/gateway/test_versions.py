"""Several versions of a model through both transports: by name, as canary and as shadow."""

import asyncio
import base64
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import grpc
import numpy as np
import pytest

from candor import terms
from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.reports import CreateReportRequest
from candor.contracts.worker import SearchEnd
from candor.gateway.access.request_context import Priority
from candor.gateway.config.settings import Settings
from candor.gateway.observability.metrics import ShadowOutcome
from candor.gateway.service.candor_service import CandorService
from candor.gateway.service.routing import Route
from candor.gateway.service.shadow import (
    GAIN_TOLERANCE,
    MAX_IN_FLIGHT,
    compare_explanations,
    compare_predictions,
    compare_radii,
)
from candor.gateway.workers.codec import SearchOutcome
from candor.rpc.pb.openinference import inference_pb2, inference_pb2_grpc
from tests.gateway.linear_worker import SHAPE, WEIGHTS, LinearBackend, card_of, logits_of
from tests.gateway.servers import Servers, opened, until

MODELS = ("linear@1.3", "linear@1.2", "linear@2.0")  # the primary is not the first
TARGETS = (api.ClassRef(index=0),)
IMAGES = np.random.default_rng(11).random((40, *SHAPE), dtype=np.float32)


@pytest.fixture(scope="module")
def versions() -> Iterator[Servers]:
    """Half of the images go to the canary."""
    route = Route(primary="1.2", canary="2.0", weight=0.5)
    yield from opened(models=MODELS, routes={"linear": route})


def shadowed(shadow: str, share: float = 1.0, **settings: Any) -> Iterator[Servers]:
    route = Route(primary="1.2", shadow=shadow, shadow_share=share)
    yield from opened(models=MODELS, routes={"linear": route}, **settings)


@pytest.fixture(scope="module")
def twin() -> Iterator[Servers]:
    """The shadow holds the same network as the primary."""
    yield from shadowed("1.3")


@pytest.fixture
def rival() -> Iterator[Servers]:
    """The shadow takes every class for another."""
    yield from shadowed("2.0", ready_seconds=0.05, metric_tenants=("acme",))


def image(place: int = 0) -> api.ImageInput:
    data = IMAGES[place].astype("<f4").tobytes()
    return api.ImageInput(tensor=api.TensorInput(shape=SHAPE, data=data))


def predicted(servers: Servers, place: int = 0, model: str = "") -> api.PredictResponse:
    return servers.client.predict(api.PredictRequest(image=image(place), model=model))


def as_json(place: int) -> dict[str, Any]:
    data = base64.b64encode(IMAGES[place].astype("<f4").tobytes()).decode()
    return {"tensor": {"shape": SHAPE, "data": data}}


def counted(servers: Servers, verb: str, outcome: str, model: str = "linear@2.0") -> float:
    labels = {"model": model, "verb": verb, "outcome": outcome}
    found = servers.gateway.metrics.registry.get_sample_value("candor_shadow_total", labels)
    assert found is not None
    return found


def compared(servers: Servers, verb: str) -> float:
    return counted(servers, verb, "agree") + counted(servers, verb, "disagree")


def requests_of(servers: Servers, model: str, outcome: str = "OK") -> float:
    labels = {"model": model, "verb": "predict", "outcome": outcome}
    found = servers.gateway.metrics.registry.get_sample_value("candor_requests_total", labels)
    assert found is not None
    return found


def seconds_of(servers: Servers, tenant: str) -> float:
    read = servers.gateway.metrics.registry.get_sample_value
    found = read("candor_compute_seconds_total", {"tenant": tenant})
    assert found is not None
    return found


# --- named ------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", WEIGHTS)
def test_a_version_named_answers_and_says_so(versions: Servers, version: str) -> None:
    answer = predicted(versions, model=f"linear@{version}")
    assert (answer.model.name, answer.model.version) == ("linear", version)
    assert answer.model.weights_digest == card_of(version).weights_sha256
    strongest = int(logits_of(IMAGES[0], WEIGHTS[version]).argmax())
    assert answer.predictions[0].index == strongest
    details = versions.rest.get(f"/v1/models/linear@{version}").json()
    assert details["model"]["version"] == version


def test_versions_are_listed_and_the_primary_is_the_default(versions: Servers) -> None:
    listed = [(one.model.version, one.is_default) for one in versions.client.list_models().models]
    assert listed == [("1.2", True), ("1.3", False), ("2.0", False)]
    assert versions.client.get_model().model.version == "1.2"
    page = versions.rest.get("/").text
    assert [name for name in ("linear", *MODELS) if f"<option>{name}</option>" in page] == [
        "linear",
        *MODELS,
    ]


def test_an_unknown_version_is_rejected_with_the_known_ones(versions: Servers) -> None:
    with pytest.raises(ServiceError) as caught:
        predicted(versions, model="linear@9")
    assert caught.value.code is ErrorCode.MODEL_NOT_FOUND
    assert str(caught.value) == f"model: expected one of {', '.join(MODELS)}, got 'linear@9'"
    assert (
        versions.rest.post(
            "/v1/predict", json={"image": as_json(0), "model": "linear@9"}
        ).status_code
        == 404
    )


def test_a_model_with_one_version_may_be_named_with_it(servers: Servers) -> None:
    assert predicted(servers, model="linear@1.2").model.version == "1.2"
    with pytest.raises(ServiceError, match=r"model: expected one of linear@1\.2, got 'linear@1'"):
        predicted(servers, model="linear@1")


# --- canary -----------------------------------------------------------------------------------


def test_an_image_stays_with_one_version_for_every_verb(versions: Servers) -> None:
    first = [predicted(versions, place).model.version for place in range(len(IMAGES))]
    assert {"1.2", "2.0"} == set(first)
    assert [predicted(versions, place).model.version for place in range(len(IMAGES))] == first
    for place in range(6):
        explain = api.ExplainRequest(image=image(place), targets=TARGETS, steps=5)
        probe = api.ProbeRequest(image=image(place), steps=5)
        assert versions.client.explain(explain).model.version == first[place]
        assert versions.client.probe(probe).model.version == first[place]
        posted = versions.rest.post("/v1/predict", json={"image": as_json(place)}).json()
        assert posted["model"]["version"] == first[place]


def test_requests_count_for_the_version_that_answered(
    versions: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    before = {model: requests_of(versions, model) for model in MODELS}
    with caplog.at_level(logging.INFO, logger="gateway.requests"):
        answers = [predicted(versions, place).model.version for place in range(8)]
    after = {model: requests_of(versions, model) for model in MODELS}
    for model in MODELS:
        assert after[model] - before[model] == answers.count(model.partition("@")[2])
    logged = [record.fields["model"] for record in caplog.records]
    assert logged == [f"linear@{version}" for version in answers]


def test_a_failing_canary_counts_for_itself() -> None:
    route = Route(primary="1.2", canary="2.0", weight=1.0)
    for servers in opened(models=MODELS, routes={"linear": route}):
        servers.backend.broken.add("linear@2.0")
        with pytest.raises(ServiceError):
            predicted(servers)
        assert requests_of(servers, "linear@2.0", "INTERNAL") == 1
        assert requests_of(servers, "linear@1.2", "INTERNAL") == 0
        assert predicted(servers, model="linear@1.2").model.version == "1.2"


def test_streams_count_for_the_version_that_answered(versions: Servers) -> None:
    request = api.ExplainRequest(image=image(), targets=TARGETS, steps=5)
    version = predicted(versions).model.version
    labels = {"verb": "explain_stream", "model": f"linear@{version}", "outcome": "OK"}
    read = versions.gateway.metrics.registry.get_sample_value
    before = read("candor_requests_total", labels)
    *_, last = versions.client.explain_stream(request)
    assert last.result is not None
    assert last.result.model.version == version
    body = request.model_dump(mode="json", exclude_none=True)
    assert versions.rest.post("/v1/explain/stream", json=body).status_code == 200
    until(lambda: read("candor_requests_total", labels) == before + 2)


# --- what the workers hold ----------------------------------------------------------------------


def service_of(backend: LinearBackend, **route: Any) -> CandorService:
    routes = {"linear": Route(primary="1.2", **route)}
    return CandorService(backend, Settings(models=MODELS, routes=routes))


def test_a_start_waits_for_no_version_that_requests_do_not_need() -> None:
    async def scenario() -> None:
        backend = LinearBackend()
        backend.broken |= {"linear@1.3", "linear@2.0"}
        service = service_of(backend, shadow="2.0", shadow_share=1.0)
        with pytest.raises(ServiceError, match="'linear@1.2' does not answer: still loading"):
            service.get_model("linear")
        async with asyncio.timeout(5):
            await service.start()
            assert await service.ready()
            assert [one.model.version for one in service.list_models().models] == ["1.2"]
            backend.broken.clear()
            while len(service.models.known) < len(MODELS):
                await asyncio.sleep(0.01)
        await service.drain()

    asyncio.run(scenario())


def test_a_start_waits_for_the_canary() -> None:
    async def scenario() -> None:
        backend = LinearBackend()
        backend.broken.add("linear@2.0")
        service = service_of(backend, canary="2.0", weight=0.01)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await service.start()
        assert not await service.ready()
        await service.drain()

    asyncio.run(scenario())


def test_a_worker_with_another_version_gets_no_requests(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        backend = LinearBackend()
        backend.hold("linear@1.2", "2.0")
        service = service_of(backend)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await service.start()
        await service.drain()

    asyncio.run(scenario())
    assert "the worker of linear@1.2 holds version 2.0" in caplog.text


# --- Open Inference Protocol --------------------------------------------------------------------


def test_open_inference_serves_versions_on_both_transports(versions: Servers) -> None:
    metadata = versions.rest.get("/v2/models/linear").json()
    assert metadata["versions"] == ["1.3", "1.2", "2.0"]
    tensor = {
        "name": "image",
        "datatype": "FP32",
        "shape": [2, *SHAPE],
        "data": IMAGES[:2].ravel().tolist(),
    }
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(versions.channel)
    for version in metadata["versions"]:
        path = f"/v2/models/linear/versions/{version}"
        assert versions.rest.get(f"{path}/ready").json()["ready"] is True
        answer = versions.rest.post(f"{path}/infer", json={"inputs": [tensor]}).json()
        assert (answer["model_name"], answer["model_version"]) == ("linear", version)
        request = inference_pb2.ModelInferRequest(model_name="linear", model_version=version)
        sent = request.inputs.add(name="image", datatype="FP32", shape=[2, *SHAPE])
        sent.contents.fp32_contents.extend(IMAGES[:2].ravel().tolist())
        response = stub.ModelInfer(request)
        assert (response.model_name, response.model_version) == ("linear", version)
        assert list(response.outputs[0].contents.int64_contents) == answer["outputs"][0]["data"]
    rejected = versions.rest.get("/v2/models/linear/versions/9")
    assert rejected.status_code == 404
    assert rejected.json()["error"] == "version: expected one of 1.3, 1.2, 2.0, got '9'"
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelMetadata(inference_pb2.ModelMetadataRequest(name="linear@1.2", version="2.0"))
    assert caught.value.details() == "version: expected one of 1.2, got '2.0'"


def test_a_batch_has_one_version_that_of_its_first_image(versions: Servers) -> None:
    alone = [predicted(versions, place).model.version for place in range(8)]
    place = next(p for p in range(7) if alone[p] != alone[p + 1])
    body = {
        "instances": [
            {"image": as_json(p), "targets": [{"index": 0}], "steps": 5} for p in (place, place + 1)
        ]
    }
    answers = versions.rest.post("/v1/models/linear:explain", json=body).json()["explanations"]
    assert [one["model"]["version"] for one in answers] == [alone[place]] * 2


# --- report jobs --------------------------------------------------------------------------------


def test_a_report_is_of_the_primary_unless_it_names_a_version(tmp_path: Path) -> None:
    routes = {"linear": Route(primary="1.3", canary="2.0", weight=1.0)}
    store = str(tmp_path / "store.sqlite")
    for servers in opened(models=MODELS, routes=routes, store_url=store):
        for wanted, found in (("", "1.3"), ("linear", "1.3"), ("linear@2.0", "2.0")):
            made = servers.client.create_report(
                CreateReportRequest(model=wanted, undefended=wanted)
            )
            assert made.request.model == f"linear@{found}"
            assert made.request.undefended == (f"linear@{found}" if wanted else "")
        with pytest.raises(ServiceError, match="model: expected one of linear@1.3, .*'linear@9'"):
            servers.client.create_report(CreateReportRequest(model="linear@9"))
        with pytest.raises(ServiceError, match="independent: expected one of linear@1.3"):
            servers.client.create_report(CreateReportRequest(independent="cubic"))


# --- shadow -----------------------------------------------------------------------------------


def send_every_verb(servers: Servers, place: int = 0) -> None:
    predicted(servers, place)
    servers.client.explain(api.ExplainRequest(image=image(place), targets=TARGETS, steps=30))
    servers.client.probe(api.ProbeRequest(image=image(place), steps=30))


def test_the_same_network_agrees_with_itself(
    twin: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="gateway.shadow"):
        send_every_verb(twin)
        for verb in ("predict", "explain", "probe"):
            until(lambda verb=verb: counted(twin, verb, "agree", "linear@1.3") == 1)
    lines = {record.fields["verb"]: record.fields for record in caplog.records}
    assert lines["predict"]["differences"] == [{"confidence": 0.0}]
    (explained,) = lines["explain"]["differences"]
    assert explained == {"gain": 0.0, "rmse": 0.0, "cosine": pytest.approx(1.0, abs=1e-5)}
    assert {"radius_ratio": 1.0} in lines["probe"]["differences"]
    assert lines["explain"]["model"] == "linear@1.2"
    assert lines["explain"]["shadow"] == "linear@1.3"
    assert lines["explain"]["request_id"]


def test_another_network_disagrees_and_no_client_notices(rival: Servers) -> None:
    send_every_verb(rival)
    until(lambda: counted(rival, "predict", "disagree") == 1)
    until(lambda: counted(rival, "explain", "disagree") == 1)
    until(lambda: counted(rival, "probe", "disagree") == 1)
    assert predicted(rival).model.version == "1.2"
    assert requests_of(rival, "linear@2.0") == 0
    read = rival.gateway.metrics.registry.get_sample_value
    edge = {"model": "linear@2.0", "le": "+Inf"}
    assert read("candor_shadow_gain_difference_bucket", edge) == 1
    assert read("candor_shadow_confidence_difference_bucket", edge) >= 1


def test_the_shadow_is_neither_charged_nor_cached(rival: Servers) -> None:
    rival.backend.delays["linear@2.0"] = 0.3
    explain = api.ExplainRequest(image=image(), targets=TARGETS, steps=2)
    with CandorClient(rival.client_address, timeout_seconds=20, tenant="acme") as acme:
        for is_cached in (False, True):
            assert acme.explain(explain).explanations[0].from_cache is is_cached
            until(lambda n=1 + is_cached: compared(rival, "explain") == n)
        assert seconds_of(rival, "acme") < 0.3 < seconds_of(rival, "other")
        named = acme.explain(explain.model_copy(update={"model": "linear@2.0"}))
        assert named.explanations[0].from_cache is False


def test_a_slow_shadow_delays_no_request_and_is_bounded(rival: Servers) -> None:
    rival.backend.delays["linear@2.0"] = 0.5
    started = time.monotonic()
    for place in range(MAX_IN_FLIGHT + 3):
        predicted(rival, place)
    assert time.monotonic() - started < 0.5
    assert counted(rival, "predict", "skipped") == 3
    until(lambda: compared(rival, "predict") == MAX_IN_FLIGHT)


def test_a_broken_shadow_is_counted_and_harms_no_request(rival: Servers) -> None:
    rival.backend.broken.add("linear@2.0")
    send_every_verb(rival)
    for verb in ("predict", "explain", "probe"):
        until(lambda verb=verb: counted(rival, verb, "failed") == 1)
    checks = rival.backend.calls.count(("linear@1.2", "search"))
    until(lambda: rival.backend.calls.count(("linear@1.2", "search")) > checks + 3)
    assert rival.rest.get("/healthz/ready").status_code == 200


def test_a_drain_waits_for_requests_not_for_shadows(rival: Servers) -> None:
    rival.backend.delays["linear@2.0"] = 4.0
    rival.client.explain(api.ExplainRequest(image=image(), targets=TARGETS, steps=30))
    until(lambda: ("linear@2.0", "search") in rival.backend.calls)
    queue = rival.gateway.service.models.known["linear@2.0"].search_pool.scheduler.queue
    assert [one.service_class.priority for one in queue] == [Priority.REPORT]
    started = time.monotonic()
    rival.wait(rival.gateway.service.drain())
    assert time.monotonic() - started < 1.0
    assert sum(counted(rival, "explain", one) for one in get_args(ShadowOutcome)) == 0


# --- comparisons alone --------------------------------------------------------------------------


def result(
    delta: float,
    gain: float,
    status: terms.SearchStatus = terms.SearchStatus.FOUND,
    rmse: float = 0.05,
) -> SearchOutcome:
    """Of a grey image: class 0 goes from one half to one half and ``gain``."""
    image = np.full(SHAPE, 0.5 + delta, np.float32)
    after = np.log([0.5 + gain, 0.5 - gain]).astype(np.float32)
    end = SearchEnd(
        status=status,
        rmse=rmse,
        steps=3,
        solver="fast",
        lower_bound=rmse if status is terms.SearchStatus.UNRESOLVED else None,
    )
    return SearchOutcome(
        end=end, image=image, logits_before=np.zeros(2, np.float32), logits_after=after
    )


def test_explanations_agree_where_the_target_gains_as_much() -> None:
    grey = np.full(SHAPE, 0.5, np.float32)
    primary = result(0.1, 0.3)
    near = compare_explanations(grey, 0, primary, result(-0.1, 0.3 - 0.9 * GAIN_TOLERANCE))
    assert near.agrees
    assert near.measures["cosine"] == pytest.approx(-1.0)
    assert near.measures["gain"] == pytest.approx(0.9 * GAIN_TOLERANCE, abs=1e-6)
    far = compare_explanations(grey, 0, primary, result(0.1, 0.3 - 1.1 * GAIN_TOLERANCE, rmse=0.07))
    assert not far.agrees
    assert far.measures["rmse"] == pytest.approx(0.02)
    assert compare_explanations(grey, 0, primary, result(0.0, 0.3)).measures["cosine"] == 0.0


@pytest.mark.parametrize(
    ("rmse", "agrees"), [(0.024, False), (0.026, True), (0.099, True), (0.101, False)]
)
def test_radii_agree_within_their_factor(rmse: float, agrees: bool) -> None:
    compared = compare_radii(result(0.1, 0.1), result(0.1, 0.1, rmse=rmse))
    assert compared.agrees is agrees
    assert compared.measures == {"radius_ratio": pytest.approx(rmse / 0.05)}


def test_probes_that_end_differently_disagree() -> None:
    found = result(0.1, 0.1)
    wrong = result(0.0, 0.0, terms.SearchStatus.ALREADY_WRONG, rmse=0.0)
    unresolved = result(0.1, 0.1, terms.SearchStatus.UNRESOLVED)
    assert compare_radii(found, wrong) == (False, {})
    assert compare_radii(found, unresolved) == (False, {})
    assert compare_radii(wrong, wrong) == (True, {})


def test_predictions_agree_on_the_strongest_class() -> None:
    one, other = np.log([0.6, 0.4]), np.log([0.55, 0.45])
    same = compare_predictions(one.astype(np.float32), other.astype(np.float32))
    assert same.agrees
    assert same.measures == {"confidence": pytest.approx(0.05, abs=1e-6)}
    assert not compare_predictions(one.astype(np.float32), -one.astype(np.float32)).agrees

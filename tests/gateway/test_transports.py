"""gRPC and REST of the gateway, through the real stub and real HTTP."""

import base64
import concurrent.futures
import io
import json
import logging
import threading
import time
from typing import Any

import grpc
import httpx
import numpy as np
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from PIL import Image

from candor import terms
from candor.client.sync import CandorClient
from candor.contracts import api, limits
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.radius import radius_note
from candor.gateway.service.concurrency import ConcurrencyLimiter
from candor.rpc.pb.candor.v1 import candor_pb2 as pb
from tests.gateway.linear_worker import CARD, CLASSES, SHAPE, confidences_of, rmse_between
from tests.gateway.servers import Servers, until

TRUNCATED_BYTES = 60


def as_json(encoded: bytes) -> dict[str, str]:
    return {"encoded": base64.b64encode(encoded).decode()}


def pixels_of(encoded: bytes) -> np.ndarray:
    values = np.asarray(Image.open(io.BytesIO(encoded)))
    return values.transpose(2, 0, 1).astype(np.float32) / np.float32(255)


def rejected(call: Any, request: Message, **options: Any) -> tuple[grpc.RpcError, dict[str, Any]]:
    """The error of a gRPC call and its details by type."""
    with pytest.raises(grpc.RpcError) as caught:
        call(request, timeout=20, **options)
    trailing = dict(caught.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    details = {}
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.type_url.rsplit(".", 1)[1])()
        packed.Unpack(kind)
        details[type(kind).__name__] = kind
    return caught.value, details


def rejected_fields(servers: Servers, verb: str, request: dict[str, Any]) -> dict[str, str]:
    """Violations that REST reports, after checking that the answer is the one error body."""
    response = servers.rest.post(f"/v1/{verb}", json=request)
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error["code"] == "INVALID_INPUT"
    assert error["request_id"] == response.headers["x-request-id"]
    return {item["field"]: item["description"] for item in error["violations"]}


# --- what is right -----------------------------------------------------------------------------


def test_prediction_is_that_of_the_model(servers: Servers, png: bytes) -> None:
    response = servers.stub.Predict(pb.PredictRequest(image=pb.Image(encoded=png), top_k=2))
    expected = confidences_of(pixels_of(png))
    order = np.argsort(-expected)[:2]
    assert [found.index for found in response.predictions] == order.tolist()
    assert [found.name for found in response.predictions] == [CLASSES[index] for index in order]
    np.testing.assert_allclose(
        [found.confidence for found in response.predictions], expected[order], rtol=1e-5
    )
    assert response.model.weights_digest == CARD.weights_sha256
    assert (response.model.name, response.model.version) == ("linear", "1.2")


def test_zero_top_k_lists_the_default_and_never_more_than_there_are(
    servers: Servers, png: bytes
) -> None:
    image = pb.Image(encoded=png)
    assert len(servers.stub.Predict(pb.PredictRequest(image=image)).predictions) == 5
    many = servers.stub.Predict(pb.PredictRequest(image=image, top_k=1000))
    assert len(many.predictions) == len(CLASSES)
    assert sum(found.confidence for found in many.predictions) == pytest.approx(1.0)


def test_explain_answers_every_pair_in_order_within_rho(servers: Servers, png: bytes) -> None:
    request = pb.ExplainRequest(
        image=pb.Image(encoded=png),
        targets=[pb.ClassRef(index=0), pb.ClassRef(name="ship")],
        rhos=[0.02, 0.06],
        steps=30,
        include_tensor=True,
    )
    response = servers.stub.Explain(request)
    pairs = [(found.target.name, found.rho) for found in response.explanations]
    assert pairs == [("cat", 0.02), ("cat", 0.06), ("ship", 0.02), ("ship", 0.06)]
    original = pixels_of(response.input_png)
    np.testing.assert_array_equal(original, pixels_of(png))
    for found in response.explanations:
        exact = np.frombuffer(found.image_tensor.data, "<f4").reshape(SHAPE)
        after = confidences_of(exact)
        assert found.rmse == pytest.approx(rmse_between(exact, original), abs=1e-7)
        assert found.rmse <= found.rho
        assert rmse_between(pixels_of(found.image_png), original) <= found.rmse + 1e-7
        assert found.confidence_after == pytest.approx(after[found.target.index], rel=1e-5)
        assert found.confidence_after == found.target.confidence > found.confidence_before
        assert found.predicted_after.index == after.argmax()
        assert found.predicted_before == response.predictions_before[0]
        assert found.status == pb.SEARCH_STATUS_FOUND
        assert found.steps == 30
    assert response.median_radius.value == CARD.metrics[1].value
    # The radius is more than a twentieth of the recommended rho, and less than one of 0.06.
    notes = [found.radius_note for found in response.explanations]
    assert ["noise" in note for note in notes] == [False, True] * 2
    assert all("changes its mind at RMSE 0.0026" in note for note in notes)


def test_explain_against_lowers_the_confidence_at_the_recommended_rho(
    servers: Servers, png: bytes
) -> None:
    request = api.ExplainRequest(
        image=api.ImageInput(encoded=png),
        targets=(api.ClassRef(index=2),),
        direction=api.Direction.AGAINST,
        steps=20,
    )
    (found,) = servers.client.explain(request).explanations
    assert found.rho == CARD.recommended_rho
    assert found.direction is api.Direction.AGAINST
    assert found.confidence_after < found.confidence_before
    assert found.image_tensor is None


def test_probe_defaults_to_the_predicted_class_and_both_goals(servers: Servers, png: bytes) -> None:
    response = servers.client.probe(api.ProbeRequest(image=api.ImageInput(encoded=png)))
    predicted = int(confidences_of(pixels_of(png)).argmax())
    assert response.label.index == predicted == response.predictions_before[0].index
    attack, btr = response.results
    assert (attack.goal, btr.goal) == (api.ProbeGoal.ATTACK, api.ProbeGoal.BTR)
    assert attack.status is btr.status is terms.SearchStatus.FOUND
    assert attack.falls_to.index != predicted
    assert attack.radius > 0
    assert attack.lower_bound is None
    assert btr.label_confidence_after < 1 / len(CLASSES)
    assert rmse_between(pixels_of(attack.image_png), pixels_of(png)) <= attack.radius + 1e-7


def test_probe_of_a_wrong_label_is_already_wrong_at_radius_zero(
    servers: Servers, png: bytes
) -> None:
    wrong = int(confidences_of(pixels_of(png)).argmin())
    request = pb.ProbeRequest(
        image=pb.Image(encoded=png), label=pb.ClassRef(index=wrong), goals=[pb.GOAL_ATTACK]
    )
    (found,) = servers.stub.Probe(request).results
    assert found.status == pb.SEARCH_STATUS_ALREADY_WRONG
    assert found.HasField("radius")
    assert found.radius == 0.0
    assert found.image_png == b""


def test_probe_that_finds_nothing_has_a_bound_and_no_radius(servers: Servers, png: bytes) -> None:
    request = pb.ProbeRequest(image=pb.Image(encoded=png), goals=[pb.GOAL_BTR], steps=1)
    (found,) = servers.stub.Probe(request).results
    assert found.status == pb.SEARCH_STATUS_UNRESOLVED
    assert not found.HasField("radius")
    assert found.lower_bound > 0
    assert found.image_png == b""


REQUESTS: list[tuple[str, api.Message, dict[str, Any]]] = [
    ("predict", api.PredictRequest, {"top_k": 3}),
    (
        "explain",
        api.ExplainRequest,
        {
            "targets": [{"name": "dog"}, {"index": 0}],
            "rhos": [0.03],
            "include_tensor": True,
            "no_cache": True,
        },
    ),
    (
        "probe",
        api.ProbeRequest,
        {"label": {"index": 0}, "goals": ["btr"], "seed": 7, "no_cache": True},
    ),
    ("compare", api.CompareRequest, {"target": {"name": "dog"}, "rho": 0.03, "no_cache": True}),
]


@pytest.mark.parametrize(("verb", "kind", "fields"), REQUESTS, ids=[r[0] for r in REQUESTS])
def test_grpc_json_and_multipart_give_the_same_answer(
    servers: Servers, png: bytes, verb: str, kind: Any, fields: dict[str, Any]
) -> None:
    request = kind.model_validate({**fields, "image": {"encoded": png}})
    by_grpc = getattr(servers.client, verb)(request, request_id="same")
    headers = {"x-request-id": "same"}
    by_json = servers.rest.post(
        f"/v1/{verb}", json={**fields, "image": as_json(png)}, headers=headers
    )
    parts = {"image": ("a.png", png, "image/png"), "request": (None, json.dumps(fields))}
    by_parts = servers.rest.post(f"/v1/{verb}", files=parts, headers=headers)
    assert by_json.status_code == by_parts.status_code == 200
    assert by_json.json() == by_parts.json() == json.loads(by_grpc.model_dump_json())


def test_comparison_is_whole_or_late(servers: Servers, png: bytes) -> None:
    request = api.CompareRequest(
        image=api.ImageInput(encoded=png), steps=2000, timeout_seconds=0.3, no_cache=True
    )
    with pytest.raises(ServiceError) as caught:
        servers.client.compare(request)
    assert caught.value.code is ErrorCode.TIMEOUT
    answer = servers.client.compare(
        request.model_copy(update={"timeout_seconds": 30.0, "steps": 9})
    )
    assert [one.method for one in answer.methods] == list(api.Method)
    predicted = answer.predictions_before[0].index
    assert answer.explanation.target.index == predicted
    assert answer.perturbation.rmse <= 0.01
    assert answer.perturbation.confidence_after < answer.perturbation.confidence_before
    for one in answer.methods:
        values = np.frombuffer(one.saliency.data, "<f4").reshape(one.saliency.height, -1)
        assert values.shape == SHAPE[1:]
        with Image.open(io.BytesIO(one.overlay_png)) as overlay:
            assert overlay.size == (SHAPE[2], SHAPE[1])


def test_tensor_gives_the_numbers_of_the_image_it_came_from(servers: Servers, png: bytes) -> None:
    data = pixels_of(png).astype("<f4").tobytes()
    as_tensor = pb.Image(tensor=pb.Tensor(shape=SHAPE, data=data))
    by_tensor = servers.stub.Predict(pb.PredictRequest(image=as_tensor))
    by_image = servers.stub.Predict(pb.PredictRequest(image=pb.Image(encoded=png)))
    assert list(by_tensor.predictions) == list(by_image.predictions)


def test_models_are_listed_and_described(servers: Servers) -> None:
    (summary,) = servers.client.list_models().models
    assert summary.is_default
    details = servers.client.get_model()
    assert details.model == summary.model
    assert details.classes == CLASSES
    assert (details.input.channels, details.input.height, details.input.width) == SHAPE
    assert details.metrics == CARD.metrics
    assert details.median_radius == CARD.metrics[1]
    assert details.radius_note == radius_note(0.0026, CARD.recommended_rho)
    assert details.solvers == terms.SOLVERS
    rest = servers.rest.get("/v1/models/linear").json()
    assert rest["classes"] == list(CLASSES)
    assert servers.rest.get("/v1/models").json()["models"][0]["is_default"] is True


# --- what is wrong -----------------------------------------------------------------------------


def test_every_violation_is_reported_at_once_over_grpc_and_rest(
    servers: Servers, png: bytes
) -> None:
    fields = rejected_fields(
        servers,
        "explain",
        {
            "image": as_json(png[:TRUNCATED_BYTES]),
            "targets": [{"name": "unicorn"}, {"index": 99}, {"index": -1}],
            "rhos": [-1],
            "solver": "magic",
            "steps": 5000,
            "colour": "red",
        },
    )
    expected = {
        "image.encoded",
        "targets.0.name",
        "targets.1.index",
        "targets.2.index",
        "rhos.0",
        "solver",
        "steps",
        "colour",
    }
    assert fields.keys() == expected
    assert "unicorn" in fields["targets.0.name"]
    assert "-1" in fields["rhos.0"]
    assert "(0, 1]" in fields["rhos.0"]
    request = pb.ExplainRequest(
        image=pb.Image(encoded=png[:TRUNCATED_BYTES]),
        targets=[pb.ClassRef(name="unicorn"), pb.ClassRef(index=99), pb.ClassRef(index=-1)],
        rhos=[-1],
        solver="magic",
        steps=5000,
    )
    error, details = rejected(servers.stub.Explain, request)
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    found = {violation.field for violation in details["BadRequest"].field_violations}
    assert found == expected - {"colour"}
    assert details["ErrorInfo"].reason == "INVALID_INPUT"
    assert details["ErrorInfo"].domain == "candor"
    assert "RetryInfo" not in details


GOOD = {"targets": [{"index": 0}]}
BAD_FIELDS: list[tuple[str, str, dict[str, Any], str]] = [
    ("rho zero", "explain", {**GOOD, "rhos": [0]}, "rhos.0"),
    ("rho negative", "explain", {**GOOD, "rhos": [0.1, -0.1]}, "rhos.1"),
    ("rho above one", "explain", {**GOOD, "rhos": [1.01]}, "rhos.0"),
    ("rho overflow", "explain", {**GOOD, "rhos": [10**400]}, "rhos.0"),
    ("rho text", "explain", {**GOOD, "rhos": ["much"]}, "rhos.0"),
    ("33 rhos", "explain", {**GOOD, "rhos": [0.1] * 33}, "rhos"),
    ("65 pairs", "explain", {"targets": [{"index": 0}] * 13, "rhos": [0.1] * 5}, "rhos"),
    ("no target", "explain", {"targets": []}, "targets"),
    ("33 targets", "explain", {"targets": [{"index": 0}] * 33}, "targets"),
    ("empty target", "explain", {"targets": [{}]}, "targets.0"),
    ("two refs", "explain", {"targets": [{"index": 0, "name": "cat"}]}, "targets.0"),
    ("huge index", "explain", {"targets": [{"index": 10**300}]}, "targets.0.index"),
    ("case of name", "probe", {"label": {"name": "Cat"}}, "label.name"),
    ("rho of compare", "compare", {"rho": 2}, "rho"),
    ("target of compare", "compare", {"target": {"name": "Cat"}}, "target.name"),
    ("direction", "explain", {**GOOD, "direction": "up"}, "direction"),
    ("goal", "probe", {"goals": ["explode"]}, "goals.0"),
    ("no goal", "probe", {"goals": []}, "goals"),
    ("solver", "probe", {"solver": "fastest"}, "solver"),
    ("steps", "probe", {"steps": 2001}, "steps"),
    ("top_k", "predict", {"top_k": 1001}, "top_k"),
    ("seed", "probe", {"seed": 2**32}, "seed"),
    ("unknown field", "predict", {"colour": 1}, "colour"),
    ("model kind", "predict", {"model": 3}, "model"),
    ("no image", "predict", {"image": None}, "image"),
    ("empty image", "predict", {"image": {}}, "image"),
    ("zero bytes", "predict", {"image": {"encoded": ""}}, "image.encoded"),
    ("not base64", "predict", {"image": {"encoded": "%%%"}}, "image.encoded"),
    ("not an image", "predict", {"image": as_json(b"hello")}, "image.encoded"),
    (
        "one channel",
        "predict",
        {"image": {"tensor": {"shape": [1, 8, 6], "data": ""}}},
        "image.tensor.shape",
    ),
    (
        "flat tensor",
        "predict",
        {"image": {"tensor": {"shape": [144], "data": ""}}},
        "image.tensor.shape",
    ),
    ("million keys", "predict", {str(key): 0 for key in range(5000)}, "request"),
]


@pytest.mark.parametrize(
    ("verb", "fields", "expected"), [bad[1:] for bad in BAD_FIELDS], ids=[b[0] for b in BAD_FIELDS]
)
def test_bad_field_is_named(
    servers: Servers, png: bytes, verb: str, fields: dict[str, Any], expected: str
) -> None:
    found = rejected_fields(servers, verb, {"image": as_json(png), **fields})
    assert list(found) == [expected]
    assert len(found[expected]) < 300


def test_explicit_zero_rho_is_rejected_over_grpc(servers: Servers, png: bytes) -> None:
    request = pb.ExplainRequest(
        image=pb.Image(encoded=png), targets=[pb.ClassRef(index=0)], rhos=[0.0, float("nan")]
    )
    _, details = rejected(servers.stub.Explain, request)
    fields = [violation.field for violation in details["BadRequest"].field_violations]
    assert fields == ["rhos.0", "rhos.1"]


@pytest.mark.parametrize(
    ("request_message", "field"),
    [
        (pb.ProbeRequest(label=pb.ClassRef()), "label"),
        (pb.ProbeRequest(goals=[pb.GOAL_UNSPECIFIED]), "goals.0"),
        (pb.ProbeRequest(goals=[77]), "goals.0"),
    ],
    ids=["empty label", "unspecified goal", "goal of the future"],
)
def test_odd_messages_are_rejected_over_grpc(
    servers: Servers, png: bytes, request_message: pb.ProbeRequest, field: str
) -> None:
    message = pb.ProbeRequest()
    message.CopyFrom(request_message)
    message.image.encoded = png
    _, details = rejected(servers.stub.Probe, message)
    assert [violation.field for violation in details["BadRequest"].field_violations] == [field]


def test_missing_image_is_rejected_over_grpc(servers: Servers) -> None:
    _, details = rejected(servers.stub.Predict, pb.PredictRequest())
    assert details["BadRequest"].field_violations[0].field == "image"


def test_unknown_model_lists_what_there_is(servers: Servers, png: bytes) -> None:
    request = pb.PredictRequest(model="cubic", image=pb.Image(encoded=png), top_k=-1)
    error, details = rejected(servers.stub.Predict, request)
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert "linear" in error.details()
    fields = [violation.field for violation in details["BadRequest"].field_violations]
    assert fields == ["model", "top_k"]
    response = servers.rest.get("/v1/models/cubic")
    assert response.status_code == 404
    assert response.json()["error"]["code"] == "MODEL_NOT_FOUND"


def test_error_details_fit_into_metadata_however_much_is_wrong(servers: Servers) -> None:
    targets = [pb.ClassRef(name="x" * 500)] * 32
    error, details = rejected(
        servers.stub.Explain, pb.ExplainRequest(targets=targets, rhos=[-1] * 32)
    )
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "more" in details["BadRequest"].field_violations[-1].description


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"image": ' + b"[" * 800 + b"]" * 800 + b"}",
        b'{"rhos": [NaN]}',
        b'{"rhos": [-Infinity]}',
        b'{"top_k": ' + b"9" * 10_000 + b"}",
        b'{"targets": [{"name": "\\ud800"}], "\\udfff": "\\ud800", "solver": "\\ud800"}',
    ],
    ids=lambda body: repr(body[:12]),
)
def test_bad_json_is_invalid_input(servers: Servers, body: bytes) -> None:
    for verb in ("predict", "explain", "probe"):
        response = servers.rest.post(f"/v1/{verb}", content=body)
        assert response.status_code == 400, response.text
        assert response.json()["error"]["violations"]


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_rejected(servers: Servers, constant: str) -> None:
    response = servers.rest.post("/v1/predict", content=f'{{"top_k": {constant}}}')
    assert f"expected finite numbers, got {constant}" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b"--x\r\n"),
        ("multipart/form-data; boundary=x", b"--y\r\n\r\n"),
        ("multipart/form-data; boundary=x", b"--x\r\nContent-Disposition: nonsense\r\n\r\nq"),
        ("multipart/form-data; boundary=x; charset=klingon", b"--x--\r\n"),
    ],
)
def test_bad_multipart_is_invalid_input(servers: Servers, content_type: str, body: bytes) -> None:
    response = servers.rest.post(
        "/v1/predict", content=body, headers={"content-type": content_type}
    )
    assert response.status_code == 400, response.text
    assert response.json()["error"]["violations"]


def test_multipart_with_an_unknown_part_or_two_images_is_rejected(
    servers: Servers, png: bytes
) -> None:
    parts: dict[str, Any] = {"image": ("a", png), "extra": (None, "1")}
    assert "extra" in servers.rest.post("/v1/predict", files=parts).json()["error"]["message"]
    twice = json.dumps({"image": as_json(png)})
    response = servers.rest.post("/v1/predict", files={"image": png, "request": (None, twice)})
    assert response.json()["error"]["violations"][0]["field"] == "image"


def test_unknown_path_and_method_have_the_error_body(servers: Servers) -> None:
    for response in (servers.rest.get("/v1/nothing"), servers.rest.get("/v1/predict")):
        assert response.status_code in (404, 405)
        assert response.json()["error"]["request_id"] == response.headers["x-request-id"]


def test_body_of_100_megabytes_disturbs_no_other_client(servers: Servers, png: bytes) -> None:
    huge = b"\0" * 100_000_000
    response = servers.rest.post("/v1/predict", content=huge)
    assert response.status_code == 413
    assert str(limits.MAX_BODY_BYTES) in response.json()["error"]["message"]
    with pytest.raises(grpc.RpcError) as caught:
        servers.stub.Predict(pb.PredictRequest(image=pb.Image(encoded=huge)), timeout=20)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert servers.rest.post("/v1/predict", json={"image": as_json(png)}).status_code == 200
    servers.stub.Predict(pb.PredictRequest(image=pb.Image(encoded=png)), timeout=20)


def test_chunked_body_is_cut_off_without_a_length(servers: Servers) -> None:
    def pieces() -> Any:
        for _ in range(20):
            yield b"\0" * 1_000_000

    assert servers.rest.post("/v1/predict", content=pieces()).status_code == 413


def test_client_turns_details_back_into_the_same_error(servers: Servers, png: bytes) -> None:
    request = api.PredictRequest(model="cubic", image=api.ImageInput(encoded=png))
    with pytest.raises(ServiceError) as caught:
        servers.client.predict(request)
    assert caught.value.code is ErrorCode.MODEL_NOT_FOUND
    assert caught.value.violations[0].field == "model"


def test_unreachable_gateway_is_a_service_error() -> None:
    client = CandorClient("127.0.0.1:1", timeout_seconds=5)
    with client, pytest.raises(ServiceError) as caught:
        client.list_models()
    assert caught.value.code is ErrorCode.MODEL_NOT_READY


def test_unexpected_exception_shows_only_its_request_id(
    fresh_servers: Servers, png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(model: str, role: str, items: list[bytes]) -> list[bytes]:
        raise RuntimeError("secret path /srv/weights")

    fresh_servers.backend.call = broken
    body = {"image": as_json(png)}
    answers = [fresh_servers.rest.post("/v1/predict", json=body)]
    body["targets"] = [{"index": 0}]
    answers.append(fresh_servers.rest.post("/v1/explain", json=body))
    for response in answers:
        assert response.status_code == 500
        assert "secret" not in response.text
        assert response.headers["x-request-id"] in response.json()["error"]["message"]
    error, details = rejected(
        fresh_servers.stub.Predict, pb.PredictRequest(image=pb.Image(encoded=png))
    )
    assert error.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()
    assert details["RequestInfo"].request_id in error.details()
    assert "secret path" in caplog.text


# --- how it travels ----------------------------------------------------------------------------


def test_request_id_comes_back_over_grpc_and_rest(servers: Servers, png: bytes) -> None:
    request = pb.PredictRequest(image=pb.Image(encoded=png))
    sent = (("x-request-id", "order-66"),)
    response, call = servers.stub.Predict.with_call(request, metadata=sent)
    assert response.request_id == "order-66"
    assert dict(call.trailing_metadata())["x-request-id"] == "order-66"
    error, details = rejected(servers.stub.Predict, pb.PredictRequest(), metadata=sent)
    assert dict(error.trailing_metadata())["x-request-id"] == "order-66"
    assert details["RequestInfo"].request_id == "order-66"
    answer = servers.rest.get("/v1/models", headers={"x-request-id": "order-66"})
    assert answer.headers["x-request-id"] == "order-66"


def test_request_id_is_made_up_or_cleaned(servers: Servers) -> None:
    first, second = (servers.rest.get("/v1/models").headers["x-request-id"] for _ in range(2))
    assert len(first) == 32
    assert first != second
    dirty = {"x-request-id": b"a b\xe9\tc" + b"d" * 500}
    assert (
        servers.rest.get("/v1/models", headers=dirty).headers["x-request-id"] == "abc" + "d" * 125
    )


def test_each_request_leaves_one_json_line(
    servers: Servers, png: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="gateway.requests")
    servers.rest.post(
        "/v1/predict", json={"image": as_json(png)}, headers={"x-request-id": "logged"}
    )
    servers.rest.post("/v1/probe", content=b"{", headers={"x-request-id": "logged"})
    lines = [record.fields for record in caplog.records]
    logged = [line for line in lines if line["request_id"] == "logged"]
    assert [(line["verb"], line["code"]) for line in logged] == [
        ("predict", "OK"),
        ("probe", "INVALID_INPUT"),
    ]
    assert logged[0]["seconds"] > 0


def test_one_bad_request_among_many_fails_alone(servers: Servers, png: bytes) -> None:
    def explain(place: int) -> int:
        rho = -1 if place == 3 else 0.02
        body = {"image": as_json(png), "targets": [{"index": place % 5}], "rhos": [rho]}
        return servers.rest.post("/v1/explain", json=body).status_code

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        codes = list(pool.map(explain, range(8)))
    assert codes == [200, 200, 200, 400, 200, 200, 200, 200]


def test_cancelled_grpc_call_gets_no_next_chunk(fresh_servers: Servers, png: bytes) -> None:
    fresh_servers.backend.call_seconds = 0.02
    request = pb.ExplainRequest(
        image=pb.Image(encoded=png), targets=[pb.ClassRef(index=0)], steps=2000
    )
    future = fresh_servers.stub.Explain.future(request)
    assert_search_stops(fresh_servers, future.cancel)


def test_hung_up_rest_call_gets_no_next_chunk(fresh_servers: Servers, png: bytes) -> None:
    fresh_servers.backend.call_seconds = 0.02
    body = {"image": as_json(png), "targets": [{"index": 0}], "steps": 2000}
    impatient = httpx.Timeout(0.3)

    def call() -> None:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{fresh_servers.rest.base_url}/v1/explain", json=body, timeout=impatient)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    assert_search_stops(fresh_servers, thread.join)


def assert_search_stops(servers: Servers, hang_up: Any) -> None:
    def long_calls() -> list[Any]:
        # Checks of readiness search too, two steps each.
        return [call for call in servers.backend.search_calls if call[0].step_count == 2000]

    until(lambda: len(long_calls()) >= 2)
    hang_up()
    time.sleep(0.2)
    count = len(long_calls())
    assert count < 2000 / 50  # it was not simply finished
    time.sleep(0.3)
    assert len(long_calls()) == count


def test_deadline_of_the_service_is_a_timeout(fresh_servers: Servers, png: bytes) -> None:
    fresh_servers.gateway.service.admission._settings = fresh_servers.gateway._settings.model_copy(
        update={"request_seconds": 0.1}
    )
    fresh_servers.backend.call_seconds = 0.05
    body = {"image": as_json(png), "targets": [{"index": 0}], "steps": 2000}
    response = fresh_servers.rest.post("/v1/explain", json=body)
    assert response.status_code == 504
    assert response.json()["error"]["code"] == "TIMEOUT"


def test_full_gateway_rejects_the_next_request(fresh_servers: Servers, png: bytes) -> None:
    fresh_servers.gateway.service.admission._limiter = ConcurrencyLimiter(1)
    fresh_servers.backend.call_seconds = 0.02
    image = pb.Image(encoded=png)
    running = fresh_servers.stub.Explain.future(
        pb.ExplainRequest(image=image, targets=[pb.ClassRef(index=0)], steps=200)
    )
    until(lambda: any(call[0].step_count == 200 for call in fresh_servers.backend.search_calls))
    error, details = rejected(fresh_servers.stub.Predict, pb.PredictRequest(image=image))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details["RetryInfo"].retry_delay.ToMilliseconds() > 0
    running.result(timeout=20)
    fresh_servers.stub.Predict(pb.PredictRequest(image=image))


def test_reflection_lists_the_service(servers: Servers) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(servers.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = stub.ServerReflectionInfo(iter([request]))
    names = {service.name for service in answer.list_services_response.service}
    assert {"candor.v1.CandorService", "grpc.health.v1.Health"} <= names


def test_health_reports_server_and_service_and_no_other(servers: Servers) -> None:
    stub = health_pb2_grpc.HealthStub(servers.channel)
    for name in ("", "candor.v1.CandorService"):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="candor.v2.Other"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert servers.rest.get("/healthz/live").status_code == 200


def test_drain_finishes_what_runs_and_admits_nothing(fresh_servers: Servers, png: bytes) -> None:
    servers = fresh_servers
    servers.backend.call_seconds = 0.03
    image = pb.Image(encoded=png)
    running = servers.stub.Explain.future(
        pb.ExplainRequest(image=image, targets=[pb.ClassRef(index=0)], steps=200)
    )
    until(lambda: any(call[0].step_count == 200 for call in servers.backend.search_calls))
    watch = health_pb2_grpc.HealthStub(servers.channel).Watch(health_pb2.HealthCheckRequest())
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    draining = concurrent.futures.ThreadPoolExecutor(1).submit(
        lambda: servers.wait(servers.gateway.service.drain())
    )
    until(lambda: servers.gateway.service.admission.is_draining)
    error, details = rejected(servers.stub.Predict, pb.PredictRequest(image=image))
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert details["RetryInfo"].retry_delay.ToMilliseconds() > 0
    response = servers.rest.post("/v1/predict", json={"image": as_json(png)})
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) >= 1
    assert not draining.done()
    assert running.result(timeout=20).explanations[0].steps == 200
    draining.result(timeout=20)
    servers.wait(servers.gateway._grpc.drain())
    assert next(watch).status == health_pb2.HealthCheckResponse.NOT_SERVING
    watch.cancel()


def test_openapi_describes_requests_responses_and_errors(servers: Servers) -> None:
    schema = servers.rest.get("/openapi.json").json()
    defined = schema["components"]["schemas"]
    explain = schema["paths"]["/v1/explain"]["post"]
    content = explain["requestBody"]["content"]
    assert content["application/json"]["schema"]["$ref"].endswith("/ExplainRequest")
    assert "multipart/form-data" in content
    assert "ExplainResponse" in json.dumps(explain["responses"]["200"])
    assert "ErrorBody" in json.dumps(explain["responses"]["400"])
    assert defined["ExplainRequest"]["properties"]["rhos"]["maxItems"] == limits.MAX_RHOS
    references = set(_references(schema))
    missing = {name.rsplit("/", 1)[1] for name in references} - defined.keys()
    assert references
    assert not missing


def _references(node: Any) -> Any:
    if isinstance(node, dict):
        yield from (value for key, value in node.items() if key == "$ref")
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)

"""The load test itself: its plan, its checks of responses, its verdict, and both transports."""

import dataclasses
import io
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from candor.contracts import api
from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.observability.metrics import FIRST_PROGRESS_OBJECTIVE_SECONDS, OBJECTIVE_SECONDS
from tests.gateway.linear_worker import CLASSES, SHAPE
from tests.gateway.servers import Servers, opened
from tests.load.__main__ import OUT_DIR
from tests.load.checks import WrongResponse, check_explanation, check_prediction, check_probe
from tests.load.plan import PLAN, Allowed, read_plan
from tests.load.transports import GrpcTransport, RestTransport, Transport
from tests.load.verdict import Sample, errors_of, rows_of

PIXELS = np.random.default_rng(3).integers(0, 256, (SHAPE[1], SHAPE[2], 3), dtype=np.uint8)
ALLOWED = Allowed(failed_share=0.0, rejected_share=0.01, p95_seconds={"predict": 0.25})


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


IMAGE = api.ImageInput(encoded=png(PIXELS))
EXPLAIN = api.ExplainRequest(
    image=IMAGE, targets=(api.ClassRef(index=2),), rhos=(0.02, 0.05), steps=20, solver="paper"
)
PROBE = api.ProbeRequest(image=IMAGE, steps=20, solver="paper")


@pytest.fixture(scope="module")
def gateway() -> Iterator[Servers]:
    yield from opened()


@pytest.fixture(params=["gRPC", "REST"])
def transport(gateway: Servers, request: pytest.FixtureRequest) -> Iterator[Transport]:
    ports = gateway.gateway
    connected: Transport = (
        GrpcTransport(f"127.0.0.1:{ports.grpc_port}")
        if request.param == "gRPC"
        else RestTransport(f"http://127.0.0.1:{ports.rest_port}")
    )
    yield connected
    connected.close()


def test_right_responses_pass(transport: Transport) -> None:
    check_prediction(transport.predict(api.PredictRequest(image=IMAGE, top_k=5)), len(CLASSES))
    check_explanation(EXPLAIN, PIXELS, transport.explain(EXPLAIN))
    check_probe(PROBE, PIXELS, transport.probe(PROBE))
    *_, last = transport.explain_stream(EXPLAIN)
    assert last.result is not None
    check_explanation(EXPLAIN, PIXELS, last.result)


def test_errors_are_the_same_through_both_transports(transport: Transport) -> None:
    with pytest.raises(ServiceError) as caught:
        transport.predict(api.PredictRequest(image=api.ImageInput(encoded=b"no image")))
    assert caught.value.code is ErrorCode.INVALID_INPUT
    assert caught.value.violations[0].field.startswith("image")
    with pytest.raises(ServiceError) as caught:
        list(transport.explain_stream(EXPLAIN.model_copy(update={"model": "unknown"})))
    assert caught.value.code is ErrorCode.MODEL_NOT_FOUND


Edit = Callable[[api.Explanation], api.Explanation]


def changed(**fields: object) -> Edit:
    return lambda one: one.model_copy(update=fields)


FAR = np.clip(PIXELS.astype(int) + np.where(PIXELS < 128, 30, -30), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (changed(rho=0.5), "pairs"),
        (changed(target=api.ClassConfidence(index=0, name="cat", confidence=0.5)), "pairs"),
        (changed(direction=api.Direction.AGAINST), "direction"),
        (changed(rmse=0.3), "rmse"),
        (changed(image_png=png(FAR)), "RMSE of the image"),
        (changed(image_png=png(PIXELS[:4])), "shape"),
        (changed(confidence_after=0.0), "gain of confidence"),
        (lambda o: changed(predictions_after=o.predictions_after[::-1])(o), "confidences"),
    ],
)
def test_wrong_content_in_an_ok_is_seen(gateway: Servers, edit: Edit, reason: str) -> None:
    response = gateway.client.explain(EXPLAIN)
    first, *others = response.explanations
    wrong = response.model_copy(update={"explanations": (edit(first), *others)})
    with pytest.raises(WrongResponse, match=reason):
        check_explanation(EXPLAIN, PIXELS, wrong)


def test_a_prediction_with_a_class_missing_or_a_wrong_sum_is_seen(gateway: Servers) -> None:
    response = gateway.client.predict(api.PredictRequest(image=IMAGE, top_k=5))
    short = response.model_copy(update={"predictions": response.predictions[:-1]})
    with pytest.raises(WrongResponse, match="classes"):
        check_prediction(short, len(CLASSES))
    weak = response.predictions[-1].model_copy(update={"confidence": 0.0})
    less = response.model_copy(update={"predictions": (*response.predictions[:-1], weak)})
    with pytest.raises(WrongResponse, match="sum of confidences"):
        check_prediction(less, len(CLASSES))


def test_the_plan_holds_the_objectives_of_the_service() -> None:
    plan = read_plan()
    limits = dict(plan.allowed.p95_seconds)
    assert limits.pop("first progress") == FIRST_PROGRESS_OBJECTIVE_SECONDS
    assert limits.pop("stream") == OBJECTIVE_SECONDS["explain_stream"]
    assert limits == {verb: OBJECTIVE_SECONDS[verb] for verb in limits}
    assert [plan.users_at(second) for second in (0, 16, 76, 119)] == [2, 6, 16, 2]
    assert plan.users_at(120) is None


def sample(outcome: str = "ok", name: str = "predict", seconds: float = 0.1) -> Sample:
    return Sample(name=name, transport="REST", seconds=seconds, outcome=outcome, error="")


GOOD = [sample() for _ in range(99)]


@pytest.mark.parametrize(
    ("samples", "is_held"),
    [
        (GOOD, {"predict": True, "all requests": True}),
        ([*GOOD, sample("failed")], {"predict": True, "all requests": False}),
        ([*GOOD, sample("rejected")], {"predict": True, "all requests": True}),
        ([*GOOD, sample("rejected"), sample("rejected")], {"all requests": False}),
        ([*GOOD, *(sample(seconds=0.3) for _ in range(9))], {"predict": False}),
        ([sample("failed")], {"predict": False, "all requests": False}),
        ([], {"all requests": False}),
        ([*GOOD, sample(name="first progress")], {"first progress": True}),
    ],
)
def test_the_verdict(samples: list[Sample], is_held: dict[str, bool]) -> None:
    rows = {row.what: row for row in rows_of(samples, ALLOWED, seconds=10.0, peak=4)}
    assert {what: rows[what].is_held for what in is_held} == is_held
    requests = [one for one in samples if one.name != "first progress"]
    assert rows["all requests"].tried == len(requests)
    assert rows["all requests"].lost == sum(one.outcome == "failed" for one in requests)


def test_errors_are_listed_with_their_number() -> None:
    bad = dataclasses.replace(sample("failed"), error="WrongResponse: rmse")
    assert errors_of([*GOOD, bad, bad]) == {"predict, REST: WrongResponse: rmse": 2}


@pytest.mark.slow
def test_a_short_run_on_a_real_service(tmp_path: Path) -> None:
    """Without limits of time: the test is whether it runs, not how fast."""
    text = re.sub(r"(?m)^seconds = \d+$", "seconds = 4", PLAN.read_text())
    text, _, _ = text.partition("[allowed.p95_seconds]")
    (tmp_path / "plan.toml").write_text(text + "[allowed.p95_seconds]\n")
    command = ["-m", "tests.load", "--keep", "--plan", str(tmp_path / "plan.toml")]
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all requests" in done.stdout
    assert (OUT_DIR / "report.html").stat().st_size > 0

"""Validation of requests: ranges, exclusive fields, base64; the error names the field."""

import base64
import math

import pytest
from pydantic import ValidationError

from candor.contracts import limits
from candor.contracts.api import (
    ClassRef,
    CompareRequest,
    ExplainRequest,
    ImageInput,
    PredictRequest,
    ProbeGoal,
    ProbeRequest,
    TensorInput,
)
from candor.contracts.explanation_jobs import CreateExplanationJobRequest
from candor.contracts.worker import SearchItem
from candor.terms import Goal

IMAGE = {"encoded": base64.b64encode(b"image").decode()}
EXPLAIN = {"image": IMAGE, "targets": [{"index": 3}], "rhos": [0.1]}


def rejected_field(model, values):
    with pytest.raises(ValidationError) as caught:
        model.model_validate(values)
    return ".".join(map(str, caught.value.errors()[0]["loc"]))


@pytest.mark.parametrize("rho", [0.0, -0.1, math.nan, math.inf, -math.inf, 1.0001, "x", None])
def test_rho_out_of_range_is_rejected_by_its_place(rho):
    assert rejected_field(ExplainRequest, EXPLAIN | {"rhos": [0.1, rho]}) == "rhos.1"


@pytest.mark.parametrize("rho", [5e-324, 0.075, 1.0, 1])
def test_rho_in_range_is_kept(rho):
    assert ExplainRequest.model_validate(EXPLAIN | {"rhos": [rho]}).rhos == (rho,)


@pytest.mark.parametrize(
    ("field", "bad"),
    [
        ("steps", [0, -1, limits.MAX_STEPS + 1, 1.5]),
        ("seed", [-1, limits.MAX_SEED + 1]),
        ("top_k", [0, limits.MAX_TOP_K + 1]),
        ("targets", [[], [{"index": 0}] * (limits.MAX_TARGETS + 1)]),
        ("rhos", [[0.1] * (limits.MAX_RHOS + 1)]),
        ("direction", ["up", ""]),
        ("image", [None, "x"]),
        ("colour", [1]),
    ],
)
def test_field_out_of_range_is_rejected_by_name(field, bad):
    for value in bad:
        assert rejected_field(ExplainRequest, EXPLAIN | {field: value}) == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 1),
        ("steps", limits.MAX_STEPS),
        ("seed", 0),
        ("seed", limits.MAX_SEED),
        ("top_k", 1),
        ("top_k", limits.MAX_TOP_K),
    ],
)
def test_ends_of_a_range_are_allowed(field, value):
    request = ExplainRequest.model_validate(EXPLAIN | {field: value})
    assert getattr(request, field) == value


@pytest.mark.parametrize(("solver", "explains", "radius"), [("paper", 450, 450), ("fast", 8, 52)])
def test_steps_not_named_are_those_of_the_solver(solver, explains, radius):
    explain = ExplainRequest.model_validate(EXPLAIN | {"solver": solver})
    probe = ProbeRequest.model_validate({"image": IMAGE, "solver": solver})
    assert (explain.steps, probe.steps) == (explains, radius)
    assert ExplainRequest.model_validate(EXPLAIN | {"solver": solver, "steps": 7}).steps == 7


def test_defaults_are_those_of_the_contract():
    request = ExplainRequest.model_validate({"image": IMAGE, "targets": [{"name": "cat"}]})
    assert (request.rhos, request.seed, request.top_k) == ((), 0, limits.DEFAULT_TOP_K)
    probe = ProbeRequest.model_validate({"image": IMAGE})
    assert probe.goals == (ProbeGoal.ATTACK, ProbeGoal.BTR)
    assert probe.label is None


def test_solver_not_named_is_fast():
    explain = ExplainRequest.model_validate(EXPLAIN)
    probe = ProbeRequest.model_validate({"image": IMAGE})
    compare = CompareRequest.model_validate({"image": IMAGE})
    job = CreateExplanationJobRequest(folder="cats")
    assert [(one.solver, one.steps) for one in (explain, probe, compare, job)] == [
        ("fast", 8), ("fast", 52), ("fast", 8), ("fast", 8),
    ]  # fmt: skip


@pytest.mark.parametrize(("goal", "steps"), [(Goal.EXPLAIN_FOR, 8), (Goal.BTR, 52)])
def test_steps_of_a_search_item_follow_its_solver_and_goal(goal, steps):
    item = SearchItem(goal=goal, target=0, chunk_steps=1)
    assert (item.solver, item.step_count) == ("fast", steps)
    assert SearchItem(goal=goal, target=0, chunk_steps=1, solver="paper").step_count == 450


@pytest.mark.parametrize("goals", [[], ["attack", "btr", "attack"], ["confident"]])
def test_goals_of_a_probe_are_one_or_two(goals):
    assert rejected_field(ProbeRequest, {"image": IMAGE, "goals": goals}).startswith("goals")


@pytest.mark.parametrize("given", [{}, {"index": 0, "name": "cat"}, {"index": -1}])
def test_class_is_named_by_exactly_one(given):
    with pytest.raises(ValidationError):
        ClassRef.model_validate(given)


def test_image_is_exactly_one_of_encoded_and_tensor():
    tensor = {"shape": [1, 1, 1], "data": base64.b64encode(b"1234").decode()}
    for given in ({}, IMAGE | {"tensor": tensor}):
        with pytest.raises(ValidationError, match="expected one of encoded, tensor, got"):
            ImageInput.model_validate(given)
    assert ImageInput.model_validate({"tensor": tensor}).tensor.data == b"1234"


@pytest.mark.parametrize("shape", [[], [3, 8], [1, 3, 8, 8], [3, 8, 1.5]])
def test_tensor_has_three_dimensions(shape):
    assert rejected_field(TensorInput, {"shape": shape, "data": ""}).startswith("shape")


@pytest.mark.parametrize("text", ["*", "abc", "YWJj\n", "YW Jj", "ö", "YWJj====x"])
def test_bad_base64_is_rejected_by_name(text):
    values = {"image": {"encoded": text}}
    assert rejected_field(PredictRequest, values) == "image.encoded"


@pytest.mark.parametrize("content", [b"", b"\x00\xff", bytes(range(256))])
def test_bytes_travel_as_base64_and_come_back(content):
    image = ImageInput(encoded=content)
    assert image.encoded == content
    assert base64.b64decode(image.model_dump(mode="json")["encoded"]) == content
    assert ImageInput.model_validate_json(image.model_dump_json()) == image


def test_requests_are_frozen():
    request = PredictRequest.model_validate({"image": IMAGE})
    with pytest.raises(ValidationError, match="frozen"):
        request.top_k = 3

"""JSON that contradicts itself is rejected, and no message quotes a library."""

import json

import pytest
from pydantic import BaseModel, ValidationError

from candor.contracts import api, reports
from candor.contracts.annotations import AnswerRequest
from candor.contracts.strict_json import JsonError, loads
from candor.contracts.violations import read_model, sentence, shown


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ('{"a": 1, "a": 1}', "'a': expected once, got twice"),
        ('{"a": {"b": 1, "\\u0062": 2}}', "'b': expected once, got twice"),
        ('{"a": NaN}', "expected finite numbers, got NaN"),
        ("[-Infinity]", "expected finite numbers, got -Infinity"),
        ("1e999", "expected finite numbers, got 1e999"),
        ("1" * 31, "expected integers of at most 30 digits, got 31"),
        ("1" * 5000, "expected integers of at most 30 digits, got 5000"),
        ('"\\ud800"', "got half a surrogate U+D800"),
        ('{"\\udc00": 1}', "got half a surrogate U+DC00"),
        ("[" * 65 + "]" * 65, "expected at most 64 levels"),
        ("[" * 100_000, "expected at most 64 levels"),
        ("{'a': 1}", "expected JSON, got text that is not JSON at line 1, column 2"),
        (b'"\xff"', "expected UTF-8"),
        ("", "expected JSON, got nothing"),
        (b" \n", "expected JSON, got nothing"),
        (b"\xef\xbb\xbf{}", "expected UTF-8 without a byte order mark, got one"),
        ("{}".encode("utf-16"), "expected UTF-8, got UTF-16"),
        ("{}".encode("utf-16-be"), "expected UTF-8, got UTF-16"),
        ("{}".encode("utf-32-le"), "expected UTF-8, got UTF-16, UTF-32"),
    ],
)
def test_ambiguous_documents_are_rejected(text: str | bytes, got: str) -> None:
    with pytest.raises(JsonError) as caught:
        loads(text)
    assert got in str(caught.value)


def test_unambiguous_documents_are_read_as_they_are() -> None:
    document = {"a": [1, 2.5, None, True, "\u00e9\U0001f600"], "b": {"c": {"a": -(10**20)}}}
    assert loads(json.dumps(document)) == document
    assert loads("[" * 64 + "]" * 64) is not None


TARGETS = [{"index": 1}]
IMAGE = {"encoded": "AAAA"}


@pytest.mark.parametrize(
    ("kind", "fields", "field"),
    [
        (api.PredictRequest, {"image": IMAGE, "top_k": True}, "top_k"),
        (api.PredictRequest, {"image": IMAGE, "top_k": "1"}, "top_k"),
        (api.PredictRequest, {"image": IMAGE, "top_k": 1.5}, "top_k"),
        (api.PredictRequest, {"image": IMAGE, "model": 5}, "model"),
        (api.PredictRequest, {"image": {"tensor": {"shape": [True, 2, 2], "data": ""}}}, "shape"),
        (api.ExplainRequest, {"image": IMAGE, "targets": [{"index": True}]}, "index"),
        (api.ExplainRequest, {"image": IMAGE, "targets": [{"index": 1}], "rhos": ["0.1"]}, "rhos"),
        (api.ExplainRequest, {"image": IMAGE, "targets": [{"index": 1}], "rhos": [True]}, "rhos"),
        (
            api.ExplainRequest,
            {"image": IMAGE, "targets": TARGETS, "no_cache": 1},
            "no_cache",
        ),
        (api.ProbeRequest, {"image": IMAGE, "allow_partial": "yes"}, "allow_partial"),
        (api.ProbeRequest, {"image": IMAGE, "timeout_seconds": "5"}, "timeout_seconds"),
        (api.CompareRequest, {"image": IMAGE, "seed": False}, "seed"),
        (reports.CreateReportRequest, {"quick": "on"}, "quick"),
        (reports.CreateReportRequest, {"image_count": "10"}, "image_count"),
        (AnswerRequest, {"annotator": "ada", "candidate": True, "verdict": "unsure"}, "candidate"),
        (AnswerRequest, {"annotator": "ada", "candidate": "1", "verdict": "unsure"}, "candidate"),
    ],
)
def test_a_value_of_another_type_is_rejected(
    kind: type[BaseModel], fields: dict[str, object], field: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        kind.model_validate(fields)
    said = sentence(caught.value)
    assert field in said
    assert "expected" in said
    assert "Input should" not in said
    assert "Pydantic" not in said


def test_a_file_is_read_strictly() -> None:
    with pytest.raises(JsonError, match="index: expected once|'index': expected once"):
        read_model(api.ClassRef, '{"index": 1, "index": 2}')
    with pytest.raises(JsonError, match="index: expected a whole number, got '1'"):
        read_model(api.ClassRef, '{"index": "1"}')
    with pytest.raises(JsonError, match="nome: no such field"):
        read_model(api.ClassRef, '{"index": 1, "nome": ""}')
    assert read_model(api.ClassRef, '{"index": 1}').index == 1


def test_texts_that_look_alike_are_shown_apart() -> None:
    composed, decomposed = shown("caf\u00e9"), shown("cafe\u0301")
    assert "caf\\xe9" in composed
    assert "cafe\\u0301" in decomposed
    assert "\u202e" not in shown("a\u202eb")

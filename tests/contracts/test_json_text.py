"""JSON without NaN, in whatever it hides."""

import json
import math
from typing import Any

import pytest
from pydantic import ValidationError

from candor.contracts.card import MetricCard
from candor.contracts.json_text import check_numbers, json_text
from candor.contracts.worker import SearchEnd
from candor.terms import NotFinite, SearchStatus


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("content", "place"),
    [
        (lambda bad: bad, "value"),
        (lambda bad: {"a": 1.0, "b": bad}, "b"),
        (lambda bad: {"a": [{"b": 1}, {"b": (0.0, bad)}]}, r"a\[1\].b\[1\]"),
    ],
)
def test_number_that_is_none_is_named_by_its_place(content: Any, place: str, value: float) -> None:
    with pytest.raises(NotFinite, match=f"^{place}: expected a finite number, got {value}$"):
        json_text(content(value))
    with pytest.raises(NotFinite, match=f"^{place}: "):
        check_numbers(content(value))


def test_text_is_what_json_reads_in_the_form_asked_for() -> None:
    value = {"b": [1, 2.5, None, True], "a": "ä"}
    assert json.loads(json_text(value, indent=2)) == value
    assert json_text(value, is_compact=True, is_sorted=True) == (
        '{"a":"\\u00e4","b":[1,2.5,null,true]}'
    )
    assert "ä" in json_text(value, is_ascii=False)


def test_messages_hold_no_nan() -> None:
    with pytest.raises(ValidationError, match="finite"):
        MetricCard(name="a", value=math.nan, low=0, high=1, image_count=1, data="x", method="y")
    with pytest.raises(ValidationError, match="finite"):
        SearchEnd(status=SearchStatus.FOUND, rmse=math.inf, steps=1, solver="paper")

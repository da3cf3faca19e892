"""The two handlers, initialised the way a TorchServe worker does it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ts.context import Context, RequestProcessor

from candor.contracts import wire
from candor.contracts.worker import ANSWER_ADAPTER
from handlers.predict_handler import PredictHandler
from handlers.search_handler import SearchHandler

Handler = PredictHandler | SearchHandler
Answers = list[list[tuple[Any, dict[str, Any]]]]


def new_context(model_dir: Path) -> Context:
    """TorchServe's own context, so that indexing and headers follow its real rules."""
    return Context(
        model_name="tiny",
        model_dir=str(model_dir),
        manifest={},
        batch_size=16,
        gpu=None,
        mms_version="0.12.0",
        model_yaml_config={"handler": {"threads": 1}},
    )


def call(handler: Handler, rows: Sequence[dict[str, Any]], context: Context) -> Answers:
    """Hand a batch over as TorchServe does and read every answer of every row."""
    context.request_processor = [RequestProcessor({}) for _ in rows]
    context.request_ids = dict(enumerate(map(str, range(len(rows)))))
    replies = handler.handle(list(rows), context)
    assert isinstance(replies, list)
    assert len(replies) == len(rows)
    return [[read(message) for message in wire.unpack_list(reply)] for reply in replies]


def read(message: bytes) -> tuple[Any, dict[str, Any]]:
    meta, arrays = wire.unpack(message)
    return ANSWER_ADAPTER.validate_python(meta), arrays


def _request_context(
    handler: Handler, models_dir: Path
) -> Callable[[Sequence[dict[str, Any]]], Answers]:
    context = new_context(models_dir / "tiny")
    handler.initialize(context)
    return lambda rows: call(handler, rows, context)


@pytest.fixture
def predict(tiny_models_dir: Path) -> Callable[[Sequence[dict[str, Any]]], Answers]:
    return _request_context(PredictHandler(), tiny_models_dir)


@pytest.fixture
def search(tiny_models_dir: Path) -> Callable[[Sequence[dict[str, Any]]], Answers]:
    return _request_context(SearchHandler(), tiny_models_dir)

"""TorchServe handler of `{model}-predict`: logits, many items in one batch.

TorchServe wants exactly one class in this module.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from candor.contracts.worker import DescribeAnswer, ItemError, PredictAnswer, PredictItem
from candor.models.folder import LoadedModel
from candor.runtime.chunks import check_image, predict_logits
from candor.tracing import Tracing
from handlers.envelopes import Task, answer_rows, seal, wrong_kind
from handlers.loading import load_worker_model
from handlers.spans import batch_span, start_worker_tracing


class PredictHandler:
    """Holds the model and no state of any request."""

    _model: LoadedModel
    _tracing: Tracing

    def initialize(self, context: Any) -> None:
        self._model = load_worker_model(context)
        self._tracing = start_worker_tracing()

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        with batch_span(self._tracing, "predict", data):
            described = DescribeAnswer(card=self._model.card)
            return answer_rows(data, described, self._check, self._compute)

    def _check(self, task: Task) -> ItemError | None:
        if not isinstance(task.item, PredictItem):
            return wrong_kind(task.item, "predict")
        return check_image(self._model.card, task.arrays)

    def _compute(self, tasks: Sequence[Task]) -> list[bytes]:
        images = np.stack([task.arrays["image"] for task in tasks])
        logits = predict_logits(self._model.network, images)
        return [seal(PredictAnswer(), {"logits": row}) for row in logits]

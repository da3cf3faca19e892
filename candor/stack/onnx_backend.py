"""Predictions by ONNX Runtime in this process, without torch."""

import asyncio
from collections.abc import Sequence

import numpy as np

from candor.contracts import wire
from candor.contracts.worker import DescribeAnswer, ItemError, PredictAnswer, PredictItem
from candor.gateway.workers.protocol import Role
from candor.models.onnx.session import OnnxModel
from handlers.envelopes import INPUT_NAME, Task, answer_rows, seal, wrong_kind


class OnnxBackend:
    """A worker backend of the gateway that only predicts: searches need gradients."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model

    async def call(self, model: str, role: Role, items: list[bytes]) -> list[bytes]:
        rows = [{INPUT_NAME: wire.pack_list(items)}]
        described = DescribeAnswer(card=self._model.card)
        (packed,) = await asyncio.to_thread(
            answer_rows, rows, described, _only_predict, self._compute
        )
        return wire.unpack_list(packed)

    def _compute(self, tasks: Sequence[Task]) -> list[bytes]:
        logits = self._model.logits(np.stack([task.arrays["image"] for task in tasks]))
        return [seal(PredictAnswer(), {"logits": row}) for row in logits]


def _only_predict(task: Task) -> ItemError | None:
    return None if isinstance(task.item, PredictItem) else wrong_kind(task.item, "predict")

"""Single calls to the workers of a model: what it is, a prediction, a trial of both roles."""

import functools

import numpy as np
from numpy.typing import NDArray

from candor.contracts.api import InputSpec
from candor.contracts.worker import Answer, DescribeAnswer, DescribeItem, PredictItem, SearchItem
from candor.gateway.workers.codec import (
    Arrays,
    check_accepted,
    pack_item,
    read_answer,
    read_description,
    read_logits,
)
from candor.gateway.workers.protocol import Role, WorkerBackend
from candor.gateway.workers.retry import call_until_available
from candor.terms import Goal

_TRIAL_GREY = 0.5  # of every value of the image that workers are tried with


class WorkerClient:
    """Calls with one item each.

    Args:
        retry_seconds: how long a prediction waits for a worker that is away.
    """

    def __init__(self, backend: WorkerBackend, retry_seconds: float) -> None:
        self._backend = backend
        self._retry_seconds = retry_seconds

    async def logits(self, model: str, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Logits (V,) of one image (C, H, W) float32 in [0, 1].

        Raises:
            ServiceError: MODEL_NOT_READY when its worker stayed away.
            WorkerFault: the answer breaks the contract.
        """
        call = functools.partial(
            self._call, model, "predict", pack_item(PredictItem(), {"image": image})
        )
        return read_logits(*await call_until_available(call, model, self._retry_seconds))

    async def description(self, model: str, role: Role) -> DescribeAnswer:
        """What a worker of the model in this role says that it is: its card, and its engine.

        Raises:
            WorkerUnavailable, WorkerFault, ServiceError: the worker is not ready.
        """
        return read_description(*await self._call(model, role, pack_item(DescribeItem())))

    async def try_out(self, model: str, spec: InputSpec) -> None:
        """One real prediction and one real search step.

        Raises:
            WorkerUnavailable, WorkerFault, ServiceError: a worker is not ready.
        """
        shape = (spec.channels, spec.height, spec.width)
        arrays = {"image": np.full(shape, _TRIAL_GREY, np.float32)}
        search = SearchItem(goal=Goal.BTR, target=0, step_count=2, chunk_steps=1)
        await self._call(model, "predict", pack_item(PredictItem(), arrays))
        await self._call(model, "search", pack_item(search, arrays))

    async def _call(self, model: str, role: Role, message: bytes) -> tuple[Answer, Arrays]:
        """The answer to one item.

        Raises:
            ServiceError: the worker rejected it.
        """
        (answer,) = await self._backend.call(model, role, [message])
        return check_accepted(*read_answer(answer))

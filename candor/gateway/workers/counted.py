"""A backend that counts the calls that fail."""

import asyncio

from candor.gateway.observability.metrics import Metrics
from candor.gateway.workers.protocol import (
    Role,
    WorkerBackend,
    WorkerDied,
    WorkerFault,
    WorkerUnavailable,
)


class CountedBackend:
    """Passes every call on to ``backend`` and counts its failures in ``metrics``."""

    def __init__(self, backend: WorkerBackend, metrics: Metrics) -> None:
        self._backend = backend
        self._metrics = metrics

    async def call(self, model: str, role: Role, items: list[bytes]) -> list[bytes]:
        """See `WorkerBackend.call`."""
        try:
            return await self._called(model, role, items)
        except WorkerDied:
            self._metrics.worker_failed(model, role, "died")
            raise
        except WorkerUnavailable:
            self._metrics.worker_failed(model, role, "unavailable")
            raise
        except WorkerFault:
            self._metrics.worker_failed(model, role, "fault")
            raise

    async def _called(self, model: str, role: Role, items: list[bytes]) -> list[bytes]:
        try:
            return await self._backend.call(model, role, items)
        except asyncio.CancelledError as err:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody has cancelled this task, so it was the call: its connection was closed.
            raise WorkerUnavailable("the call was cancelled") from err

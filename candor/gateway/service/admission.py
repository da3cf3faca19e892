"""Admission of requests: each one gets a slot, a model and a time limit, or is rejected."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from candor.contracts import api
from candor.contracts.errors import ErrorCode, ServiceError
from candor.contracts.worker import SearchItem
from candor.gateway.access.request_context import Priority, RequestContext, report_model
from candor.gateway.config.settings import Settings
from candor.gateway.pools import BODIES
from candor.gateway.service import validation
from candor.gateway.service.concurrency import ConcurrencyLimiter, Slot
from candor.gateway.service.models import ModelRegistry, ServedModel
from candor.gateway.service.routing import request_key
from candor.gateway.service.search_pool import SearchGroup, SearchOptions
from candor.gateway.workers.codec import Arrays
from candor.gateway.workers.retry import shutting_down

_ANSWER_SHARE = 2 / 3  # of the time left, at most

SearchRequest = api.ExplainRequest | api.ProbeRequest | api.CompareRequest


@dataclass(frozen=True, slots=True)
class AdmittedRequest:
    """A request in progress.

    Attributes:
        key: of its image, see `candor.gateway.service.routing`; empty where no route needs it.
    """

    model: ServedModel
    key: bytes
    slot: Slot
    context: RequestContext
    timeout: asyncio.Timeout

    def search_options(self, request: SearchRequest, usual: Priority, count: int) -> SearchOptions:
        """How the request wants its searches done; from now on its `timeout_seconds` counts too.

        Args:
            usual: priority of the verb, unless the client marked the request as a report.
            count: results in the response, which take time to encode before the deadline.
        """
        deadline = self.context.deadline
        if request.timeout_seconds is not None:
            deadline = min(deadline, self.context.arrived + request.timeout_seconds)
            self.timeout.reschedule(min(self.timeout.when() or deadline, deadline))
        return SearchOptions(
            tenant=self.context.tenant,
            priority=self.context.priority(usual),
            deadline=deadline - self._answer_seconds(count, deadline),
            # Half a search says nothing about how methods compare.
            allows_partial=not isinstance(request, api.CompareRequest) and request.allow_partial,
            uses_cache=not request.no_cache,
        )

    def _answer_seconds(self, count: int, deadline: float) -> float:
        """Kept back for the response, but the larger part of the time is for the searches."""
        left = max(0.0, deadline - time.monotonic())
        return min(self.model.answer_times.seconds(count), _ANSWER_SHARE * left)

    @asynccontextmanager
    async def searches(
        self, items: Sequence[SearchItem], arrays: Arrays, options: SearchOptions
    ) -> AsyncIterator[SearchGroup]:
        """The searches of ``items``, see `SearchPool.group`."""
        digest, pool = self.model.details.model.weights_digest, self.model.search_pool
        await pool.fetch(items, arrays, options, digest)
        with pool.group(items, arrays, options, self.slot, digest) as group:
            yield group


class Admission:
    """Admits requests until the gateway drains.

    Args:
        models: those that requests are routed to.
    """

    def __init__(self, models: ModelRegistry, settings: Settings) -> None:
        self._models = models
        self._settings = settings
        self._limiter = ConcurrencyLimiter(settings.max_in_flight)
        self._is_draining = False

    @property
    def is_draining(self) -> bool:
        """Whether every new request is rejected."""
        return self._is_draining

    @property
    def in_progress(self) -> int:
        """Requests whose work has not stopped yet."""
        return self._limiter.taken

    @asynccontextmanager
    async def admit(
        self, payload: Any, kind: type[Any], context: RequestContext
    ) -> AsyncIterator[AdmittedRequest]:
        """Counts the request as running and ends it when its time is over.

        Raises:
            ServiceError: MODEL_NOT_READY while draining, OVERLOADED, MODEL_NOT_FOUND, TIMEOUT.
        """
        if self._is_draining:
            raise shutting_down()
        slot = self._limiter.take()
        try:
            model, key = await self.route(payload, kind, context)
            report_model.get()(model.name)
            longest = context.arrived + self._settings.request_seconds
            async with asyncio.timeout_at(min(context.deadline, longest)) as timeout:
                yield AdmittedRequest(model, key, slot, context, timeout)
        except TimeoutError as err:
            message = f"not finished in {time.monotonic() - context.arrived:.3g} seconds"
            raise ServiceError(ErrorCode.TIMEOUT, message) from err
        finally:
            slot.drop()

    async def route(
        self, payload: Any, kind: type[Any] | None, context: RequestContext
    ) -> tuple[ServedModel, bytes]:
        """The model, and the key of the request where its route needs one.

        Raises:
            ServiceError: MODEL_NOT_FOUND, MODEL_NOT_READY.
        """
        wanted, key = validation.requested_model(payload), b""
        if self._models.routes.needs_image(wanted):
            # In a thread: base64 and digest of megabytes.
            sent_image = await BODIES.run(validation.sent_image, payload)
            key = request_key(context.tenant, sent_image)
        return self._models.find(wanted, key, payload, kind), key

    def close(self) -> None:
        """Admits nothing more."""
        self._is_draining = True

    async def wait_until_idle(self, seconds: float) -> None:
        """Waits for what runs, at most ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self._limiter.wait_until_idle()
        except TimeoutError:
            pass  # the transports close the requests that are left

"""The service behind both transports: predict, explain, probe, compare, and its models.

A request is a plain mapping with the fields of `candor.contracts.api`; a response is a model of it.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from candor.contracts import api
from candor.gateway.access.quotas import Quota, Quotas
from candor.gateway.access.request_context import RequestContext
from candor.gateway.access.shared_quotas import SharedQuotas
from candor.gateway.config.settings import Settings
from candor.gateway.observability.metrics import Metrics
from candor.gateway.service import compare, explain, predict, probe
from candor.gateway.service.admission import Admission
from candor.gateway.service.models import ModelRegistry
from candor.gateway.service.shadow import Shadows
from candor.gateway.shared import SharedMemory
from candor.gateway.workers.counted import CountedBackend
from candor.gateway.workers.protocol import WorkerBackend
from candor.tracing import NO_TRACING, Tracing


class CandorService:
    """The verbs and the models; make and use it inside one event loop.

    Args:
        metrics: counts what happens; a registry of its own where none is given.
        tracing: makes a span of every chunk.
        quotas: charged with what searches cost; none are kept where none are given.
        memory: where finished searches are shared with other gateways.

    Attributes:
        models: the models in service.
        admission: decides which requests are let in.
    """

    def __init__(
        self,
        backend: WorkerBackend,
        settings: Settings,
        metrics: Metrics | None = None,
        tracing: Tracing = NO_TRACING,
        quotas: SharedQuotas | None = None,
        memory: SharedMemory | None = None,
    ) -> None:
        metrics = metrics or Metrics(settings.models)
        self.models = ModelRegistry(
            CountedBackend(backend, metrics),
            settings,
            metrics,
            tracing,
            quotas or SharedQuotas(Quotas(Quota(), {}), None),
            memory,
        )
        self.admission = Admission(self.models, settings)
        self._shadows = Shadows(self.models, metrics)
        self._settings = settings

    async def start(self) -> None:
        """See `ModelRegistry.start`."""
        await self.models.start()

    async def predict(self, payload: Any, request_context: RequestContext) -> api.PredictResponse:
        """The strongest classes of one image, see `candor.gateway.service.predict`."""
        async with self.admission.admit(payload, api.PredictRequest, request_context) as admitted:
            return await predict.respond(payload, admitted, self._shadows)

    async def explain(self, payload: Any, request_context: RequestContext) -> api.ExplainResponse:
        """An explanation for each pair, see `candor.gateway.service.explain`."""
        async with self.admission.admit(payload, api.ExplainRequest, request_context) as admitted:
            return await explain.respond(payload, admitted, self._shadows)

    async def explain_stream(
        self, payload: Any, request_context: RequestContext
    ) -> AsyncGenerator[api.ExplainStreamResponse, None]:
        """The same with progress on the way; closing the generator ends the work."""
        async with self.admission.admit(payload, api.ExplainRequest, request_context) as admitted:
            events = explain.stream(
                payload, admitted, self._shadows, self._settings.progress_seconds
            )
            async with aclosing(events):
                async for event in events:
                    yield event

    async def probe(self, payload: Any, request_context: RequestContext) -> api.ProbeResponse:
        """The radius of each goal, see `candor.gateway.service.probe`."""
        async with self.admission.admit(payload, api.ProbeRequest, request_context) as admitted:
            return await probe.respond(payload, admitted, self._shadows)

    async def compare(self, payload: Any, request_context: RequestContext) -> api.CompareResponse:
        """Every method's saliency beside ours, see `candor.gateway.service.compare`."""
        async with self.admission.admit(payload, api.CompareRequest, request_context) as admitted:
            return await compare.respond(payload, admitted)

    def list_models(self) -> api.ModelList:
        """The models whose workers have answered at least once, the default first."""
        return self.models.listed()

    def get_model(self, name: str) -> api.ModelDetails:
        """Of several versions the primary, where ``name`` has none.

        Raises:
            ServiceError: MODEL_NOT_FOUND, MODEL_NOT_READY.
        """
        return self.models.find(name).details

    async def route(self, payload: Any, request_context: RequestContext) -> str:
        """The name that brings every request of a batch to the version its first one would get.

        Raises:
            ServiceError: MODEL_NOT_FOUND, MODEL_NOT_READY.
        """
        model, _ = await self.admission.route(payload, None, request_context)
        return model.name

    async def ready(self) -> bool:
        """Whether every model answers a real prediction and a real search step now."""
        return not self.admission.is_draining and await self.models.are_ready()

    async def drain(self) -> None:
        """Admits nothing more, drops shadows and waits for what runs, at most `drain_seconds`."""
        self.admission.close()
        await self._shadows.close()
        await self.admission.wait_until_idle(self._settings.drain_seconds)
        await self.models.close()

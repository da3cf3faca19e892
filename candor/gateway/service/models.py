"""The models in service: what their workers say they are, and a desk for each one's searches."""

import asyncio
import functools
import logging
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candor import terms
from candor.contracts import api, wire
from candor.contracts.card import ModelCard
from candor.contracts.errors import ServiceError
from candor.contracts.names import split_name, versioned
from candor.contracts.worker import (
    DescribeAnswer,
    DescribeItem,
    ItemError,
    PredictAnswer,
    PredictItem,
    SearchItem,
)
from candor.gateway.access.quotas import Quotas
from candor.gateway.config.settings import Settings
from candor.gateway.observability.metrics import Metrics
from candor.gateway.scheduling.dispatcher import SearchScheduler
from candor.gateway.scheduling.jobs import item_error, read_answer
from candor.gateway.service import validation
from candor.gateway.service.cache import ResultCache
from candor.gateway.service.search_pool import SearchPool
from candor.gateway.workers.protocol import (
    MAX_CALL_BYTES,
    Role,
    WorkerBackend,
    WorkerFault,
    WorkerUnavailable,
    not_ready,
    patiently,
    pauses,
)
from candor.images import pixels
from candor.terms import Goal
from candor.tracing import Tracing

_STATE_IMAGES = 5  # a search's state is four arrays of an image's size, and some numbers
_READY_GREY = 0.5  # of the image that readiness is tried on
_log = logging.getLogger("gateway.served")


@dataclass(frozen=True, slots=True)
class Served:
    """A model whose worker has said what it is.

    Attributes:
        name: that it is served by, with its version where there are several.
    """

    name: str
    details: api.ModelDetails
    search_pool: SearchPool


class ServedModels:
    """Every model of the settings, known from when its worker has first answered.

    Attributes:
        known: by the name each is served by.
        routes: which of them answers whom.
    """

    def __init__(
        self,
        backend: WorkerBackend,
        settings: Settings,
        metrics: Metrics,
        tracing: Tracing,
        quotas: Quotas,
    ) -> None:
        self._backend = backend
        self._settings = settings
        self._metrics = metrics
        self._tracing = tracing
        self._quotas = quotas
        self._cache = ResultCache(settings.cache_bytes)
        self.routes = settings.make_routes()
        self.known: dict[str, Served] = {}
        self._asking: tuple[asyncio.Task[None], ...] = ()

    async def start(self) -> None:
        """Asks every worker what it holds, until those that answer callers have said it."""
        asking = {
            name: asyncio.create_task(self._describe_until_known(name))
            for name in self.routes.models
        }
        self._asking = tuple(asking.values())
        await asyncio.gather(*(asking[name] for name in self.routes.answering))

    def find(
        self, wanted: str, key: bytes = b"", payload: Any = None, kind: type[Any] | None = None
    ) -> Served:
        """The model that answers a request for ``wanted``, see `Routes.find`.

        Args:
            payload, kind: to say what else is wrong with a request for a model there is not.
        Raises:
            ServiceError: MODEL_NOT_FOUND, MODEL_NOT_READY.
        """
        served = self.routes.find(wanted, key) or self._by_told_version(wanted)
        if served is None:
            available = self._versions(split_name(wanted)[0]) or self.routes.models
            raise validation.unknown_model(wanted, tuple(available), payload, kind)
        if served not in self.known:
            raise not_ready(served, "still loading")
        return self.known[served]

    def versions_beside(self, model: api.ModelRef) -> tuple[str, ...]:
        """Every version of that model, its own among them."""
        return tuple(split_name(served)[1] for served in self._versions(model.name))

    def listed(self) -> api.ModelList:
        """Those known, the default first."""
        default = self.routes.primaries[""]
        names = sorted(self.routes.models, key=lambda name: name != default)
        known = [self.known[name] for name in names if name in self.known]
        return api.ModelList(models=tuple(_summary(one, one.name == default) for one in known))

    async def work(self) -> bool:
        """Whether those that answer callers do a real prediction and a real search step now.

        A shadow that is broken, or a version that has to be asked for by name, is no reason to turn
        everybody away.
        """
        if any(name not in self.known for name in self.routes.answering):
            return False
        try:
            for name in self.routes.answering:
                await self._describe(name)
                await self._try_out(name)
        except (WorkerUnavailable, WorkerFault, ServiceError):
            return False
        return True

    async def logits(self, name: str, image: pixels.Pixels) -> NDArray[np.float32]:
        """(V,) of one image.

        Raises:
            ServiceError: MODEL_NOT_READY when its worker stayed away.
        """
        item = wire.pack(PredictItem().model_dump(mode="json"), {"image": image})
        answer, arrays = await patiently(
            functools.partial(self._ask, name, "predict", item),
            name,
            self._settings.predict_retry_seconds,
        )
        if not isinstance(answer, PredictAnswer) or "logits" not in arrays:
            raise WorkerFault(f"got {answer.kind} with {sorted(arrays)} to a predict item")
        return np.asarray(arrays["logits"])

    async def close(self) -> None:
        """Ends every search, and asks no worker any more."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)
        for model in self.known.values():
            await model.search_pool.scheduler.close()

    def _by_told_version(self, wanted: str) -> str | None:
        """A model with one version may be asked for by it, too: the one its card says.

        Before that is known, by any: it is not ready.
        """
        name, _ = split_name(wanted)
        is_unknown = name in self.routes.models and name not in self.known
        return name if is_unknown or wanted in self._versions(name) else None

    def _versions(self, name: str) -> list[str]:
        """Every version of a model as NAME@VERSION, as far as it is known."""
        served = self.routes.versions_of(name)
        if name not in served:
            return list(served)
        known = self.known.get(name)
        return [versioned(name, known.details.model.version)] if known else []

    async def _describe_until_known(self, name: str) -> None:
        for pause in pauses():
            try:
                await self._describe(name)
                return
            except (WorkerUnavailable, WorkerFault, ServiceError):
                await asyncio.sleep(pause)

    async def _describe(self, name: str) -> None:
        """Also when known already: the worker may have come back with a newer version."""
        item = wire.pack(DescribeItem().model_dump(mode="json"))
        answer, _ = await self._ask(name, "predict", item)
        if not isinstance(answer, DescribeAnswer):
            raise WorkerFault(f"got {answer.kind} to a describe item")
        version = split_name(name)[1]
        if version not in ("", answer.card.version):
            _log.error("the worker of %s holds version %s", name, answer.card.version)
            raise WorkerFault(f"got version {answer.card.version} from the worker of {name}")
        known = self.known.get(name)
        details = _details(name, answer.card)
        search_pool = known.search_pool if known else self._search_pool(name, details.input)
        self.known[name] = Served(name, details, search_pool)
        self._metrics.set_model(details.model)

    def _search_pool(self, name: str, spec: api.InputSpec) -> SearchPool:
        return SearchPool(self._scheduler(name, spec), self._cache, self._metrics, name)

    def _scheduler(self, name: str, spec: api.InputSpec) -> SearchScheduler:
        settings = self._settings
        return SearchScheduler(
            self._backend,
            name,
            value_count=_value_count(spec),
            worker_count=settings.search_workers,
            max_batch=min(settings.max_batch, searches_a_call(spec)),
            max_waiting=settings.max_waiting,
            chunk_seconds=settings.chunk_seconds,
            short_steps=settings.short_steps,
            worker_retry_seconds=settings.worker_retry_seconds,
            on_charge=self._quotas.charge,
            metrics=self._metrics,
            tracing=self._tracing,
        )

    async def _ask(self, name: str, role: Role, item: bytes) -> tuple[Any, dict[str, Any]]:
        (message,) = await self._backend.call(name, role, [item])
        answer, arrays = read_answer(message)
        if isinstance(answer, ItemError):
            raise item_error(answer)
        return answer, arrays

    async def _try_out(self, name: str) -> None:
        spec = self.known[name].details.input
        grey = np.full((spec.channels, spec.height, spec.width), _READY_GREY, np.float32)
        predict = wire.pack(PredictItem().model_dump(mode="json"), {"image": grey})
        await self._ask(name, "predict", predict)
        search = SearchItem(goal=Goal.BTR, target=0, step_count=2, chunk_steps=1)
        await self._ask(name, "search", wire.pack(search.model_dump(mode="json"), {"image": grey}))


def searches_a_call(spec: api.InputSpec) -> int:
    """How many running searches fit into one message."""
    return max(1, MAX_CALL_BYTES // (_STATE_IMAGES * 4 * _value_count(spec)))


def _value_count(spec: api.InputSpec) -> int:
    return spec.channels * spec.height * spec.width


def _details(served: str, card: ModelCard) -> api.ModelDetails:
    """What is told of a model: its card, under the name it is served by."""
    name, _ = split_name(served)
    return api.ModelDetails(
        model=api.ModelRef(name=name, version=card.version, weights_digest=card.weights_sha256),
        description=card.description,
        architecture=card.network.architecture,
        classes=card.classes,
        input=api.InputSpec(**card.input.model_dump()),
        recommended_rho=card.recommended_rho,
        metrics=card.metrics,
        solvers=terms.SOLVERS,
    )


def _summary(served: Served, is_default: bool) -> api.ModelSummary:
    details = served.details
    return api.ModelSummary(
        model=details.model, description=details.description, is_default=is_default
    )

"""The models that the gateway serves: what their workers say they are, and their searches."""

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candor import terms
from candor.contracts import api
from candor.contracts.card import MetricCard, ModelCard, Preprocessing
from candor.contracts.errors import ServiceError
from candor.contracts.names import normalised, split_name, versioned
from candor.contracts.radius import median_radius_of, radius_note, value_of
from candor.contracts.secrets import without_secrets
from candor.gateway.access.shared_quotas import SharedQuotas
from candor.gateway.config.settings import Settings
from candor.gateway.observability.metrics import Metrics
from candor.gateway.scheduling.options import SchedulerOptions
from candor.gateway.scheduling.scheduler import SearchScheduler
from candor.gateway.service import validation
from candor.gateway.service.answer_times import AnswerTimes
from candor.gateway.service.cache import ResultCache
from candor.gateway.service.search_pool import SearchPool
from candor.gateway.service.shared_results import SharedResults
from candor.gateway.shared import SharedMemory
from candor.gateway.workers.client import WorkerClient
from candor.gateway.workers.protocol import (
    MAX_CALL_BYTES,
    WorkerBackend,
    WorkerFault,
    WorkerUnavailable,
)
from candor.gateway.workers.retry import not_ready, pauses
from candor.images.pixels import Pixels
from candor.tracing import Tracing

_STATE_IMAGES = 5  # a search's state is four arrays of an image's size, and some numbers
_OTHERS_SECONDS = 2.0  # for a search worker that no request needs
_log = logging.getLogger("gateway.served")


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model whose worker has sent its card.

    Attributes:
        name: by which it is served, with its version where there are several.
        preprocessing: how an encoded image becomes an input.
    """

    name: str
    details: api.ModelDetails
    preprocessing: Preprocessing
    search_pool: SearchPool
    workers: WorkerClient
    answer_times: AnswerTimes

    async def logits(self, image: Pixels) -> NDArray[np.float32]:
        """See `WorkerClient.logits`."""
        return await self.workers.logits(self.name, image)


class ModelRegistry:
    """Every model of the settings; it is known once its worker has answered.

    Attributes:
        known: models by the name each is served by.
        routes: which model answers which request.
    """

    def __init__(
        self,
        backend: WorkerBackend,
        settings: Settings,
        metrics: Metrics,
        tracing: Tracing,
        quotas: SharedQuotas,
        memory: SharedMemory | None,
    ) -> None:
        self._backend = backend
        self._workers = WorkerClient(backend, settings.predict_retry_seconds)
        self._settings = settings
        self._metrics = metrics
        self._tracing = tracing
        self._quotas = quotas
        self._cache = SharedResults(ResultCache(settings.cache_bytes), memory)
        self.routes = settings.make_routes()
        self.known: dict[str, ServedModel] = {}
        self._notes: dict[str, str] = {}  # why searches are not compiled, as it was said last
        self._describing: tuple[asyncio.Task[None], ...] = ()

    async def start(self) -> None:
        """Requests the card of every model; returns once those that requests need are known."""
        describing = {
            name: asyncio.create_task(self._describe_until_known(name))
            for name in self.routes.models
        }
        self._describing = tuple(describing.values())
        await asyncio.gather(*(describing[name] for name in self.routes.answering))

    def find(
        self, wanted: str, key: bytes = b"", payload: Any = None, kind: type[Any] | None = None
    ) -> ServedModel:
        """The model that answers a request for ``wanted``, see `Routes.find`.

        Args:
            payload, kind: to report what else is wrong with a request for an unknown model.
        Raises:
            ServiceError: MODEL_NOT_FOUND, MODEL_NOT_READY.
        """
        name = self.routes.find(wanted, key) or self._by_version_of_card(wanted)
        if name is None:
            available = self._versions(split_name(wanted)[0]) or self.routes.models
            raise validation.unknown_model(wanted, tuple(available), payload, kind)
        if name not in self.known:
            raise not_ready(name, "still loading")
        return self.known[name]

    def versions_beside(self, model: api.ModelRef) -> tuple[str, ...]:
        """Every version of that model, its own among them."""
        return tuple(split_name(name)[1] for name in self._versions(model.name))

    def listed(self) -> api.ModelList:
        """The known models, the default first."""
        default = self.routes.primaries[""]
        names = sorted(self.routes.models, key=lambda name: name != default)
        known = [self.known[name] for name in names if name in self.known]
        return api.ModelList(models=tuple(_summary(one, one.name == default) for one in known))

    async def are_ready(self) -> bool:
        """Whether the models that requests need do a real prediction and a real search step now.

        A shadow that is broken, or a version that only requests by name reach, is no reason to
        reject every request.
        """
        if any(name not in self.known for name in self.routes.answering):
            return False
        try:
            for name in self.routes.answering:
                await self._describe(name)
                await self._workers.try_out(name, self.known[name].details.input)
                await self._ask_engine(name)
        except (WorkerUnavailable, WorkerFault, ServiceError):
            return False
        await self._ask_other_engines()
        return True

    async def close(self) -> None:
        """Ends every search and every attempt to learn what a worker holds."""
        for task in self._describing:
            task.cancel()
        await asyncio.gather(*self._describing, return_exceptions=True)
        for model in self.known.values():
            await model.search_pool.scheduler.close()
        await self._cache.close()

    def _by_version_of_card(self, wanted: str) -> str | None:
        """A model served without a version may be named with the version on its card, too.

        Before the card is known, with any version: the model is not ready.
        """
        name, _ = split_name(wanted)
        is_unknown = name in self.routes.models and name not in self.known
        return name if is_unknown or normalised(wanted) in self._versions(name) else None

    def _versions(self, name: str) -> list[str]:
        """Every version of a model as NAME@VERSION, as far as it is known."""
        names = self.routes.versions_of(name)
        if name not in names:
            return list(names)
        known = self.known.get(name)
        return [versioned(name, known.details.model.version)] if known else []

    async def _describe_until_known(self, name: str) -> None:
        said = ""
        for pause in pauses():
            try:
                await self._describe(name)
                return
            except (WorkerUnavailable, WorkerFault, ServiceError) as err:
                # Once for each kind: nobody should have to guess what the gateway waits for.
                if said != (said := str(err)):
                    cause = "" if err.__cause__ is None else f": {_shown_cause(err.__cause__)}"
                    _log.warning("%s: does not answer yet: %s%s", name, err, cause)
                await asyncio.sleep(pause)

    async def _describe(self, name: str) -> None:
        """Also when known already: the worker may have come back with a newer version."""
        card = (await self._workers.description(name, "predict")).card
        version = split_name(name)[1]
        if version not in ("", card.version):
            _log.error("the worker of %s holds version %s", name, card.version)
            raise WorkerFault(
                f"expected version {version} from the worker of {name}, got {card.version}"
            )
        known = self.known.get(name)
        details = _details(name, card)
        if known:
            running = known.details
            details = _running(details, running.engine, running.precision)
        search_pool = known.search_pool if known else self._search_pool(name, details.input)
        answer_times = known.answer_times if known else self._answer_times(details.input)
        self.known[name] = ServedModel(
            name, details, card.preprocessing, search_pool, self._workers, answer_times
        )
        self._metrics.set_model(details.model)

    async def _ask_engine(self, name: str) -> None:
        """Learns what the searches of a known model run on; said once for each change.

        Raises:
            WorkerUnavailable, WorkerFault, ServiceError: its search worker does not answer.
        """
        said = await self._workers.description(name, "search")
        self._metrics.set_engine(name, said.engine, said.precision)
        if said.note and self._notes.get(name) != said.note:
            _log.warning("%s: searches stay uncompiled: %s", name, without_secrets(said.note))
        self._notes[name] = said.note
        known = self.known[name]
        details = _running(known.details, said.engine, said.precision)
        if details != known.details:
            _log.info("%s: searches run %s, in %s", name, said.engine, said.precision)
            self.known[name] = replace(known, details=details)

    async def _ask_other_engines(self) -> None:
        """Of the models that only requests by name reach; one that is away is asked next time."""
        others = self.known.keys() - set(self.routes.answering)
        await asyncio.gather(*(self._ask_if_there(name) for name in others))

    async def _ask_if_there(self, name: str) -> None:
        with suppress(WorkerUnavailable, WorkerFault, ServiceError, TimeoutError):
            async with asyncio.timeout(_OTHERS_SECONDS):
                await self._ask_engine(name)

    def _answer_times(self, spec: api.InputSpec) -> AnswerTimes:
        return AnswerTimes(self._settings.answer_seconds, _value_count(spec))

    def _search_pool(self, name: str, spec: api.InputSpec) -> SearchPool:
        scheduler = SearchScheduler(
            self._backend,
            name,
            _scheduler_options(self._settings, spec),
            on_charge=self._quotas.charge,
            metrics=self._metrics,
            tracing=self._tracing,
        )
        return SearchPool(scheduler, self._cache, self._metrics, name)


def _shown_cause(cause: BaseException) -> str:
    """A library's error in one line, for the operator's log alone."""
    return " ".join(str(cause).split())[:300]


def searches_per_call(spec: api.InputSpec) -> int:
    """How many running searches fit into one message."""
    return max(1, MAX_CALL_BYTES // (_STATE_IMAGES * 4 * _value_count(spec)))


def _scheduler_options(settings: Settings, spec: api.InputSpec) -> SchedulerOptions:
    return SchedulerOptions(
        value_count=_value_count(spec),
        worker_count=settings.search_workers,
        max_batch=min(settings.max_batch, searches_per_call(spec)),
        max_waiting=settings.max_waiting,
        chunk_seconds=settings.chunk_seconds,
        short_steps=settings.short_steps,
        worker_retry_seconds=settings.worker_retry_seconds,
        objective_seconds=settings.objective_seconds,
    )


def _value_count(spec: api.InputSpec) -> int:
    return spec.channels * spec.height * spec.width


def _details(served_name: str, card: ModelCard) -> api.ModelDetails:
    """What clients learn of a model: its card, under the name it is served by."""
    name, _ = split_name(served_name)
    metrics = tuple(map(_shown, card.metrics))
    radius = median_radius_of(metrics)
    return api.ModelDetails(
        model=api.ModelRef(
            name=name,
            version=card.version,
            weights_digest=card.identity,
            is_accepted_without_data=card.is_accepted_without_data,
        ),
        description=without_secrets(card.description),
        architecture=_architecture(card),
        classes=card.classes,
        input=api.InputSpec(**card.input.model_dump()),
        recommended_rho=card.recommended_rho,
        metrics=metrics,
        solvers=terms.SOLVERS,
        engine="eager",  # until a search worker says otherwise
        precision="float32",
        median_radius=radius,
        radius_note=radius_note(value_of(radius), card.recommended_rho),
    )


def _architecture(card: ModelCard) -> str:
    network = card.network
    return f"{network.family}/{network.architecture}" if card.is_imported else network.architecture


def _running(
    details: api.ModelDetails, engine: api.EngineName, precision: api.Precision
) -> api.ModelDetails:
    return details.model_copy(update={"engine": engine, "precision": precision})


def _shown(metric: MetricCard) -> MetricCard:
    """Its texts quote a command line, which may hold a URL with a password."""
    texts = {"data": metric.data, "method": metric.method}
    return metric.model_copy(update={name: without_secrets(text) for name, text in texts.items()})


def _summary(model: ServedModel, is_default: bool) -> api.ModelSummary:
    details = model.details
    return api.ModelSummary(
        model=details.model, description=details.description, is_default=is_default
    )

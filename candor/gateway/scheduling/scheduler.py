"""Continuous batching of searches, one scheduler for each model.

A search travels in chunks: the dispatcher packs a batch into one call, "advance these by k steps",
and takes the states back.  A new search joins at the next chunk and a finished one leaves.  The
state is kept here, so a killed worker costs one repeated chunk, a cancelled search simply gets no
next one, any search can sit out a chunk, and the best so far is available at any time.
"""

import asyncio
import itertools
import math

from candor.contracts.worker import CompareItem, SearchItem
from candor.gateway.access.request_context import Priority
from candor.gateway.clock import MONOTONIC, Clock
from candor.gateway.observability.metrics import Metrics
from candor.gateway.scheduling.dispatcher import Dispatcher
from candor.gateway.scheduling.jobs import Ending, Job, SaliencyJob, Search, ServiceClass
from candor.gateway.scheduling.options import SchedulerOptions
from candor.gateway.scheduling.plan import Plan
from candor.gateway.scheduling.policy import JobQueue
from candor.gateway.scheduling.queue_limits import Wanted
from candor.gateway.scheduling.telemetry import OnCharge, Telemetry
from candor.gateway.workers.codec import Arrays, SearchOutcome
from candor.gateway.workers.protocol import WorkerBackend
from candor.tracing import NO_TRACING, Tracing


class SearchScheduler:
    """Admits the searches of one model; make and use it inside one event loop.

    Args:
        clock: measures chunks and waits for workers that are away.
        metrics: counts every search; a registry of its own where none is given.
        tracing: makes a span of every chunk.
        on_charge: called with every tenant's seconds of computing.

    Attributes:
        clock: deadlines of searches are in its time.
        plan: what is decided about the searches, and what can be predicted.
    """

    def __init__(
        self,
        backend: WorkerBackend,
        model: str,
        options: SchedulerOptions,
        *,
        clock: Clock = MONOTONIC,
        metrics: Metrics | None = None,
        tracing: Tracing = NO_TRACING,
        on_charge: OnCharge = lambda tenant, seconds: None,
    ) -> None:
        self.clock = clock
        self._options = options
        self.plan = Plan(options, model)
        self._telemetry = Telemetry(model, metrics or Metrics([model]), tracing, on_charge)
        self._dispatcher = Dispatcher(
            backend,
            model,
            options,
            plan=self.plan,
            telemetry=self._telemetry,
            clock=clock,
        )
        self._numbers = itertools.count()

    @property
    def queue(self) -> JobQueue:
        """Jobs that are not over, and those over that a worker still has."""
        return self.plan.queue

    @property
    def search_count(self) -> int:
        """Jobs in the queue."""
        return len(self.plan.queue)

    def check_room(self, count: int) -> None:
        """Raises: ServiceError: OVERLOADED, ``count`` more searches would be too many."""
        self.plan.limits.check_room(count)

    def check(self, wanted: Wanted) -> None:
        """See `QueueLimits.check`."""
        self.plan.limits.check(wanted, self.clock.now(), self._dispatcher.call_count)

    def submit(
        self,
        item: SearchItem,
        arrays: Arrays,
        *,
        tenant: str = "",
        priority: Priority = Priority.EXPLAIN,
    ) -> Search:
        """Starts a search; its future brings a SearchOutcome.

        The future fails with a ServiceError.  Cancelling it ends the search with its chunk.  Call
        `check_room` first.

        Args:
            arrays: those of its first item, see `candor.contracts.worker`.
        """
        search = Search(
            item=item,
            arrays=arrays,
            future=asyncio.get_running_loop().create_future(),
            service_class=self.service_class(priority, item),
            tenant=tenant,
            number=next(self._numbers),
            admitted=self.clock.now(),
        )
        self._admit(search)
        return search

    def submit_saliency(
        self,
        item: CompareItem,
        arrays: Arrays,
        *,
        tenant: str = "",
        priority: Priority = Priority.EXPLAIN,
    ) -> SaliencyJob:
        """Starts a saliency job, which takes its turn among the long searches.

        Its future brings what `read_saliencies` returns; all else is as for `submit`.
        """
        job = SaliencyJob(
            item=item,
            arrays=arrays,
            future=asyncio.get_running_loop().create_future(),
            service_class=ServiceClass(priority, is_long=True),
            tenant=tenant,
            number=next(self._numbers),
            admitted=self.clock.now(),
        )
        self._admit(job)
        return job

    def end_now(self, search: Search, deadline: float = math.inf) -> asyncio.Future[SearchOutcome]:
        """The best of a search so far, verified, before those with a later deadline.

        The search itself goes on; where it ends meanwhile, its own outcome is the result.
        """
        ending = Ending(search, asyncio.get_running_loop().create_future(), deadline)
        self._dispatcher.end(ending)
        return ending.future

    def service_class(self, priority: Priority, item: SearchItem) -> ServiceClass:
        """The service class of a search: its priority, and whether it is long."""
        return ServiceClass(priority, is_long=item.step_count > self._options.short_steps)

    def changed(self) -> asyncio.Future[None]:
        """Is done at the next moment at which a search has advanced or begun; do not cancel it."""
        return self._dispatcher.changed()

    def positions(self, service_class: ServiceClass) -> dict[int, int]:
        """See `JobQueue.positions`."""
        return self.plan.queue.positions(service_class)

    async def close(self) -> None:
        """Stops at once; searches still running fail with MODEL_NOT_READY."""
        await self._dispatcher.close()

    def _admit(self, job: Job) -> None:
        job.future.add_done_callback(lambda _: self._settle(job))
        self.plan.queue.add(job)
        self._dispatcher.wake()

    def _settle(self, job: Job) -> None:
        """Removes a job that is over once no worker has it: only then there is room for another."""
        future = job.future
        # Reading the exception marks it as retrieved, even if no request waits any more.
        has_result = not future.cancelled() and future.exception() is None
        if isinstance(job, Search):
            if has_result:
                self._telemetry.search_ended(job, future.result())
            elif future.cancelled() and not job.is_answered:
                self._telemetry.search_cancelled()
        job.when_returned(lambda: self._remove(job))

    def _remove(self, job: Job) -> None:
        self.plan.queue.remove(job)
        self._dispatcher.wake()

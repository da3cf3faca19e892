"""The scheduler's decisions in simulated time: thousands of requests within a second.

`candor.gateway.scheduling.plan` decides as it does in the service.  Requests, workers and time are
simulated: an event after the other, in the order of their times.
"""

import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from candor.contracts.errors import ErrorCode, ServiceError
from candor.gateway.access.request_context import Priority
from candor.gateway.scheduling.jobs import Job, ServiceClass
from candor.gateway.scheduling.options import SchedulerOptions
from candor.gateway.scheduling.plan import Chunk, Plan
from candor.gateway.scheduling.queue_limits import Wanted

_RESTART_SECONDS = 3.0  # of a worker that was killed


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """How long a chunk takes.

    Attributes:
        step_seconds: of a batch of one; each search more costs ``more_seconds``.
        call_seconds: of any call, to carry the states.
        noise: standard deviation of the logarithm of a chunk's seconds.
        slow: periods (begin, end, factor) in which everything takes longer.
        kills: times at which a worker is killed.
    """

    workers: int = 2
    step_seconds: float = 0.006
    more_seconds: float = 0.0035
    call_seconds: float = 0.02
    noise: float = 0.2
    slow: tuple[tuple[float, float, float], ...] = ()
    kills: tuple[float, ...] = ()

    def seconds(self, batch_size: int, steps: int, now: float, chance: random.Random) -> float:
        step = self.step_seconds + self.more_seconds * (batch_size - 1)
        factor = math.prod(by for begin, end, by in self.slow if begin <= now < end)
        return (self.call_seconds + steps * step) * factor * chance.lognormvariate(0.0, self.noise)


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Requests of one kind, one search each.

    Attributes:
        rate: requests a second at random times; 0 for clients that wait for each response.
        callers: how many clients wait for each response.
        begin, end: when the first request comes, and when the last one.
        deadline_seconds: of each request, which wants the whole result; inf without.
    """

    tenant: str = ""
    rate: float = 0.0
    callers: int = 0
    begin: float = 0.0
    end: float
    steps: int = 100
    deadline_seconds: float = 30.0
    priority: Priority = Priority.EXPLAIN


@dataclass(slots=True)
class Future:
    """As much of one as the scheduler's decisions look at."""

    is_done: bool = False

    def done(self) -> bool:
        return self.is_done


@dataclass(slots=True, eq=False, kw_only=True)
class SimulatedSearch(Job):
    """A search without an image."""

    crowd: Crowd
    taken: int = 0

    @property
    def step(self) -> int:
        return self.taken

    @property
    def byte_count(self) -> int:
        return 0

    @property
    def steps_left(self) -> int:
        return self.crowd.steps - self.taken

    @property
    def deadline(self) -> float:
        return self.admitted + self.crowd.deadline_seconds

    def parts(self, chunk_steps: int) -> Any:
        raise NotImplementedError

    def take(self, message: bytes) -> int:
        return self.taken


@dataclass(frozen=True, slots=True)
class Answered:
    """One request with its whole result in time."""

    tenant: str
    arrived: float
    ended: float


@dataclass(slots=True)
class Record:
    """What became of the requests.

    Attributes:
        late: admitted, and not answered in time.
        shed: admitted, and rejected once it was certain that they would be late.
        rejected: by code.
        delays: that rejections named.
        lengths: seconds of every chunk by the time at which it began.
    """

    answered: list[Answered] = field(default_factory=list)
    late: list[SimulatedSearch] = field(default_factory=list)
    shed: list[SimulatedSearch] = field(default_factory=list)
    rejected: Counter[ErrorCode] = field(default_factory=Counter)
    delays: list[float] = field(default_factory=list)
    lengths: list[tuple[float, float]] = field(default_factory=list)
    arrived: Counter[str] = field(default_factory=Counter)

    def rate(self, since: float, until: float, tenant: str | None = None) -> float:
        """Responses a second, to one tenant or to all."""
        count = sum(
            since <= one.ended < until and tenant in (None, one.tenant) for one in self.answered
        )
        return count / (until - since)

    def slowest(self) -> float:
        return max((one.ended - one.arrived for one in self.answered), default=0.0)


class Simulation:
    """One run; the same seed gives the same."""

    def __init__(
        self, machine: Machine, crowds: Iterable[Crowd], *, seed: int = 1, **options: Any
    ) -> None:
        self._machine = machine
        self._chance = random.Random(seed)
        self.plan = Plan(
            SchedulerOptions(value_count=3072, worker_count=machine.workers, **options), "model"
        )
        self.record = Record()
        self._now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._calls: dict[int, tuple[Chunk, float]] = {}
        self._away = 0
        for crowd in crowds:
            self._expect(crowd)
        for moment in machine.kills:
            self._at(moment, self._kill)

    def run(self) -> Record:
        """Until nothing is left to happen."""
        while self._events:
            self._now, _, happen = heapq.heappop(self._events)
            happen()
            self._send()
        return self.record

    def _at(self, moment: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (moment, next(self._numbers), happen))

    def _expect(self, crowd: Crowd) -> None:
        for _ in range(crowd.callers):
            self._at(crowd.begin, lambda: self._arrive(crowd))
        moment = crowd.begin
        while crowd.rate and (moment := moment + self._chance.expovariate(crowd.rate)) < crowd.end:
            self._at(moment, lambda: self._arrive(crowd))

    def _arrive(self, crowd: Crowd) -> None:
        self.record.arrived[crowd.tenant] += 1
        is_long = crowd.steps > 40
        search = SimulatedSearch(
            future=Future(),  # type: ignore[arg-type]  # no loop runs that a real one could use
            service_class=ServiceClass(crowd.priority, is_long=is_long),
            tenant=crowd.tenant,
            number=next(self._numbers),
            admitted=self._now,
            crowd=crowd,
        )
        wanted = Wanted(
            tenant=search.tenant,
            service_class=search.service_class,
            step_counts=[crowd.steps],
            open_count=1,
            deadline=search.deadline,
            allows_partial=False,
        )
        try:
            self.plan.limits.check(wanted, self._now, len(self._calls))
        except ServiceError as err:
            self._reject(crowd, err)
            return
        self.plan.queue.add(search)
        if math.isfinite(search.deadline):
            self._at(search.deadline, lambda: self._give_up(search))

    def _reject(self, crowd: Crowd, error: ServiceError) -> None:
        self.record.rejected[error.code] += 1
        delay = error.retry_seconds or math.inf
        self.record.delays.append(delay)
        if crowd.callers:
            self._come_again(crowd, delay)

    def _come_again(self, crowd: Crowd, delay: float = 0.0) -> None:
        if self._now + delay < crowd.end:
            self._at(self._now + delay, lambda: self._arrive(crowd))

    def _send(self) -> None:
        while len(self._calls) + self._away < self._machine.workers:
            chunk = self.plan.next_chunk()
            if chunk is None:
                return
            machine, size = self._machine, len(chunk.batch)
            seconds = machine.seconds(size, chunk.steps, self._now, self._chance)
            number = next(self._numbers)
            self._calls[number] = chunk, self._now
            self.record.lengths.append((self._now, seconds))
            self._at(self._now + seconds, lambda n=number: self._return(n))  # type: ignore[misc]

    def _return(self, number: int) -> None:
        if number not in self._calls:  # its worker was killed
            return
        chunk, began = self._calls.pop(number)
        after = []
        for search in chunk.batch:
            assert isinstance(search, SimulatedSearch)
            if not search.future.done():
                search.taken = min(search.crowd.steps, search.taken + chunk.steps)
            after.append(search.taken)
        self.plan.returned(chunk, after, self._now - began)
        for search in chunk.batch:
            self._settle(search)
        self._shed()

    def _shed(self) -> None:
        """As a `SearchGroup` does."""
        step_seconds = self.plan.estimates.finishing_seconds(1)
        for search in list(self.plan.queue):
            assert isinstance(search, SimulatedSearch)
            needed = search.steps_left * step_seconds
            if self._now + needed > search.deadline and not search.future.done():
                self.record.shed.append(search)
                self._end(search)

    def _settle(self, search: Job) -> None:
        assert isinstance(search, SimulatedSearch)
        search.mark_returned()
        if search.future.done():
            self.plan.queue.remove(search)
        elif not search.steps_left:
            self.record.answered.append(Answered(search.tenant, search.admitted, self._now))
            self._end(search)

    def _give_up(self, search: SimulatedSearch) -> None:
        if not search.future.done():
            self.record.late.append(search)
            self._end(search)

    def _end(self, search: SimulatedSearch) -> None:
        search.future.is_done = True  # type: ignore[attr-defined]
        if not search.is_in_flight:
            self.plan.queue.remove(search)
        if search.crowd.callers:
            self._come_again(search.crowd)

    def _kill(self) -> None:
        """What the worker was doing is lost and will be sent again."""
        self._away += 1
        self._at(self._now + _RESTART_SECONDS, self._restart)
        if self._calls:
            chunk, _ = self._calls.pop(min(self._calls))
            for search in chunk.batch:
                self._settle(search)

    def _restart(self) -> None:
        self._away -= 1

"""Whose turn it is: which jobs form the next batch, by service class, tenant and length.

Every chunk is the turn of one service class: a priority (explain, probe, report) and, within it,
short or long searches, so that a short search waits for no batch of long ones.  Service classes
take turns by weight: the turn goes to the one that would have had least after it, so a few turns of
a heavy class come in a row.  Within the turn, tenants share the batch in compute-seconds.  A
tenant's own searches go first come, first served, but each has its first chunk before any has its
next: a first result comes early.  Every weight is above zero, so no job starves.  A saliency job
waits among the long searches and is sent without others.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Iterator, Sequence

from candor.gateway.access.request_context import Priority
from candor.gateway.scheduling.fair_share import FairShares
from candor.gateway.scheduling.jobs import Job, SaliencyJob, ServiceClass
from candor.gateway.scheduling.outage import POISONED_DEATHS, is_isolated

_PRIORITY_WEIGHTS = {Priority.EXPLAIN: 8.0, Priority.PROBE: 4.0, Priority.REPORT: 1.0}
_SHORT_FACTOR = 2.5  # two chunks in a row, which is a short search, then a long one's turn


class JobQueue:
    """Every job of one model that is not over, and whose turn it is."""

    def __init__(self) -> None:
        self._jobs: dict[int, Job] = {}
        self._service_classes: FairShares[ServiceClass] = FairShares()
        self._tenants: FairShares[str] = FairShares()

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._jobs.values())

    @property
    def tenant_count(self) -> int:
        """Tenants whose shares are remembered."""
        return len(self._tenants)

    def add(self, job: Job) -> None:
        """Lets ``job`` take part; its number must be new."""
        self._jobs[job.number] = job
        self._service_classes.join(job.service_class)
        self._tenants.join(job.tenant)

    def remove(self, job: Job) -> None:
        """Forgets ``job``; safe to repeat."""
        if self._jobs.pop(job.number, None) is not None:
            self._service_classes.leave(job.service_class)
            self._tenants.leave(job.tenant)

    def next_batch(self, limit: int, seconds: float) -> list[Job]:
        """At most ``limit`` jobs for the next chunk; empty when all are in flight.

        Args:
            seconds: about how long the chunk will take.
        """
        by_class: dict[ServiceClass, list[Job]] = defaultdict(list)
        for job in self._ready():
            by_class[job.service_class].append(job)
        if not by_class:
            return []
        owner = min(by_class, key=lambda one: self._virtual_time_after(one, seconds))
        batch = self._share_among_tenants(by_class.pop(owner), limit, seconds / limit)
        if _is_sent_alone(batch[0]):
            return batch[:1]
        batch = [job for job in batch if not _is_sent_alone(job)]
        return batch + self._fillers(owner, by_class, min(limit - len(batch), len(batch)))

    def charge(self, job: Job, seconds: float) -> None:
        """Counts what a chunk cost ``job`` for its service class and its tenant."""
        self._service_classes.charge(job.service_class, seconds, _weight(job.service_class))
        self._tenants.charge(job.tenant, seconds)

    def count_before(self, tenant: str, service_class: ServiceClass) -> int:
        """Jobs that have their first chunk before the tenant's next one has."""
        return sum(
            job.tenant == tenant and job.service_class == service_class and job.step == 0
            for job in self._ready()
        )

    def steps_until_done(self, tenant: str, service_class: ServiceClass, more: int) -> float:
        """Steps taken until all of the tenant's in that service class are, and ``more`` of them.

        Until then no other tenant has had more than this one, and no other service class more than
        its weight allows.
        """
        by_tenant: Counter[str] = Counter({tenant: more})
        by_class: Counter[ServiceClass] = Counter()
        for job in self:
            if job.service_class == service_class:
                by_tenant[job.tenant] += job.steps_left
            else:
                by_class[job.service_class] += job.steps_left
        own = by_tenant[tenant]
        within = float(sum(min(own, steps) for steps in by_tenant.values()))
        share = within / _weight(service_class)
        return within + sum(min(steps, share * _weight(one)) for one, steps in by_class.items())

    def positions(self, service_class: ServiceClass) -> dict[int, int]:
        """By number: the position in the queue, from 1, of each job that has not started."""
        waiting = (
            job.number
            for job in self._ready()
            if job.service_class == service_class and job.step == 0
        )
        return {number: position for position, number in enumerate(waiting, start=1)}

    def _ready(self) -> Iterator[Job]:
        return (job for job in self if not job.is_in_flight and not job.future.done())

    def _virtual_time_after(self, service_class: ServiceClass, seconds: float) -> float:
        """What a service class would have had after a chunk of ``seconds``."""
        had = self._service_classes.virtual_time(service_class)
        return had + seconds / _weight(service_class)

    def _share_among_tenants(
        self, jobs: Sequence[Job], limit: int, seconds_each: float
    ) -> list[Job]:
        """At most ``limit`` jobs, one by one from the tenant that has had least."""
        by_tenant: dict[str, deque[Job]] = defaultdict(deque)
        for job in sorted(jobs, key=_order_within_tenant):
            by_tenant[job.tenant].append(job)
        had = {tenant: self._tenants.virtual_time(tenant) for tenant in by_tenant}
        chosen: list[Job] = []
        while by_tenant and len(chosen) < limit:
            tenant = min(by_tenant, key=had.__getitem__)
            chosen.append(by_tenant[tenant].popleft())
            had[tenant] += seconds_each
            if not by_tenant[tenant]:
                del by_tenant[tenant]
        return chosen

    def _fillers(
        self, owner: ServiceClass, others: dict[ServiceClass, list[Job]], count: int
    ) -> list[Job]:
        """Long searches of other service classes that fill a long batch, ``count`` at most.

        A larger batch does more steps a second, but every search in it slows down those whose turn
        it is, so the caller lets them at most double its size.
        """
        fillers: list[Job] = []
        for service_class in sorted(others, key=self._service_classes.virtual_time):
            if owner.is_long and service_class.is_long:
                fillers += [job for job in others[service_class] if not _is_sent_alone(job)]
        return fillers[: max(0, count)]


def _weight(service_class: ServiceClass) -> float:
    factor = 1.0 if service_class.is_long else _SHORT_FACTOR
    return _PRIORITY_WEIGHTS[service_class.priority] * factor


def _is_sent_alone(job: Job) -> bool:
    return isinstance(job, SaliencyJob) or is_isolated(job)


def _order_within_tenant(job: Job) -> tuple[int, bool, int]:
    """Isolated jobs first, to clear most of them soon; then those that have not started."""
    deaths = job.deaths if is_isolated(job) else POISONED_DEATHS
    return deaths, job.step > 0, job.number

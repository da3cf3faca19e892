"""Which searches fly next: by class, tenant and length.

Every chunk is one lane's turn, and lanes take turns by weight: a lane is a class (explain, probe,
report) and, within it, short or long searches, so a short one waits for no batch of long ones.  The
turn is the lane's that would have had least after it, so a few turns of a heavy lane come in a row.
Within the turn tenants share the places in compute-seconds.  A tenant's own searches go first come,
first served, but each has its first chunk before any has its next: a first result is there early.
Every weight is above zero, so everybody's turn comes.  An errand waits among the long searches and
flies alone.
"""

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence

from candor.gateway.access.request_context import Priority
from candor.gateway.scheduling.fair_share import Shares
from candor.gateway.scheduling.jobs import Job, SaliencyJob, ServiceClass

_CLASS_WEIGHTS = {Priority.EXPLAIN: 8.0, Priority.PROBE: 4.0, Priority.REPORT: 1.0}
_SHORT_FACTOR = 2.5  # two chunks in a row, which is a short search, then a long one's turn
ISOLATED_DEATHS = 2  # a search aboard that many deaths in a row flies alone
POISONED_DEATHS = 4  # and is given up after two more


def _weight(service_class: ServiceClass) -> float:
    return _CLASS_WEIGHTS[service_class.priority] * (
        1.0 if service_class.is_long else _SHORT_FACTOR
    )


def _is_isolated(search: Job) -> bool:
    return isinstance(search, SaliencyJob) or search.deaths >= ISOLATED_DEATHS


def _place_in_line(search: Job) -> tuple[int, bool, int]:
    """Among a tenant's own: suspects first, to clear most of them soon; then who has not begun."""
    is_isolated = search.deaths >= ISOLATED_DEATHS
    deaths = search.deaths if is_isolated else POISONED_DEATHS
    return deaths, search.step > 0, search.number


class SearchQueue:
    """Every search of one model that is not over, and whose turn it is."""

    def __init__(self) -> None:
        self._searches: dict[int, Job] = {}
        self._service_classes: Shares[ServiceClass] = Shares()
        self._tenants: Shares[str] = Shares()

    def __len__(self) -> int:
        return len(self._searches)

    def __iter__(self) -> Iterator[Job]:
        return iter(self._searches.values())

    def add(self, search: Job) -> None:
        self._searches[search.number] = search
        self._service_classes.join(search.service_class)
        self._tenants.join(search.tenant)

    def remove(self, search: Job) -> None:
        """Safe to repeat."""
        if self._searches.pop(search.number, None) is not None:
            self._service_classes.leave(search.service_class)
            self._tenants.leave(search.tenant)

    def next_batch(self, limit: int, seconds: float) -> list[Job]:
        """At most ``limit`` searches for the next chunk; empty when all fly already.

        Args:
            seconds: what the chunk will take, about.
        """
        service_classes: dict[ServiceClass, list[Job]] = defaultdict(list)
        for search in self._ready():
            service_classes[search.service_class].append(search)
        if not service_classes:
            return []
        owner = min(
            service_classes,
            key=lambda service_class: (
                self._service_classes.had(service_class) + seconds / _weight(service_class)
            ),
        )
        batch = self._shared_out(service_classes.pop(owner), limit, seconds / limit)
        if _is_isolated(batch[0]):
            return batch[:1]
        batch = [search for search in batch if not _is_isolated(search)]
        return batch + self._riders(owner, service_classes, min(limit - len(batch), len(batch)))

    def charge(self, search: Job, seconds: float) -> None:
        """What a chunk cost ``search``."""
        self._service_classes.charge(search.service_class, seconds, _weight(search.service_class))
        self._tenants.charge(search.tenant, seconds)

    def count_before(self, tenant: str, service_class: ServiceClass) -> int:
        """Searches that have their first chunk before the tenant's next one has."""
        return sum(
            search.tenant == tenant and search.service_class == service_class and search.step == 0
            for search in self._ready()
        )

    def positions(self, service_class: ServiceClass) -> dict[int, int]:
        """By number: where each search of a lane that has not begun stands in line, from 1."""
        waiting = (
            search.number
            for search in self._ready()
            if search.service_class == service_class and search.step == 0
        )
        return {number: place for place, number in enumerate(waiting, start=1)}

    def _ready(self) -> Iterator[Job]:
        return (s for s in self._searches.values() if not s.is_in_flight and not s.future.done())

    def _shared_out(self, searches: Sequence[Job], limit: int, seconds_a_place: float) -> list[Job]:
        """Place by place to the tenant that has had least."""
        lines: dict[str, deque[Job]] = defaultdict(deque)
        for search in sorted(searches, key=_place_in_line):
            lines[search.tenant].append(search)
        had = {tenant: self._tenants.had(tenant) for tenant in lines}
        chosen: list[Job] = []
        while lines and len(chosen) < limit:
            tenant = min(lines, key=had.__getitem__)
            chosen.append(lines[tenant].popleft())
            had[tenant] += seconds_a_place
            if not lines[tenant]:
                del lines[tenant]
        return chosen

    def _riders(
        self, owner: ServiceClass, others: dict[ServiceClass, list[Job]], places: int
    ) -> list[Job]:
        """Long searches of other lanes that fill a long batch, at most to double its size.

        A larger batch does more a second, but every place slows down those whose turn it is.
        """
        riders: list[Job] = []
        for service_class in sorted(others, key=self._service_classes.had):
            if owner.is_long and service_class.is_long:
                riders += [s for s in others[service_class] if not _is_isolated(s)]
        return riders[: max(0, places)]

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
from candor.gateway.scheduling.jobs import Errand, Lane, Passenger

_CLASS_WEIGHTS = {Priority.EXPLAIN: 8.0, Priority.PROBE: 4.0, Priority.REPORT: 1.0}
_SHORT_FACTOR = 2.5  # two chunks in a row, which is a short search, then a long one's turn
SUSPECT_DEATHS = 2  # a search aboard that many deaths in a row flies alone
CONDEMNED_DEATHS = 4  # and is given up after two more


def _weight(lane: Lane) -> float:
    return _CLASS_WEIGHTS[lane.priority] * (1.0 if lane.is_long else _SHORT_FACTOR)


def _flies_alone(search: Passenger) -> bool:
    return isinstance(search, Errand) or search.deaths >= SUSPECT_DEATHS


def _place_in_line(search: Passenger) -> tuple[int, bool, int]:
    """Among a tenant's own: suspects first, to clear most of them soon; then who has not begun."""
    is_suspect = search.deaths >= SUSPECT_DEATHS
    deaths = search.deaths if is_suspect else CONDEMNED_DEATHS
    return deaths, search.step > 0, search.number


class SearchQueue:
    """Every search of one model that is not over, and whose turn it is."""

    def __init__(self) -> None:
        self._searches: dict[int, Passenger] = {}
        self._lanes: Shares[Lane] = Shares()
        self._tenants: Shares[str] = Shares()

    def __len__(self) -> int:
        return len(self._searches)

    def __iter__(self) -> Iterator[Passenger]:
        return iter(self._searches.values())

    def add(self, search: Passenger) -> None:
        self._searches[search.number] = search
        self._lanes.join(search.lane)
        self._tenants.join(search.tenant)

    def remove(self, search: Passenger) -> None:
        """Safe to repeat."""
        if self._searches.pop(search.number, None) is not None:
            self._lanes.leave(search.lane)
            self._tenants.leave(search.tenant)

    def next_batch(self, limit: int, seconds: float) -> list[Passenger]:
        """At most ``limit`` searches for the next chunk; empty when all fly already.

        Args:
            seconds: what the chunk will take, about.
        """
        lanes: dict[Lane, list[Passenger]] = defaultdict(list)
        for search in self._ready():
            lanes[search.lane].append(search)
        if not lanes:
            return []
        owner = min(lanes, key=lambda lane: self._lanes.had(lane) + seconds / _weight(lane))
        batch = self._shared_out(lanes.pop(owner), limit, seconds / limit)
        if _flies_alone(batch[0]):
            return batch[:1]
        batch = [search for search in batch if not _flies_alone(search)]
        return batch + self._riders(owner, lanes, min(limit - len(batch), len(batch)))

    def charge(self, search: Passenger, seconds: float) -> None:
        """What a chunk cost ``search``."""
        self._lanes.charge(search.lane, seconds, _weight(search.lane))
        self._tenants.charge(search.tenant, seconds)

    def count_before(self, tenant: str, lane: Lane) -> int:
        """Searches that have their first chunk before the tenant's next one has."""
        return sum(
            search.tenant == tenant and search.lane == lane and search.step == 0
            for search in self._ready()
        )

    def positions(self, lane: Lane) -> dict[int, int]:
        """By number: where each search of a lane that has not begun stands in line, from 1."""
        waiting = (
            search.number for search in self._ready() if search.lane == lane and search.step == 0
        )
        return {number: place for place, number in enumerate(waiting, start=1)}

    def _ready(self) -> Iterator[Passenger]:
        return (s for s in self._searches.values() if not s.is_flying and not s.future.done())

    def _shared_out(
        self, searches: Sequence[Passenger], limit: int, seconds_a_place: float
    ) -> list[Passenger]:
        """Place by place to the tenant that has had least."""
        lines: dict[str, deque[Passenger]] = defaultdict(deque)
        for search in sorted(searches, key=_place_in_line):
            lines[search.tenant].append(search)
        had = {tenant: self._tenants.had(tenant) for tenant in lines}
        chosen: list[Passenger] = []
        while lines and len(chosen) < limit:
            tenant = min(lines, key=had.__getitem__)
            chosen.append(lines[tenant].popleft())
            had[tenant] += seconds_a_place
            if not lines[tenant]:
                del lines[tenant]
        return chosen

    def _riders(
        self, owner: Lane, others: dict[Lane, list[Passenger]], places: int
    ) -> list[Passenger]:
        """Long searches of other lanes that fill a long batch, at most to double its size.

        A larger batch does more a second, but every place slows down those whose turn it is.
        """
        riders: list[Passenger] = []
        for lane in sorted(others, key=self._lanes.had):
            if owner.is_long and lane.is_long:
                riders += [s for s in others[lane] if not _flies_alone(s)]
        return riders[: max(0, places)]

"""What is decided about one model's searches without a clock, a worker or a task.

The scheduler asks a `Plan` with real time and real workers, the simulation of
``tools.simulation`` with time and workers of its own.
"""

from dataclasses import dataclass, field

from candor.gateway.scheduling.chunk_sizer import ChunkSizer
from candor.gateway.scheduling.estimates import Estimates
from candor.gateway.scheduling.jobs import Job, SaliencyJob
from candor.gateway.scheduling.options import SchedulerOptions
from candor.gateway.scheduling.policy import JobQueue
from candor.gateway.scheduling.promises import Promises
from candor.gateway.scheduling.queue_limits import QueueLimits


@dataclass(frozen=True, slots=True)
class Chunk:
    """One call that advances a batch.

    Attributes:
        steps: to take; 0 for a saliency job.
        before: the step of each job when it was sent.
    """

    batch: list[Job]
    steps: int
    before: list[int] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "before", [job.step for job in self.batch])

    @property
    def is_of_searches(self) -> bool:
        """Whether it advances searches, and is not a saliency job."""
        return not isinstance(self.batch[0], SaliencyJob)


class Plan:
    """Which requests are admitted, whose turn it is, and how much a chunk does.

    Attributes:
        queue: the jobs that are not over.
        promises: deadlines by which requests get the best so far.
        estimates: what the queue allows to predict.
        limits: decide whether a request is admitted.
    """

    def __init__(self, options: SchedulerOptions, model: str) -> None:
        self.queue = JobQueue()
        self.promises = Promises()
        self._sizer = ChunkSizer(options.chunk_seconds, options.value_count)
        self.estimates = Estimates(self.queue, self._sizer, options, self.promises)
        self.limits = QueueLimits(self.estimates, options, model)

    def next_chunk(self) -> Chunk | None:
        """The next call, whose jobs are in flight from now on; None where nothing is to do."""
        estimates = self.estimates
        batch = self.queue.next_batch(estimates.batch_size, estimates.chunk_seconds)
        if not batch:
            return None
        for job in batch:
            job.is_in_flight = True
        return Chunk(batch, self._steps_of(batch))

    def returned(self, chunk: Chunk, after: list[int], seconds: float) -> list[tuple[int, float]]:
        """Counts what a chunk cost: of each job the steps it took, and its share of the seconds.

        Args:
            after: the step of each job now.
            seconds: of one worker.
        """
        taken = [max(0, end - begin) for begin, end in zip(chunk.before, after, strict=True)]
        # A saliency job takes no step of a search, but new searches waited as long for its end.
        steps = max(taken) if chunk.is_of_searches else 0
        self._sizer.record(len(chunk.batch), steps, seconds, is_cut=steps < chunk.steps)
        costs = [(count, seconds * count / max(1, sum(taken))) for count in taken]
        for job, (_, cost) in zip(chunk.batch, costs, strict=True):
            job.deaths = 0
            self.queue.charge(job, cost)
        return costs

    def ending_returned(self, count: int, seconds: float) -> None:
        """Counts a call that only verified so many best so far."""
        self._sizer.record_ending(count, seconds)

    def _steps_of(self, batch: list[Job]) -> int:
        if isinstance(batch[0], SaliencyJob):
            return 0
        has_newcomer = any(job.step == 0 for job in batch)
        service_class = batch[0].service_class
        return self._sizer.begin(service_class, len(batch), has_newcomer=has_newcomer)

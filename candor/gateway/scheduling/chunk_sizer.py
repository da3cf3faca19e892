"""How many steps and searches fill a chunk, from the measured cost of steps."""

from collections.abc import Hashable

MAX_CHUNK_STEPS = 50
_NEW_SHARE = 0.3  # weight of the newest measurement in the average
_FALLBACK_SECONDS = 5e-6  # of one step over one value of an image, before anything was measured
_MOST_GROWTH = 4.0  # of a chunk's length while no new search arrives
_SMALLEST_LIMIT = 8  # searches in a chunk, which fill a CPU
_WORTH_SHARE = 0.9  # of a search's cost that twice as many in a chunk may have, to be worth it
_KEPT_SHARE = 0.97  # of all that is known of chunks, with each new one
_REMEMBERED_CHUNKS = 200  # then a size is tried again: its cost was that of another time
_ENDING_STEPS = 5  # verifying takes about as long as so many steps, before one was measured
_PEAK_FADES = 0.1  # how much of a peak later measurements wear off, each


class ChunkSizer:
    """How many steps fill a chunk, from the measured seconds a step at each batch size.

    Args:
        chunk_seconds: how long a whole chunk should take that brings a search its first result.
            While no new search arrives, each next chunk of a service class takes twice as long, up
            to four times this: a new search waits for it, but states travel less often.
        value_count: C*H*W of the model's images; sizes the first chunk.
    """

    def __init__(self, chunk_seconds: float, value_count: int) -> None:
        self._shortest = chunk_seconds
        self._lengths: dict[Hashable, float] = {}  # of the next chunk of every service class
        self._fallback = _FALLBACK_SECONDS * value_count
        self._step_seconds: dict[int, float] = {}
        self._estimated: dict[int, float] = {}  # what `step_seconds` says until the next chunk
        self._measured_at: dict[int, int] = {}  # by the number of chunks until then
        self._chunk_count = 0
        self._seconds = self._steps = 0.0  # of chunks, less of each older one
        self._chunk_peak = chunk_seconds
        self._ending_peaks: dict[int, float] = {}  # by the number of searches

    @property
    def has_measured(self) -> bool:
        """Whether any chunk has been measured yet."""
        return bool(self._step_seconds)

    def begin(self, service_class: Hashable, batch_size: int, *, has_newcomer: bool) -> int:
        """Steps of the chunk that begins now; a newcomer makes every service class start short."""
        if has_newcomer:
            self._lengths.clear()
        length = self._lengths.get(service_class, self._shortest)
        self._lengths[service_class] = min(2.0 * length, _MOST_GROWTH * self._shortest)
        return self._steps_in(length, batch_size)

    def batch_limit(self, max_batch: int) -> int:
        """The fewest searches in one chunk that keep a worker as busy as any number does.

        More would do no more steps a second, but all of them would end later.  Twice as many are
        tried where it is not known what they cost, and again from time to time.
        """
        size = min(_SMALLEST_LIMIT, max_batch)
        while size < max_batch:
            more = min(2 * size, max_batch)
            if self._is_known(more) and self._cost(more) > _WORTH_SHARE * self._cost(size):
                break
            size = more
            if not self._is_known(more):
                break
        return size

    def step_seconds(self, batch_size: int) -> float:
        """Cost of one step of the whole batch; a size not measured takes its share of the nearest.

        No batch takes longer than its parts one after another, so one slow measurement of a size
        does not keep that size from ever being measured again.
        """
        if batch_size not in self._estimated:
            self._estimated[batch_size] = self._estimate(batch_size)
        return self._estimated[batch_size]

    def _estimate(self, batch_size: int) -> float:
        if not self._step_seconds:
            return self._fallback * max(1.0, batch_size / _SMALLEST_LIMIT)
        nearest = min(self._step_seconds, key=lambda size: abs(size - batch_size))
        sizes = [nearest, *(size for size in self._step_seconds if size < batch_size)]
        return min(self._step_seconds[size] * batch_size / size for size in sizes)

    def search_step_seconds(self, batch_size: int) -> float:
        """Cost of one step of one search in batches of that size, or of those of late if higher.

        Requests are admitted by this: of an estimate that swings they would come at its lowest.
        """
        at_this_size = self._cost(batch_size)
        return max(at_this_size, self._seconds / self._steps) if self._steps else at_this_size

    def chunk_length(self, batch_size: int) -> float:
        """Seconds of a chunk at worst, from recent chunks: a late answer is worth nothing."""
        planned = max(self._lengths.values(), default=self._shortest)
        return max(self._chunk_peak, planned, self.step_seconds(batch_size))

    def ending_length(self, batch_size: int) -> float:
        """Seconds at worst of a call that takes no step and only verifies so many best so far.

        A batch that was not measured takes as long as the nearest smaller one over and over, or at
        most as long as a larger one.
        """
        if not self._ending_peaks:
            return _ENDING_STEPS * self.step_seconds(batch_size)
        nearest = min(self._ending_peaks, key=lambda size: abs(size - batch_size))
        return self._ending_peaks[nearest] * max(1.0, batch_size / nearest)

    def likely_ending_length(self, batch_size: int) -> float:
        """Seconds of such a call by what is known, for a size that was not measured, too."""
        length = self.ending_length(batch_size)
        if any(2 * size >= batch_size for size in self._ending_peaks):
            return length
        return min(length, _ENDING_STEPS * self.step_seconds(batch_size))

    def record(
        self, batch_size: int, step_count: int, seconds: float, *, is_cut: bool = False
    ) -> None:
        """Takes a measured chunk into account.

        A chunk cut short by the ends of its searches counts only where no other is known.
        """
        self._chunk_peak = _faded(self._chunk_peak, seconds)
        if step_count < 1 or (is_cut and batch_size in self._step_seconds):
            return
        self._chunk_count += 1
        self._seconds = _KEPT_SHARE * self._seconds + seconds
        self._steps = _KEPT_SHARE * self._steps + batch_size * step_count
        self._measured_at[batch_size] = self._chunk_count
        measured = max(seconds / step_count, 1e-6)
        self._estimated.clear()
        known = self._step_seconds.get(batch_size, measured)
        self._step_seconds[batch_size] = known + _NEW_SHARE * (measured - known)

    def record_ending(self, batch_size: int, seconds: float) -> None:
        """Takes a call into account that only verified so many best so far."""
        known = self._ending_peaks.get(batch_size, 0.0)
        self._ending_peaks[batch_size] = _faded(known, seconds)

    def _is_known(self, batch_size: int) -> bool:
        measured = self._measured_at.get(batch_size, -_REMEMBERED_CHUNKS)
        return self._chunk_count - measured < _REMEMBERED_CHUNKS

    def _cost(self, batch_size: int) -> float:
        """Seconds of one step of one search."""
        return self.step_seconds(batch_size) / batch_size

    def _steps_in(self, seconds: float, batch_size: int) -> int:
        return min(MAX_CHUNK_STEPS, max(1, int(seconds / self.step_seconds(batch_size))))


def _faded(peak: float, seconds: float) -> float:
    return max(seconds, peak + _PEAK_FADES * (seconds - peak))

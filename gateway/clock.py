"""What searches cost in time, from what was measured.  Imports nothing of ours."""

MAX_CHUNK_STEPS = 50
_NEW_SHARE = 0.3  # weight of the newest measurement in the average
_FALLBACK_SECONDS = 5e-6  # of one step over one value of a picture, before anything was measured
# A state travels as often as a chunk is cut; below so many steps a chunk that would be a large
# share of its cost, so the batch becomes smaller instead, down to what still fills a CPU.
_WORTHWHILE_STEPS = 4
_SMALLEST_LIMIT = 8
_ENDING_STEPS = 5  # verifying takes about as long as so many steps, before one was measured
_PEAK_FADES = 0.1  # how much of a peak later measurements wear off, each


class ChunkClock:
    """How many steps fill a chunk, from the measured seconds a step at each batch size.

    Args:
        chunk_seconds: how long a chunk should take, all of it.
        value_count: C*H*W of the model's pictures; sizes the first chunk.
    """

    def __init__(self, chunk_seconds: float, value_count: int) -> None:
        self.chunk_seconds = chunk_seconds
        self._fallback = _FALLBACK_SECONDS * value_count
        self._step_seconds: dict[int, float] = {}
        self._chunk_peak = chunk_seconds
        self._ending_peak = 0.0

    @property
    def has_measured(self) -> bool:
        return bool(self._step_seconds)

    def steps(self, batch_size: int) -> int:
        wanted = int(self.chunk_seconds / self.step_seconds(batch_size))
        return min(MAX_CHUNK_STEPS, max(1, wanted))

    def batch_limit(self, max_batch: int) -> int:
        """Searches to put into one chunk at most, so that it is worth its travel."""
        size = max_batch
        while size > _SMALLEST_LIMIT and (
            self.step_seconds(size) * _WORTHWHILE_STEPS > self.chunk_seconds
        ):
            size = max(_SMALLEST_LIMIT, size // 2)
        return size

    def step_seconds(self, batch_size: int) -> float:
        """Of one step of the whole batch; a size not measured takes its share of the nearest."""
        if not self._step_seconds:
            return self._fallback * max(1.0, batch_size / _SMALLEST_LIMIT)
        nearest = min(self._step_seconds, key=lambda size: abs(size - batch_size))
        return self._step_seconds[nearest] * batch_size / nearest

    def chunk_length(self, batch_size: int) -> float:
        """Seconds of a chunk at worst, by what was seen lately: a late answer is worth nothing."""
        return max(self._chunk_peak, self.step_seconds(batch_size))

    def ending_length(self) -> float:
        """Seconds at worst of a call that takes no step and only verifies the best so far."""
        return self._ending_peak or _ENDING_STEPS * self.step_seconds(1)

    def record(
        self, batch_size: int, step_count: int, seconds: float, *, is_cut: bool = False
    ) -> None:
        """A chunk measured; one cut short by the ends of its searches only where none is known."""
        self._chunk_peak = _faded(self._chunk_peak, seconds)
        if step_count < 1 or (is_cut and batch_size in self._step_seconds):
            return
        measured = max(seconds / step_count, 1e-6)
        known = self._step_seconds.get(batch_size, measured)
        self._step_seconds[batch_size] = known + _NEW_SHARE * (measured - known)

    def record_ending(self, seconds: float) -> None:
        self._ending_peak = _faded(self._ending_peak, seconds)


def _faded(peak: float, seconds: float) -> float:
    return max(seconds, peak + _PEAK_FADES * (seconds - peak))

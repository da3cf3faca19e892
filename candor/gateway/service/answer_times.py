"""How long the answers of one model take to make: their PNGs, above all."""

_SECONDS_PER_VALUE = 1e-7  # of an image, before an answer was measured
_PEAK_FADES = 0.1  # how much of a peak later measurements wear off, each
_CAUTION = 1.25  # answers of several requests share the processor


class AnswerTimes:
    """Kept back before a deadline, so that a request of many searches is answered in time, too.

    Args:
        usual_seconds: to send any answer.
        value_count: C*H*W of the model's images.
    """

    def __init__(self, usual_seconds: float, value_count: int) -> None:
        self._usual_seconds = usual_seconds
        self._peak = _SECONDS_PER_VALUE * value_count

    def seconds(self, count: int) -> float:
        """To make and send an answer with ``count`` results, at worst."""
        return self._usual_seconds + _CAUTION * count * self._peak

    def record(self, count: int, seconds: float) -> None:
        """Takes a measured answer with ``count`` results into account."""
        measured = seconds / max(1, count)
        self._peak = max(measured, self._peak + _PEAK_FADES * (measured - self._peak))

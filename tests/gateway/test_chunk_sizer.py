"""How many steps and searches fill a chunk."""

from candor.contracts.api import InputSpec
from candor.gateway.scheduling.chunk_sizer import MAX_CHUNK_STEPS, ChunkSizer
from candor.gateway.service.models import searches_per_call
from candor.gateway.workers.protocol import MAX_CALL_BYTES


def test_chunks_grow_and_shrink_to_their_time() -> None:
    def steps(sizer: ChunkSizer, batch_size: int) -> int:
        return sizer.begin("", batch_size, has_newcomer=True)

    sizer = ChunkSizer(0.075, 3 * 32 * 32)
    assert steps(sizer, 1) == 4
    assert steps(ChunkSizer(0.075, 3 * 224 * 224), 1) == 1
    sizer.record(1, 5, 0.050)  # 10 ms a step
    assert steps(sizer, 1) == 7
    sizer.record(32, 1, 0.3)
    assert steps(sizer, 32) == 1
    assert steps(sizer, 30) == 1  # its share of the nearest size measured
    sizer.record(16, 1, 0.05)
    assert sizer.step_seconds(32) == 0.1  # no more than two halves
    for _ in range(30):
        sizer.record(1, 7, 0.0007)
    assert steps(sizer, 1) == MAX_CHUNK_STEPS


def test_chunks_grow_until_a_newcomer_gets_a_short_one() -> None:
    sizer = ChunkSizer(0.1, 3072)
    sizer.record(8, 10, 0.2)
    comers = [True, False, False, False, True, False]
    assert [sizer.begin("long", 8, has_newcomer=has) for has in comers] == [5, 10, 20, 20, 5, 10]
    assert sizer.begin("short", 8, has_newcomer=True) == 5
    assert sizer.begin("short", 8, has_newcomer=False) == 10
    assert sizer.begin("long", 8, has_newcomer=False) == 5  # the next newcomer waits no longer


def test_batch_shrinks_until_its_chunk_is_worth_the_transfer() -> None:
    slow, quick = ChunkSizer(0.1, 3072), ChunkSizer(0.1, 3072)
    for size in (8, 16, 32):
        slow.record(size, 1, 0.02 * size)
        quick.record(size, 10, 1.3)
    assert slow.batch_limit(32) == 8
    assert quick.batch_limit(32) == 32
    assert slow.batch_limit(4) == 4


def test_worst_lengths_follow_peaks_at_once_and_forget_them_slowly() -> None:
    sizer = ChunkSizer(0.1, 3072)
    assert sizer.ending_length(1) > 0
    sizer.record(8, 4, 0.5)
    sizer.record_ending(1, 0.3)
    assert (sizer.chunk_length(8), sizer.ending_length(1)) == (0.5, 0.3)
    sizer.record(8, 4, 0.1)
    assert 0.4 < sizer.chunk_length(8) < 0.5
    for _ in range(60):
        sizer.record(8, 4, 0.1)
        sizer.record_ending(1, 0.02)
    assert sizer.chunk_length(8) < 0.11
    assert sizer.ending_length(1) < 0.03


def test_batch_of_large_images_fits_into_one_message() -> None:
    large = InputSpec(channels=3, height=224, width=224, lower=0.0, upper=1.0)
    count = searches_per_call(large)
    assert 16 <= count < 32
    assert count * 4 * (4 * 3 * 224 * 224) < MAX_CALL_BYTES

"""Images decoded in worker processes: order, seeds, errors and digests."""

import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from candor.data.errors import DataDamaged, ReadersFailed
from candor.data.lazy import DRAWS, LazyImages, file_digest


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Decodes image ``index`` to that number, and a training view to its draws as bytes."""

    bad: int = -1
    salt: str = ""

    @property
    def shape(self):
        return 1, 1, DRAWS

    def central(self, index):
        if index == self.bad:
            raise DataDamaged(f"numbers: {index} is bad")
        return np.full((1, 1, DRAWS), index, np.uint8)

    def drawn(self, index, draws):
        return self.central(index) + (draws * 100).astype(np.uint8)

    def fingerprint(self, index):
        return f"{self.salt}{index}"


def images_of(count=200, **options):
    return LazyImages(
        name="numbers/train",
        labels=torch.arange(count) % 3,
        class_names=("a", "b", "c"),
        identifiers=tuple(map(str, range(count))),
        mean=(0.0,),
        std=(1.0,),
        decoder=Numbers(**options),
    )


def plan(steps, seed=0):
    return [(torch.tensor([step, step + 1, 7]), seed + step) for step in steps]


def test_batches_come_in_the_order_of_the_plan():
    batches = list(images_of().training_batches(plan(range(20))))
    assert [batch.labels.tolist() for batch in batches] == [
        [step % 3, (step + 1) % 3, 1] for step in range(20)
    ]
    for step, batch in enumerate(batches):
        base = batch.stored.amin(dim=(1, 2, 3))
        assert ((base - torch.tensor([step, step + 1, 7])) <= 100).all()


def test_a_step_gets_the_same_whatever_came_before():
    whole = list(images_of().training_batches(plan(range(12))))
    rest = list(images_of().training_batches(plan(range(5, 12))))
    for batch, other in zip(whole[5:], rest, strict=True):
        assert torch.equal(batch.stored, other.stored)
    other = list(images_of().training_batches(plan(range(12), seed=1)))
    assert not torch.equal(whole[0].stored, other[0].stored)
    # Images of a batch draw apart from each other.
    assert not torch.equal(whole[0].stored[0] - 0, whole[0].stored[1] - 1)


def test_images_are_test_views_on_the_unit_scale():
    data = images_of()
    expected = torch.arange(200.0)[:, None, None, None].expand(-1, 1, 1, DRAWS) / 255
    assert torch.equal(data.images(slice(None)), expected)
    assert torch.equal(data.images(torch.tensor([150, 3])), expected[[150, 3]])
    assert torch.equal(data.held().images(slice(None)), expected)
    assert data.held().labels is data.labels


def test_global_generator_stays_and_processes_end():
    state = torch.get_rng_state()
    batches = images_of().training_batches(plan(range(50)))
    next(batches)
    assert multiprocessing.active_children()
    batches.close()
    assert not multiprocessing.active_children()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("bad", [3, 190])
def test_error_of_a_worker_is_the_callers_one_line(bad):
    data = images_of(bad=bad)
    with pytest.raises(DataDamaged, match=f"^numbers: {bad} is bad$"):
        data.images(slice(None))
    with pytest.raises(DataDamaged, match=f"^numbers: {bad} is bad$"):
        list(data.training_batches([(torch.tensor([bad]), 0)]))


@dataclasses.dataclass(frozen=True)
class Killed(Numbers):
    """Its process is killed, as by the kernel for lack of memory, at image ``at``."""

    at: int = 5

    def central(self, index):
        if index == self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().central(index)


def test_reader_that_is_killed_ends_training_in_one_line():
    data = dataclasses.replace(images_of(), decoder=Killed())
    with pytest.raises(ReadersFailed, match="ended unexpectedly"):
        list(data.training_batches(plan(range(20))))
    assert not multiprocessing.active_children()


def test_batches_need_no_shared_memory():
    """They are larger than what a container has in /dev/shm, and nothing of them is there."""
    batches = images_of().training_batches(plan(range(50)))
    next(batches)
    readers = [reader.pid for reader in multiprocessing.active_children()]
    # Named by torch after the process that made them; others may train at the same time.
    ours = tuple(f"torch_{pid}_" for pid in (os.getpid(), *readers))
    shared = [name for name in os.listdir("/dev/shm") if name.startswith(ours)]
    batches.close()
    assert readers
    assert not shared


def test_readers_end_with_the_process_that_was_killed():
    code = (
        "import os, signal, multiprocessing; from tests.data.test_lazy import images_of, plan; "
        "batches = images_of().training_batches(plan(range(50))); next(batches); "
        "print(*(p.pid for p in multiprocessing.active_children()), flush=True); "
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    readers = [int(word) for word in done.stdout.split()]
    assert readers
    deadline = time.monotonic() + 20
    while any(os.path.exists(f"/proc/{pid}/exe") for pid in readers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_digest_depends_on_files_names_and_labels():
    data = images_of()
    others = [
        images_of(salt="x"),
        images_of(count=199),
        dataclasses.replace(data, labels=data.labels.flip(0)),
        dataclasses.replace(data, identifiers=data.identifiers[::-1]),
        dataclasses.replace(data, class_names=("a", "c", "b")),
    ]
    assert data.digest() == images_of().digest()
    assert len({data.digest(), *(other.digest() for other in others)}) == 6


def test_digest_of_a_file_sees_what_only_its_blocks_tell_apart(tmp_path):
    path = tmp_path / "film"
    content = bytearray(10 * 2**20)
    digests = set()
    for place in (0, len(content) // 2, len(content) - 1):
        changed = content.copy()
        changed[place] = 1
        for written in (changed, changed[:-1]):
            path.write_bytes(written)
            file_digest.cache_clear()
            digests.add(file_digest(path))
    # The middle lies in no block: a long file is not read whole.
    assert len(digests) == 5

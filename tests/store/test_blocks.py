"""Work shared in blocks, on SQLite and on PostgreSQL."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from candor.store.blocks import Block, SharedBlocks
from candor.store.engine import Store
from candor.store.leases import LeaseLost
from tests.store.stores import Clock

LEASE_SECONDS = 60.0


def blocks(store: Store, worker: str, clock: Clock, work: str = "work") -> SharedBlocks:
    return SharedBlocks(store, work, worker, lease_seconds=LEASE_SECONDS, clock=clock)


def finish(store: Store, shared: SharedBlocks, block: Block) -> bool:
    with store.writing() as session:
        return shared.finish(block, session)


def test_many_workers_at_once_add_and_take_every_block_once(store: Store) -> None:
    clock = Clock()

    def take_all(name: str) -> list[Block]:
        shared = blocks(store, name, clock)
        shared.extend(70, 8)
        taken = list(iter(shared.lease, None))
        assert all(finish(store, shared, block) for block in taken)
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [block for some in pool.map(take_all, "abcd") for block in some]
    expected = [Block(start, min(start + 8, 70)) for start in range(0, 70, 8)]
    assert sorted(taken) == expected
    assert blocks(store, "e", clock).all() == expected
    assert blocks(store, "e", clock).left() == 0
    assert blocks(store, "e", clock, "other work").all() == []


def test_silent_workers_block_goes_to_another_and_counts_once(store: Store) -> None:
    clock = Clock()
    slow, quick = (blocks(store, name, clock) for name in ("slow", "quick"))
    slow.extend(4, 4)
    block = slow.lease()
    assert block == Block(0, 4)
    assert quick.lease() is None
    clock.seconds += LEASE_SECONDS + 1
    assert quick.lease() == block
    with pytest.raises(LeaseLost):
        slow._renew(block)
    slow.release(block)  # takes nothing from its new owner
    assert blocks(store, "third", clock).lease() is None
    assert finish(store, slow, block), "results are kept, whoever was first"
    assert not finish(store, quick, block), "and not a second time"
    quick.release(block)
    assert quick.lease() is None


def test_work_grows_from_where_it_ends_and_lost_results_are_computed_again(store: Store) -> None:
    shared = blocks(store, "one", Clock())
    shared.extend(20, 8, first=3)
    shared.extend(30, 8)
    expected = [Block(3, 11), Block(11, 19), Block(19, 20), Block(20, 28), Block(28, 30)]
    assert shared.all() == expected
    shared.extend(25, 8)  # there already
    assert shared.all() == expected[:4], "less was asked for"
    shared.extend(30, 8)
    first, second = shared.lease(), shared.lease()
    assert first is not None
    assert second is not None
    finish(store, shared, second)
    with store.reading() as session:
        assert shared.done_until(session) == 3
    finish(store, shared, first)
    with store.reading() as session:
        assert shared.done_until(session) == 19
    assert shared.left() == 11
    assert shared.done() == [first, second]
    shared.reopen([first, expected[2]])
    assert shared.left() == 19
    assert shared.lease() == first

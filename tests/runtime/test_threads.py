"""Sharing a batch out over threads changes the time it takes and nothing else."""

import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from candor.runtime.compiled import FixedBatchNetwork
from candor.runtime.threads import in_shares, share_count, share_size
from candor.search import fast, paper
from candor.search.goals import NORMS, goal_code
from candor.search.state import SearchState, begin
from candor.terms import Goal
from tests.search.linear import LinearClassifier

SHAPE = (3, 8, 6)


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def explanations(count: int) -> SearchState:
    return begin(
        torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1)),
        goals=torch.full((count,), goal_code(Goal.EXPLAIN_FOR)),
        targets=torch.arange(count) % 5,
        rhos=torch.full((count,), 0.1, dtype=torch.float64),
        step_counts=torch.full((count,), 20),
        seeds=torch.arange(count),
    )


@pytest.mark.parametrize(
    ("batch_size", "threads", "count", "size"),
    [(1, 8, 1, 1), (4, 8, 1, 4), (5, 8, 2, 3), (32, 2, 2, 16), (32, 64, 8, 4), (32, 1, 1, 32)],
)
def test_shares(batch_size: int, threads: int, count: int, size: int) -> None:
    assert share_count(batch_size, threads) == count
    assert share_size(batch_size, threads) == size


def test_every_search_is_advanced_once_and_comes_back_in_its_place() -> None:
    class Watched(LinearClassifier):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append((len(images), threading.get_ident(), torch.get_num_threads()))
            return super().forward(images)

    seen: list[tuple[int, int, int]] = []
    network, state = Watched(SHAPE, 5).eval(), explanations(11)
    together = paper.advance(network, state, 20, execute=in_shares)
    assert sorted(count for count, _, _ in seen) == [3] * 20 + [4] * 40
    assert {threads for _, _, threads in seen} == {1}, "three shares, one thread each"
    assert threading.get_ident() not in {thread for _, thread, _ in seen}
    assert torch.get_num_threads() == 3, "the caller's own setting is left alone"
    for row in range(len(state)):
        alone = paper.advance(network, state.select(torch.tensor([row])), 20)
        torch.testing.assert_close(together.best_images[row], alone.best_images[0])
        assert together.seeds[row] == row


def test_masks_norms_and_contrasts_are_shared_out_with_their_searches() -> None:
    network = LinearClassifier(SHAPE, 5)
    masks = torch.ones(11, 1, *SHAPE[1:])
    masks[torch.arange(11), 0, torch.arange(11) % 8] = 0.0
    norms, away_from = torch.arange(11) % len(NORMS), (torch.arange(11) + 1) % 5
    state = replace(explanations(11), masks=masks, norms=norms, away_from=away_from)
    together = fast.advance(network, state, 20, execute=in_shares)
    whole = fast.advance(network, state, 20)
    torch.testing.assert_close(together.best_images, whole.best_images, atol=1e-5, rtol=0)
    assert not torch.equal(together.best_images, state.images)
    assert torch.equal(together.best_images * (1 - masks), state.images * (1 - masks))


def test_a_compiled_network_leaves_the_threads_of_others_alone() -> None:
    fixed = FixedBatchNetwork(LinearClassifier(SHAPE, 5), (1, 4)).eval()
    paper.advance(fixed, explanations(2), 3, execute=in_shares)
    assert torch.get_num_threads() == 3
    with torch.no_grad():
        fixed(torch.rand(4, *SHAPE))
    assert torch.get_num_threads() == 3


def test_failure_in_a_share_is_the_callers() -> None:
    def fail_on_the_last(share: SearchState) -> SearchState:
        if int(share.seeds[-1]) == 7:
            raise RuntimeError("out of memory")
        return share

    with pytest.raises(RuntimeError, match="out of memory"):
        in_shares(fail_on_the_last, LinearClassifier(SHAPE, 5), explanations(8))

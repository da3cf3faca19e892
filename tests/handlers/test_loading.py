"""How many threads a worker takes."""

import pytest

from handlers import loading


@pytest.mark.parametrize(
    ("said", "workers", "expected"), [("3", "", 3), ("", "1", 7), ("", "2", 3), ("1", "2", 1)]
)
def test_search_workers_share_the_cores_a_container_says_it_has(
    said: str, workers: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    monkeypatch.setenv("CANDOR_SEARCH_WORKERS", workers)
    monkeypatch.setattr(loading.os, "cpu_count", lambda: 7)
    assert loading._own_share() == expected

"""How many threads a worker takes."""

import pytest

from handlers import loading


@pytest.mark.parametrize(("said", "expected"), [("3", 3), ("", 7)])
def test_a_container_says_how_many_cores_it_has(
    said: str, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    monkeypatch.setattr(loading.os, "cpu_count", lambda: 7)
    assert loading._core_count() == expected

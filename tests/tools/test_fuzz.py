"""A short run of `make fuzz`."""

import pytest

from tools.fuzz.__main__ import run
from tools.fuzz.outcomes import images, mutated


def test_hostile_inputs_are_refused_and_hurt_nobody() -> None:
    rows = run(300, ["images", "wire"])  # the other two import torch first
    assert [row.what for row in rows if not row.is_held] == []
    assert sum(row.tried for row in rows) >= 150
    assert all(row.tried >= 30 for row in rows)


@pytest.mark.parametrize("content", images(), ids=lambda one: str(len(one)))
def test_mutations_change_images_and_can_be_repeated(content: bytes) -> None:
    assert mutated(content, 5) == mutated(content, 5)
    assert len({mutated(content, seed) for seed in range(20)}) > 5

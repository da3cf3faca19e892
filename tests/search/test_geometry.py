"""Unit vectors, projections, and seeds derived from their parts."""

import hashlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from candor.search import geometry
from candor.search.geometry import dot, lengths_of, per_row, unit
from candor.search.seeds import derived_seed


@pytest.mark.parametrize("shape", [(1, 3, 8, 6), (3, 3, 8, 6), (8, 144)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_unit_has_length_one_and_the_bits_of_the_plain_quotient(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    vectors = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    vectors = vectors * per_row(10.0 ** torch.linspace(-8, 8, len(vectors), dtype=dtype), vectors)
    lengths = vectors.flatten(1).norm(dim=1)
    assert torch.equal(unit(vectors), vectors / per_row(lengths, vectors))
    torch.testing.assert_close(lengths_of(unit(vectors)), torch.ones_like(lengths))


@pytest.mark.parametrize("scale", [1e-44, 1e-30, 1e-20, 1e20, 1e38])
def test_unit_neither_underflows_nor_overflows(scale: float) -> None:
    vectors = torch.zeros(2, 3, 8, 6)
    vectors[0, 1, 2, 3], vectors[1, 0, 0, 0] = scale, -scale
    expected = vectors.sign()
    torch.testing.assert_close(unit(vectors), expected)


def test_unit_of_zero_is_zero() -> None:
    assert torch.equal(unit(torch.zeros(2, 3, 8, 6)), torch.zeros(2, 3, 8, 6))


def test_dot_of_a_vector_with_itself_is_its_squared_length() -> None:
    vectors = torch.randn(4, 3, 8, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(dot(vectors, vectors), lengths_of(vectors).square())


def test_a_derived_seed_is_the_start_of_the_digest_of_its_parts() -> None:
    digest = hashlib.sha256(b"7/noise/3").digest()
    assert derived_seed(7, "noise", 3) == int.from_bytes(digest[:4], "little") < 2**32
    assert derived_seed(7, "noise", 3) != derived_seed(7, "noise", 4)


@pytest.mark.parametrize("scale", [0.02, 0.5, 3.0])
def test_projections_give_a_row_the_same_bits_whatever_the_others_need(scale: float) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 8, 8, generator=generator)
    deltas = scale * torch.randn(5, 3, 8, 8, generator=generator)
    radii = scale * torch.linspace(0.5, 4.0, 5)

    def both(rows: Tensor) -> tuple[Tensor, Tensor]:
        reach = -radii[rows] * geometry.lengths_of(deltas[rows])
        return (
            geometry.drawn_to_sphere(images[rows], deltas[rows], radii[rows]),
            geometry.nearest_in_half_space(images[rows], deltas[rows], reach),
        )

    together = both(torch.arange(5))
    for row in range(5):
        for mixed, alike in zip(together, both(torch.full((5,), row)), strict=True):
            assert torch.equal(mixed[row], alike[row])


def test_projections_end_when_they_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(*given: Any) -> Tensor:
        asked.append(1)
        return functional.threshold(*given)

    monkeypatch.setattr(geometry, "functional", SimpleNamespace(threshold=counted))
    images, deltas = torch.full((2, 3, 8, 8), 0.5), torch.ones(2, 3, 8, 8)
    drawn = geometry.drawn_to_sphere(images, deltas, torch.tensor([0.1, 0.2]))
    assert drawn.flatten(1).norm(dim=1).tolist() == pytest.approx([0.1, 0.2], rel=1e-5)
    assert len(asked) == 1  # nothing is clipped


def test_projections_of_nothing_are_finite() -> None:
    images, nothing = torch.rand(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)
    assert not geometry.drawn_to_sphere(images, nothing, torch.tensor([0.1, 9.0])).any()
    assert not geometry.nearest_in_half_space(images, nothing, torch.tensor([0.0, -1.0])).any()
    steps = geometry.nearest_in_half_space(images, nothing + 1.0, torch.zeros(2))
    assert not steps.any()

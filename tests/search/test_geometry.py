"""Unit vectors, projections, and seeds derived from their parts."""

import hashlib

import pytest
import torch
from torch import Tensor

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
def test_projections_that_end_early_give_the_bits_of_all_iterations(
    monkeypatch: pytest.MonkeyPatch, scale: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(5, 3, 8, 8, generator=generator)
    deltas = scale * torch.randn(5, 3, 8, 8, generator=generator)
    radii = scale * torch.linspace(0.5, 4.0, 5)

    def both() -> tuple[Tensor, Tensor]:
        reach = -radii * geometry.lengths_of(deltas)
        return (
            geometry.drawn_to_sphere(images, deltas, radii),
            geometry.nearest_in_half_space(images, deltas, reach),
        )

    asked: list[bool] = []
    settled = geometry._is_settled

    def remembered(values: Tensor, before: Tensor) -> bool:
        asked.append(settled(values, before))
        return asked[-1]

    monkeypatch.setattr(geometry, "_is_settled", remembered)
    early = both()
    monkeypatch.setattr(geometry, "_is_settled", lambda *given: False)
    for left, right in zip(early, both(), strict=True):
        assert torch.equal(left, right)
    if scale < 0.1:
        assert any(asked)  # nothing is clipped, so the second iteration repeats the first

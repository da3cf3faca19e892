"""The ablation leaves out one start at a time and compares image by image."""

import numpy as np
import pytest

from candor.search.starts import STARTS
from tools.ablation import Radii, compared, variants


def _radii(*rmse: float) -> Radii:
    return Radii(rmse=np.array(rmse), steps=np.full(len(rmse), 40))


def test_each_start_is_left_out_once() -> None:
    made = variants()
    assert made["all starts"] == STARTS
    for start in STARTS:
        assert set(STARTS) - set(made[f"without {start.name}"]) == {start}
    assert made["final alone"] == STARTS[-1:]


def test_ratios_are_of_the_same_image() -> None:
    row = compared("net", "variant", _radii(1.0, 2.0, 3.3), _radii(1.0, 2.0, 3.0))
    assert row.median_ratio == 1.0
    assert row.mean_ratio == pytest.approx(1.1 ** (1 / 3))
    assert row.worse == pytest.approx(1 / 3)
    assert row.mean_low <= row.mean_ratio <= row.mean_high
    assert row.worse_low < row.worse < row.worse_high


def test_where_neither_found_a_perturbation_they_are_equal() -> None:
    row = compared("net", "variant", _radii(np.inf, 1.0), _radii(np.inf, 1.0))
    assert (row.mean_ratio, row.worse, row.missing) == (1.0, 0.0, 1)

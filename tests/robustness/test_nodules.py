"""The paper's score of JSRT on points whose distances are known, and on films of the format."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from candor.audit import nodule_session
from candor.cli.main import build_app
from candor.data.jsrt import load_films, regions
from candor.models.folder import LoadedModel, save_model
from candor.nets.architectures import NetworkSpec, build_network
from candor.robustness.nodules import candidate_points, grid_points, score_film
from tests.official_files import film, jsrt

JSRT = ("non-nodule", "nodule")


def test_regions_of_the_grid_lie_in_the_film() -> None:
    assert grid_points(10, 4, 3) == [
        (2.0, 2.0), (5.0, 2.0), (8.0, 2.0), (2.0, 5.0), (5.0, 5.0), (8.0, 5.0),
        (2.0, 8.0), (5.0, 8.0), (8.0, 8.0),
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"stride: expected \[1, 10\], got 0"):
        grid_points(10, 4, 0)


def test_the_surest_points_are_chosen_that_lie_apart() -> None:
    points = [(0.0, 0.0), (3.0, 0.0), (6.0, 0.0), (6.0, 8.0), (100.0, 0.0)]
    scores = [5.0, 4.0, 3.0, 4.0, -9.0]
    assert candidate_points(points, scores, apart=6.0) == (
        (0.0, 0.0), (6.0, 8.0), (6.0, 0.0), (100.0, 0.0)
    )  # fmt: skip
    assert candidate_points(points, scores, apart=6.0, count=2) == ((0.0, 0.0), (6.0, 8.0))
    assert len(candidate_points(points, scores, apart=0.0)) == 5


@pytest.mark.parametrize(
    ("candidates", "rank", "distance"),
    [
        ([(0.0, 0.0), (800.0, 900.0)], 2, 100.0),
        ([(700.0, 757.0)], 1, 143.0),
        ([(700.0, 756.9)], None, 143.1),
    ],
)
def test_a_nodule_is_found_within_two_and_a_half_centimetres(
    candidates: Sequence[tuple[float, float]], rank: int | None, distance: float
) -> None:
    score = score_film(candidates, (700.0, 900.0), within=143.0)
    assert (score.rank, score.distance) == (rank, pytest.approx(distance))


class Brightness(nn.Module):
    """Holds for a nodule what is bright in the middle."""

    def forward(self, images: Tensor) -> Tensor:
        middle = images[:, 0, 96:160, 96:160].mean(dim=(1, 2))
        return torch.stack([torch.zeros_like(middle), middle], dim=1)


def model_folder(path: Path, **changes: object) -> Path:
    values = {"architecture": "jsrt-resnet44", "class_count": 2, "mean": (0.5,), "std": (0.25,)}
    spec = NetworkSpec(**values)  # type: ignore[arg-type]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build_network(spec)
    given = {"input_size": (256, 256), "classes": JSRT} | changes
    save_model(
        path, name="films", model_version="1", description="", spec=spec, recipe={},
        state_dict=network.state_dict(), **given,  # type: ignore[arg-type]
    )  # fmt: skip
    return path


def test_films_are_scored_by_what_the_network_sees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = jsrt(tmp_path, nodules=10, normal=2)
    first, second = (one for one in load_films(root, "test") if one.radius is not None)
    for one, (x, y) in ((first, first.centre), (second, (1700.0, 300.0))):
        pixels = np.zeros((2048, 2048))
        pixels[int(y) - 30 : int(y) + 30, int(x) - 30 : int(x) + 30] = 4095
        film(one.path, pixels)
    assert regions(first, [first.centre]).amax() == 1.0
    folder = model_folder(tmp_path / "model")
    card = nodule_session.load_model(folder).card
    stub = LoadedModel(network=Brightness().eval(), card=card)
    monkeypatch.setattr(nodule_session, "load_model", lambda path: stub)
    found = nodule_session.score_folder(folder, root, stride=128)
    assert (found["films"], found["sensitivity"]["value"]) == (2, 0.5)
    assert [entry["rank"] for entry in found["found"]] == [1, None]
    assert found["found"][1]["distance"] > 143
    assert all(len(entry["candidates"]) == 5 for entry in found["found"])
    assert 0.0 < found["sensitivity"]["low"] < found["sensitivity"]["high"] < 1.0


def test_the_command_scores_a_model_and_refuses_one_of_other_images(
    tmp_path: Path, model: Path
) -> None:
    root = jsrt(tmp_path, nodules=2, normal=2)
    words = ["nodules", "--data-dir", str(root), "--stride", "1792", "--json", "--model"]
    done = CliRunner().invoke(build_app(), [*words, str(model_folder(tmp_path / "model"))])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["films"] == 1
    refused = CliRunner().invoke(build_app(), [*words, str(model)])
    assert refused.exit_code == 1
    assert "candor nodules: model: expected one of regions (1, 256, 256) with the" in refused.stderr

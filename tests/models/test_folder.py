"""Model folders: what is written is what is read, and disagreement is refused."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from candor.contracts.card import MetricCard, NetworkCard
from candor.models.folder import (
    CARD_FILE,
    WEIGHTS_FILE,
    ArtifactError,
    load_model,
    record_metrics,
    save_model,
)
from candor.nets.architectures import NetworkSpec, build_network

SPEC = NetworkSpec(
    architecture="cifar-resnet20", class_count=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3)
)


def _save(folder: Path, **changes: object) -> torch.nn.Module:
    network = build_network(SPEC)
    arguments: dict[str, object] = {
        "name": "toy",
        "model_version": "1",
        "description": "for tests",
        "spec": SPEC,
        "state_dict": network.state_dict(),
        "input_size": (32, 32),
        "classes": ("a", "b", "c"),
        "recipe": {"epochs": 0},
    }
    save_model(folder, **(arguments | changes))  # type: ignore[arg-type]
    return network.eval()


def _edit_card(folder: Path, **changes: object) -> None:
    path = folder / CARD_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_loaded_network_computes_what_the_saved_one_did(tmp_path: Path) -> None:
    saved = _save(tmp_path)
    loaded = load_model(tmp_path)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(loaded.network(images), saved(images))
    assert not loaded.network.training
    assert not any(weight.requires_grad for weight in loaded.network.parameters())
    assert loaded.card.classes == ("a", "b", "c")


def test_loading_draws_nothing_from_the_global_generator(tmp_path: Path) -> None:
    _save(tmp_path)
    state = torch.get_rng_state()
    load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), state)


def test_card_older_than_residual_drop_is_read_with_its_default(tmp_path: Path) -> None:
    _save(tmp_path)
    network = json.loads((tmp_path / CARD_FILE).read_text())["network"]
    _edit_card(
        tmp_path,
        network={
            key: value
            for key, value in network.items()
            if key not in ("residual_drop", "last_survival")
        },
    )
    _edit_card(tmp_path, digest=None)  # which they lack, too
    card = load_model(tmp_path).card
    assert isinstance(card.network, NetworkCard)
    assert (card.network.residual_drop, card.network.last_survival) == ("none", 1.0)


def test_residual_drop_travels_on_the_card(tmp_path: Path) -> None:
    """Evaluation scales every residual by its survival: forgetting it changes the answers."""
    spec = dataclasses.replace(SPEC, residual_drop="stochastic-depth", last_survival=0.5)
    network = build_network(spec)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if name.endswith("conv2.weight"):
                weight.normal_(std=0.1)
    _save(tmp_path, spec=spec, state_dict=network.state_dict())
    images = torch.rand(2, 3, 32, 32)
    loaded = load_model(tmp_path)
    assert torch.equal(loaded.network(images), network.eval()(images))
    plain = build_network(SPEC).eval()
    plain.load_state_dict(network.state_dict())
    assert not torch.allclose(loaded.network(images), plain(images))


def test_changed_weights_are_refused(tmp_path: Path) -> None:
    _save(tmp_path)
    path = tmp_path / WEIGHTS_FILE
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="SHA-256"):
        load_model(tmp_path)


def test_card_of_another_architecture_is_refused(tmp_path: Path) -> None:
    _save(tmp_path)
    network = json.loads((tmp_path / CARD_FILE).read_text())["network"]
    _edit_card(tmp_path, network=network | {"architecture": "cifar-resnet44"}, digest=None)
    with pytest.raises(ArtifactError, match="weights do not fit cifar-resnet44"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"classes": ["a", "b"]}, "classes: expected .*got 2"),
        ({"recommended_rho": 2.0}, "recommended_rho"),
        ({"weights_sha256": "abc"}, "weights_sha256"),
        ({"surprise": 1}, "surprise"),
        ({"input": {"channels": 1, "height": 32, "width": 32}}, "input.channels"),
        ({"name": "../evil"}, "name"),
    ],
)
def test_contradicting_card_names_the_field(
    tmp_path: Path, changes: dict[str, object], named: str
) -> None:
    _save(tmp_path)
    _edit_card(tmp_path, **changes)
    with pytest.raises(ArtifactError, match=named):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": ["b", "a", "c"]},
        {"preprocessing": {"interpolation": "bicubic"}},
        {"preprocessing": {"resize": "shorter-edge", "edge": [40]}},
    ],
)
def test_digest_covers_names_and_preprocessing(tmp_path: Path, changes: dict[str, object]) -> None:
    _save(tmp_path)
    before = load_model(tmp_path).card
    _edit_card(tmp_path, **changes)
    after = load_model(tmp_path).card
    assert after.weights_sha256 == before.weights_sha256
    assert after.computed_digest() != before.computed_digest()
    assert (after.identity == before.identity) == (after.preprocessing == before.preprocessing)


def test_shipped_cards_of_before_the_digest_load() -> None:
    store = Path(__file__).resolve().parents[2] / "model_store"
    cards = [load_model(folder).card for folder in sorted(store.iterdir())]
    assert [card.name for card in cards] == [
        "cifar10-plain",
        "cifar10-robust",
        "imagenette-plain",
        "imagenette-robust",
    ]
    assert {card.network.family for card in cards} == {"candor"}
    assert all(card.identity == card.weights_sha256 for card in cards)


@pytest.mark.parametrize("missing", [CARD_FILE, WEIGHTS_FILE])
def test_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    _save(tmp_path)
    (tmp_path / missing).unlink()
    with pytest.raises(ArtifactError, match=missing):
        load_model(tmp_path)


def test_weights_that_do_not_fit_are_never_written(tmp_path: Path) -> None:
    state_dict = build_network(SPEC).state_dict()
    del state_dict["stem.weight"]
    with pytest.raises(ArtifactError, match=r"stem\.weight"):
        _save(tmp_path / "model", state_dict=state_dict)
    assert not (tmp_path / "model").exists()


def _metric(value: float, data: str, image_count: int) -> MetricCard:
    return MetricCard(
        name="accuracy",
        value=value,
        low=0.0,
        high=1.0,
        image_count=image_count,
        data=data,
        method="m",
    )


def test_recorded_metric_replaces_the_one_it_repeats(tmp_path: Path) -> None:
    _save(tmp_path)
    record_metrics(tmp_path, [_metric(0.1, "one", 9), _metric(0.2, "two", 9)])
    card = record_metrics(tmp_path, [_metric(0.3, "one", 9)])
    assert {item.data: item.value for item in card.metrics} == {"one": 0.3, "two": 0.2}
    assert load_model(tmp_path).card == card


def test_metric_on_fewer_images_replaces_none_on_more(tmp_path: Path) -> None:
    _save(tmp_path)
    record_metrics(tmp_path, [_metric(0.1, "one", 9)])
    card = record_metrics(tmp_path, [_metric(0.3, "one", 8), _metric(0.2, "two", 8)])
    assert {item.data: item.value for item in card.metrics} == {"one": 0.1, "two": 0.2}


def test_sizes_are_known_before_anything_is_read(tmp_path: Path) -> None:
    _save(tmp_path)
    for name in (WEIGHTS_FILE, CARD_FILE):
        whole = (tmp_path / name).read_bytes()
        with (tmp_path / name).open("wb") as file:
            file.truncate(2**43)
        with pytest.raises(ArtifactError, match=f"{name}: expected at most .* got {2**43}"):
            load_model(tmp_path)
        (tmp_path / name).write_bytes(whole)


def test_card_that_claims_a_huge_network_costs_no_memory(tmp_path: Path) -> None:
    _save(tmp_path)
    network = json.loads((tmp_path / CARD_FILE).read_text())["network"]
    _edit_card(tmp_path, network=network | {"width_factor": 2000})
    with pytest.raises(ArtifactError):
        load_model(tmp_path)


def test_second_save_keeps_the_other_files_of_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    _save(folder)
    (folder / "README.md").write_text("mine")
    _save(folder, description="again")
    assert load_model(folder).card.description == "again"
    assert (folder / "README.md").read_text() == "mine"
    assert {path.name for path in tmp_path.iterdir()} == {"model"}

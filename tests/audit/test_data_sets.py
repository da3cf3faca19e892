"""An audit with every stage, of photographs as each reader hands them over."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from candor.audit import registry
from candor.audit.facts import collect, write_facts
from candor.audit.ledger import Ledger
from candor.audit.report.assemble import write_report
from candor.audit.run import run_blocks
from candor.audit.stage import Subject
from candor.contracts.card import InputCard
from candor.data.images import Images
from candor.data.registry import load_dataset
from candor.nets.activations import HalfHuberReLU
from tests import official_files
from tests.fixtures.audit import TINY, card, plan_for

BUDGET = TINY.model_copy(
    update={
        "steps": 6,
        "descent_steps": 2,
        "descent_images": 2,
        "autoattack_images": 1,
        "query_images": 1,
        "label_queries": 40,
        "noise_trials": 4,
        "panel_images": 1,
        "smoothing_samples": 20,
        "smoothing_images": 1,
        "clever_images": 1,
        "clever_samples": 16,
        "explanation_images": 1,
        "calibration_images": 1,
    }
)


def _network(data: Images) -> nn.Module:
    """Strides so long that 224 pixels cost little; undecided between the first two images."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 8, stride=8),
            HalfHuberReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            HalfHuberReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, len(data.class_names)),
        )
        head = network[6]
        assert isinstance(head, nn.Linear)
        with torch.no_grad():
            head.bias.sub_(network(data.images(slice(2))).mean(dim=0))
    return network.eval().requires_grad_(False)


def _as_the_network_says(network: nn.Module, data: Images) -> Images:
    """The images with the network's own labels: nothing is wrong as it came."""
    return dataclasses.replace(data, labels=network(data.images(slice(None))).argmax(1))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads that wait for each other take longer than these layers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("name", "size", "pixels"), [("folder", 32, 32), ("coco", 0, 96), ("imagenet", 0, 224)]
)
def test_every_stage_tries_every_image(tmp_path: Path, name: str, size: int, pixels: int) -> None:
    root = getattr(official_files, name)(tmp_path / "data")
    data = load_dataset(name, "test", root, image_size=size)
    network = _network(data)
    data = _as_the_network_says(network, data)
    shape = InputCard(channels=3, height=pixels, width=pixels)
    own = card().model_copy(update={"classes": data.class_names, "input": shape})
    subject = Subject(network=network, card=own)
    stages = tuple(registry.STAGES)
    plan = plan_for(data, stages, image_count=2, batch_size=2, budget=BUDGET)
    folder = tmp_path / "report"
    ledger = Ledger(folder, plan)
    write_facts(folder, collect(network, own, data))
    assert run_blocks(ledger, plan, subject, data) == 0
    report = write_report(folder, Ed25519PrivateKey.generate(), command="candor audit")
    assert report.not_tried == ()
    assert {row.attack for row in report.attacks} == stages_of_attacks()
    found = {row.attack: row.found for row in report.attacks if row.eps_l2 in (None, 1.0)}
    assert found["autoattack"] == 1
    assert found["cw"] > 0
    assert all(not row.warnings for row in report.attacks)
    assert report.explanations is not None
    assert report.explanations.image_count == 1
    standard = "autoattack ran a custom set (apgd-ce, fab, square)"
    assert any(warning.startswith(standard) for warning in report.warnings)


def stages_of_attacks() -> set[str]:
    return set(registry.ATTACK_STAGES)

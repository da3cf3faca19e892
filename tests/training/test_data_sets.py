"""Two steps of training from every data set, read from small files in its official format."""

import dataclasses

import numpy as np
import pytest
import torch

from candor.data import cifar10_archives, folder
from candor.data.lazy import LazyImages
from candor.data.registry import dataset_names, load_dataset
from candor.nets.activations import HalfHuberReLU
from candor.nets.resnet import PreActivationResNet
from tests import official_files
from training.config import TrainConfig
from training.loop import train
from training.origin import Origin


def cifar10_files(root):
    generator = np.random.default_rng(0)
    names = [f"data_batch_{number}.bin" for number in range(1, 6)]
    rows = [generator.integers(0, 256, (2, 3072), np.uint8) for _ in names]
    files = {
        name: official_files.binary_batch(batch, [place, place + 5])
        for place, (name, batch) in enumerate(zip(names, rows, strict=True))
    }
    official_files.archive(root / "cifar-10-binary.tar.gz", files)


WRITERS = {
    "cifar10": cifar10_files,
    "coco": official_files.coco,
    "folder": official_files.folder,
    "folder-on-disk": official_files.folder,
    "imagenet": official_files.imagenet,
    "jsrt": official_files.jsrt,
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """The training images of a data set, from new files."""

    def load(name):
        monkeypatch.setattr(cifar10_archives, "BATCH_COUNT", 2)
        if name == "folder-on-disk":
            monkeypatch.setattr(folder, "_HELD_BYTES", 0)
        root = tmp_path / "data"
        root.mkdir()
        WRITERS[name](root)
        name = name.partition("-")[0]
        return load_dataset(name, "train", root, image_size=12 if name == "folder" else 0)

    return load


def config_of(name):
    return TrainConfig(
        architecture="cifar-resnet20",
        data=name.partition("-")[0],
        epochs=2,
        batch_size=2,
        crop_padding=2 if name in ("cifar10", "folder", "folder-on-disk") else 0,
        psi_min=0.1,
    )


def network_for(data):
    torch.manual_seed(3)
    return PreActivationResNet(
        blocks=(1,),
        widths=(4,),
        channels=data.shape[0],
        class_count=len(data.class_names),
        mean=data.mean,
        std=data.std,
        activation=HalfHuberReLU,
    )


def test_every_data_set_is_tried():
    assert {name.partition("-")[0] for name in WRITERS} == set(dataset_names())


@pytest.mark.parametrize("name", WRITERS)
def test_two_steps_are_taken_and_a_resumed_run_takes_the_same(name, load, tmp_path):
    data = load(name)
    assert isinstance(data, LazyImages) == (name not in ("cifar10", "folder"))
    runs = []
    for place, stops in enumerate([(2,), (1, 2)]):
        folder = tmp_path / str(place)
        folder.mkdir()
        for stop in stops:
            network = network_for(data)
            before = network.stem.weight.detach().clone()
            state = train(network, data, config_of(name), run_dir=folder, stop_after=stop)
        assert state.step == 2
        assert all(weight.isfinite().all() for weight in network.parameters())
        assert not torch.equal(network.stem.weight, before)
        runs.append(network)
    for key, tensor in runs[0].state_dict().items():
        assert torch.equal(runs[1].state_dict()[key], tensor), key


@pytest.mark.parametrize("name", ["coco", "imagenet", "jsrt"])
def test_drawn_crops_refuse_the_padding_of_another_data_set(name, load, tmp_path):
    data = load(name)
    config = dataclasses.replace(config_of(name), crop_padding=4)
    with pytest.raises(ValueError, match="^crop_padding: expected 0 .*, got 4"):
        train(network_for(data), data, config, run_dir=tmp_path)


def test_damaged_image_ends_a_run_with_its_checkpoint(tmp_path):
    root = official_files.imagenet(tmp_path / "data")
    data = load_dataset("imagenet", "train", root)
    config = config_of("imagenet")
    origin = Origin.of(data, "")
    train(network_for(data), data, config, run_dir=tmp_path, origin=origin, stop_after=1)
    bad = root / "imagenet" / "train" / data.identifiers[0]
    content = bad.read_bytes()
    bad.write_bytes(content[:100])
    with pytest.raises(ValueError, match=f"^imagenet: .*{bad.name}: expected JPEG"):
        train(network_for(data), data, config, run_dir=tmp_path, origin=origin)
    bad.write_bytes(content)
    resumed, whole = network_for(data), network_for(data)
    train(resumed, data, config, run_dir=tmp_path, stop_after=2)
    (tmp_path / "whole").mkdir()
    train(whole, data, config, run_dir=tmp_path / "whole", stop_after=2)
    assert torch.equal(resumed.head.weight, whole.head.weight)

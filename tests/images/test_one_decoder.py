"""One file gives one image, bit for bit, wherever it enters."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from candor.cli.main import build_app
from candor.contracts.api import ImageInput, InputSpec
from candor.contracts.card import InputCard, Preprocessing
from candor.data.folder import load_labelled
from candor.data.registry import load_dataset, load_for_model
from candor.images.decode import decode
from candor.images.pixels import to_levels
from candor.images.view import InputView
from candor.rpc.pb.candor.v1 import candor_pb2
from tests.fixtures.audit import card
from tests.gateway.linear_worker import SHAPE
from tests.gateway.servers import Servers
from tests.images.every_file import every_file

FILES = every_file()
# Pillow draws these as they are meant, so it is the oracle of the kinds that it reads rightly.
PLAIN = ("rgb.png", "interlaced.png", "grey.jpg", "progressive.jpg", "lossless.webp", "mode_L.png")


def levels(content: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """(C, H, W) uint8, as `candor.images` computes it."""
    spec = InputSpec(channels=shape[0], height=shape[1], width=shape[2], lower=0.0, upper=1.0)
    return to_levels(decode(ImageInput(encoded=content), spec))


def shown(png: bytes) -> np.ndarray:
    """(C, H, W) uint8 of a PNG that the service made."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


@pytest.mark.parametrize("name", FILES)
def test_every_protocol_sees_the_image_of_the_reader(servers: Servers, name: str) -> None:
    content = FILES[name]
    expected = levels(content, SHAPE)
    fields: dict[str, Any] = {"targets": [{"index": 1}], "rhos": [0.05], "steps": 1}
    encoded = base64.b64encode(content).decode()
    as_json = servers.rest.post("/v1/explain", json={"image": {"encoded": encoded}, **fields})
    # As the console sends it.
    form = {"image": ("photo", content), "request": (None, json.dumps(fields))}
    as_form = servers.rest.post("/v1/explain", files=form)
    body = {"instances": [{"b64": encoded, **fields}]}
    kserve = servers.rest.post("/v1/models/linear:explain", json=body).json()["explanations"][0]
    for answer in (as_json.json(), as_form.json(), kserve):
        np.testing.assert_array_equal(shown(base64.b64decode(answer["input_png"])), expected)
    request = candor_pb2.ExplainRequest(image=candor_pb2.Image(encoded=content), steps=1)
    request.targets.add(index=1)
    np.testing.assert_array_equal(shown(servers.stub.Explain(request).input_png), expected)


@pytest.mark.parametrize("size", [24, 33, 80])
def test_training_and_audits_see_the_image_of_the_service(tmp_path: Path, size: int) -> None:
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        for name, content in FILES.items():
            (tmp_path / place / name).write_bytes(content)
    for split in ("train", "test"):
        data = load_dataset("folder", split, tmp_path, image_size=size)  # as `ara` and `audit` do
        images = data.images(slice(None)).numpy()
        batches = [batch.stored for batch in data.training_batches(_one_by_one(len(data)))]
        assert len(images) == len(batches) == 2 * len(FILES)
        for identifier, image, stored in zip(data.identifiers, images, batches, strict=True):
            expected = levels(FILES[identifier.split("/")[1]], (3, size, size))
            np.testing.assert_array_equal(to_levels(image), expected, err_msg=identifier)
            np.testing.assert_array_equal(stored[0].numpy(), expected, err_msg=identifier)


RULES = {
    "default": Preprocessing(),
    "timm": Preprocessing(resize="shorter-edge", edge=(40,), interpolation="bicubic"),
    "transformers": Preprocessing(
        resize="exact", edge=(30, 44), interpolation="bilinear", offset="floor"
    ),
    "crop": Preprocessing(resize="crop-first", crop=0.875, interpolation="bicubic"),
    "points": Preprocessing(interpolation="nearest", antialias=False, crop=0.5),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("rule", RULES)
def test_data_of_a_model_are_what_the_service_makes_of_the_files(
    tmp_path: Path, rule: str, channels: int
) -> None:
    """Not square, grey or colour, by every rule: ara, audit, candidates, training and import."""
    shape = (channels, 28, 36)
    update = {
        "input": InputCard(channels=channels, height=28, width=36),
        "preprocessing": RULES[rule],
        "classes": ("a", "b"),
    }
    model = card().model_copy(update=update)
    for place in ("train/b", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        for name, content in FILES.items():
            (tmp_path / place / name).write_bytes(content)
    sets = [load_for_model("folder", split, tmp_path, model) for split in ("train", "test")]
    sets.append(load_labelled(tmp_path, None, InputView.of(model), model.classes))
    spec = InputSpec(channels=channels, height=28, width=36, lower=0.0, upper=1.0)
    for data in sets:
        assert data.shape == shape
        assert data.labels.unique().tolist() == [1]
        for identifier, image in zip(data.identifiers, data.images(slice(None)), strict=True):
            content = ImageInput(encoded=FILES[identifier.split("/")[1]])
            expected = decode(content, spec, RULES[rule])
            np.testing.assert_array_equal(image.numpy(), expected, err_msg=identifier)


def _one_by_one(count: int) -> Any:
    return ((torch.tensor([index]), 0) for index in range(count))


@pytest.mark.parametrize("name", ["rgba.png", "grey_16_bits.png", "turned_6.jpg", "cmyk.jpg"])
def test_the_command_line_sees_the_image_of_the_service(
    model: Path, tmp_path: Path, name: str
) -> None:
    path = tmp_path / name
    path.write_bytes(FILES[name])
    options = ("--model", model, "--target", "dog", "--rho", 0.05, "--steps", 1, "--out", tmp_path)
    result = CliRunner().invoke(build_app(), [str(one) for one in ("explain", path, *options)])
    assert result.exit_code == 0, result.output
    expected = levels(FILES[name], (3, 32, 32))
    np.testing.assert_array_equal(shown((tmp_path / "input.png").read_bytes()), expected)


@pytest.mark.parametrize("name", PLAIN)
def test_plain_files_have_the_pixels_that_are_stored(name: str) -> None:
    with Image.open(io.BytesIO(FILES[name])) as stored:
        expected = np.asarray(stored.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(levels(FILES[name], (3, *expected.shape[1:])), expected)


@pytest.mark.parametrize(
    "names",
    [
        ("rgb.png", "interlaced.png", "gamma.png", "srgb.png", "profile.png", "video.png"),
        ("rgb.png", "animated.png", "turned_1.png"),
        ("subsampled_2.jpg", "profile.jpg", "two_photographs.jpg", "turned_1.jpg"),
        ("lossy.webp", "profile.webp", "turned_1.webp"),
    ],
)
def test_profiles_and_further_images_of_a_file_decide_nothing(names: tuple[str, ...]) -> None:
    images = [levels(FILES[name], (3, 48, 80)) for name in names]
    for name, image in zip(names, images, strict=True):
        np.testing.assert_array_equal(image, images[0], err_msg=name)


@pytest.mark.parametrize("name", ["rgb_16_bits.png", "grey_16_bits.png"])
def test_sixteen_bits_are_scaled(name: str) -> None:
    values = (np.arange(48 * 80, dtype=np.uint16) * 17).reshape(48, 80)
    image = levels(FILES[name], (3, 48, 80)).astype(int)
    assert np.abs(image - np.rint(values / 257.0)).max() <= 1

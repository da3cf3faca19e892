"""Networks of another library behind TorchServe: 224 x 224, 1,000 classes, nobody's data."""

import base64
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from playwright.sync_api import expect

from candor.audit.importing import import_model
from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.card import Preprocessing
from candor.images.geometry import Size, prepare
from candor.images.pixels import levels_of, to_pixels
from candor.models.folder import ArtifactError, load_model, read_card
from candor.nets.imported import library
from candor.stack.config import StackConfig
from candor.stack.errors import ArchiveError
from candor.stack.supervisor import Stack
from tests.fixtures.brought import request_for
from tests.gateway.browser import chromium

EDGE = 224
# By version: name and arguments.  The first ends in tokens and has no Grad-CAM.
NETWORKS: dict[str, tuple[str, dict[str, int]]] = {
    "1": ("vit_tiny_patch16_224", {"depth": 2, "embed_dim": 64, "num_heads": 2}),
    "2": ("mobilenetv3_small_050", {}),
}
NAMES = tuple("crane" if index in (134, 517) else f"thing {index:03}" for index in range(1000))
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.2)
RULE = Preprocessing(
    resize="shorter-edge",
    edge=(256,),
    interpolation="bicubic",
    normalization="candor",
    mean=MEAN,
    std=STD,
)
TARGETS = (api.ClassRef(name="thing 723"), api.ClassRef(index=517))
_PATIENCE_MILLISECONDS = 90_000  # the machine may be busy


@pytest.fixture(scope="module")
def models_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("timm") is None:
        pytest.skip("no package timm")
    store = tmp_path_factory.mktemp("imported")
    for version, (name, arguments) in NETWORKS.items():
        source = tmp_path_factory.mktemp(f"source-{version}")
        write_timm_folder(source, name, arguments)
        request = request_for(source, preprocessing=None, input_size=None, model_version=version)
        import_model(request, store / "brought" / version)
    return store


def write_timm_folder(folder: Path, name: str, arguments: dict[str, int]) -> None:
    """Random weights, in the layout that timm saves."""
    torch.manual_seed(0)
    network = library("timm").create_model(name, num_classes=len(NAMES), **arguments)
    torch.nn.init.normal_(network.get_classifier().weight, std=0.5)
    safetensors.torch.save_file(network.state_dict(), folder / "model.safetensors")
    cfg = {"input_size": [3, EDGE, EDGE], "mean": MEAN, "std": STD, "interpolation": "bicubic"}
    cfg |= {"crop_pct": 0.875, "label_names": NAMES}
    config = {"architecture": name, "num_classes": len(NAMES), "model_args": arguments}
    (folder / "config.json").write_text(json.dumps(config | {"pretrained_cfg": cfg}))


@pytest.fixture(scope="module")
def imported(models_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    config = StackConfig(
        models_dir=models_dir,
        archives_dir=tmp_path_factory.mktemp("archives") / "built",
        ready_timeout_seconds=300.0,
    )
    with ExitStack() as opened:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("CANDOR_ROUTES", json.dumps({"brought": {"primary": "1"}}))
            running = opened.enter_context(Stack(config))
        yield running


@pytest.fixture(scope="module")
def grpc_client(imported: Stack) -> Iterator[CandorClient]:
    with CandorClient(imported.grpc_address, timeout_seconds=300) as connected:
        yield connected


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    coarse = np.random.default_rng(2).integers(0, 256, (20, 26, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((390, 300), Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def image(photo: Image.Image) -> api.ImageInput:
    buffer = io.BytesIO()
    photo.save(buffer, format="PNG")
    return api.ImageInput(encoded=buffer.getvalue())


def posted(stack: Stack, path: str, request: Any) -> dict[str, Any]:
    body = (
        request if isinstance(request, dict) else request.model_dump(mode="json", exclude_none=True)
    )
    response = httpx.post(f"{stack.rest_url}{path}", json=body, timeout=300)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def test_the_service_predicts_what_the_network_does_on_the_prepared_image(
    imported: Stack,
    grpc_client: CandorClient,
    models_dir: Path,
    photo: Image.Image,
    image: api.ImageInput,
) -> None:
    answer = grpc_client.predict(api.PredictRequest(image=image, top_k=1000))
    pixels = to_pixels(levels_of(prepare(photo, RULE, Size(EDGE, EDGE))))
    loaded = load_model(models_dir / "brought" / "1")
    expected = loaded.network(torch.from_numpy(pixels)[None]).softmax(1)[0]
    for one in answer.predictions:
        assert one.confidence == pytest.approx(float(expected[one.index]), abs=1e-5)
    again = posted(imported, "/v1/predict", api.PredictRequest(image=image))
    assert again["predictions"][0]["index"] == answer.predictions[0].index
    assert answer.model.weights_digest == loaded.card.digest


def test_every_answer_says_that_nobody_has_measured_the_model(
    imported: Stack, grpc_client: CandorClient, image: api.ImageInput
) -> None:
    search = {"image": image, "solver": "fast", "steps": 2}
    answers = [
        grpc_client.get_model("brought"),
        *grpc_client.list_models().models,
        grpc_client.predict(api.PredictRequest(image=image)),
        grpc_client.explain(api.ExplainRequest(targets=TARGETS, **search)),
        grpc_client.probe(api.ProbeRequest(**search)),
        *(one.result for one in grpc_client.explain_stream(
            api.ExplainRequest(targets=TARGETS, **search)) if one.result),
    ]  # fmt: skip
    assert all(one.model.is_accepted_without_data for one in answers)
    for verb, request in (
        ("predict", api.PredictRequest(image=image)),
        ("explain", api.ExplainRequest(targets=TARGETS, **search)),
        ("probe", api.ProbeRequest(**search)),
    ):
        assert posted(imported, f"/v1/{verb}", request)["model"]["is_accepted_without_data"] is True
    assert httpx.get(f"{imported.rest_url}/v1/models/brought").json()["model"][
        "is_accepted_without_data"
    ]
    encoded = base64.b64encode(image.encoded or b"").decode()
    served = posted(imported, "/v1/models/brought:predict", {"instances": [{"b64": encoded}]})
    assert served["is_accepted_without_data"] is True
    tensor = {"name": "image", "datatype": "FP32", "shape": [1, 3, EDGE, EDGE]}
    inputs = [tensor | {"data": [0.5] * (3 * EDGE * EDGE)}]
    inferred = posted(imported, "/v2/models/brought/infer", {"inputs": inputs})
    assert inferred["parameters"] == {"is_accepted_without_data": True}


def test_explanations_and_radii_are_the_same_through_both_transports(
    imported: Stack, grpc_client: CandorClient, image: api.ImageInput
) -> None:
    request = api.ExplainRequest(image=image, targets=TARGETS, rhos=(0.01, 0.05), solver="fast")
    answer = grpc_client.explain(request)
    again = api.ExplainResponse.model_validate(posted(imported, "/v1/explain", request))
    for one, other in zip(answer.explanations, again.explanations, strict=True):
        assert one.rmse <= one.rho
        assert one.confidence_after > one.confidence_before
        assert Image.open(io.BytesIO(one.image_png)).size == (EDGE, EDGE)
        assert other.from_cache
        assert other.image_png == one.image_png
    probe = api.ProbeRequest(image=image, solver="fast", steps=20)
    first = grpc_client.probe(probe).results
    second = api.ProbeResponse.model_validate(posted(imported, "/v1/probe", probe)).results
    assert [one.radius for one in first] == [one.radius for one in second]
    assert first[0].radius is not None


def test_previews_stay_small(grpc_client: CandorClient, image: api.ImageInput) -> None:
    request = api.ExplainRequest(
        image=image, targets=TARGETS[:1], steps=30, solver="paper", no_cache=True
    )
    previews = [
        one.progress.preview_png
        for one in grpc_client.explain_stream(request)
        if one.progress and one.progress.preview_png
    ]
    assert previews
    assert max(max(Image.open(io.BytesIO(one)).size) for one in previews) <= 96


def compare_request(image: api.ImageInput, version: str) -> api.CompareRequest:
    return api.CompareRequest(
        model=f"brought@{version}", image=image, target=TARGETS[0], solver="fast"
    )


def test_compare_names_the_methods_that_a_network_lacks(
    grpc_client: CandorClient, image: api.ImageInput
) -> None:
    answer = grpc_client.compare(compare_request(image, "1"))
    assert answer.model.is_accepted_without_data
    (missing,) = answer.missing
    assert missing.method is api.Method.GRAD_CAM
    assert "tokens after the last one" in missing.reason
    present = [one.method for one in answer.methods]
    assert present == [one for one in api.Method if one is not api.Method.GRAD_CAM]


def test_convolutions_have_every_method(imported: Stack, image: api.ImageInput) -> None:
    body = posted(imported, "/v1/compare", compare_request(image, "2"))
    answer = api.CompareResponse.model_validate(body)
    assert [one.method for one in answer.methods] == list(api.Method)
    assert body["missing"] == []
    assert all(one.saliency.height == EDGE for one in answer.methods)


def test_console_finds_one_of_a_thousand_classes_by_its_name(
    imported: Stack, photo: Image.Image, tmp_path: Path
) -> None:
    file = tmp_path / "photo.png"
    photo.save(file)
    with chromium() as browser, browser.new_page() as page:
        page.set_default_timeout(_PATIENCE_MILLISECONDS)
        expect.set_options(timeout=_PATIENCE_MILLISECONDS)
        page.goto(imported.rest_url)
        page.get_by_text("Sweep of rho").click()  # closed: eight searches for every answer
        expect(page.locator("#classes button")).to_have_count(10)
        page.set_input_files("#file", file)
        expect(page.locator("#unmeasured")).to_be_visible()
        expect(page.locator("#names option")).to_have_count(1000)
        page.get_by_label("Another class").fill("thing 1723")
        page.get_by_label("Another class").press("Tab")
        expect(page.locator("#unknown")).to_have_text("No class is called thing 1723.")
        for text, title in (
            ("thing 723", "thing 723"),
            ("crane #517", "crane"),
            ("#9", "thing 009"),
        ):
            page.get_by_label("Another class").fill(text)
            page.get_by_label("Another class").press("Enter")
            expect(page.locator("#result-title")).to_have_text(f"What makes it more {title}")
            expect(page.locator("#status")).to_have_text("Done.")
        expect(page.locator("#numbers")).to_contain_text("accepted without data")
        page.get_by_text("Compare with other methods").click()
        expect(page.locator("#missing li")).to_contain_text("Grad-CAM: network: expected a layer")
        expect(page.locator("#compare tbody tr")).to_have_count(len(api.Method) - 1)
        expect.set_options(timeout=5_000)


@pytest.mark.parametrize("lost", ["acceptance", "digest"])
def test_nothing_is_served_without_its_acceptance(
    models_dir: Path, tmp_path: Path, lost: str
) -> None:
    folder = tmp_path / "models" / "brought"
    folder.mkdir(parents=True)
    for file in (models_dir / "brought" / "2").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    card = json.loads((folder / "card.json").read_text())
    (folder / "card.json").write_text(json.dumps(card | {lost: None}))
    expected = "acceptance, digest: expected both for an imported model; candor import writes them"
    with pytest.raises(ArtifactError, match=expected):
        read_card(folder)
    config = StackConfig(models_dir=tmp_path / "models", archives_dir=tmp_path / "archives")
    with (
        pytest.raises(ArchiveError, match=f"brought: cannot be loaded: .*{expected}"),
        Stack(config),
    ):
        pass

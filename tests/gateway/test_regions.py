"""Region, norm and contrast over every transport of a gateway, over a linear worker."""

import asyncio
import base64
import io
import json
import logging
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from candor.cli.main import build_app
from candor.client.aio import AsyncCandorClient
from candor.contracts import api
from candor.contracts.errors import ServiceError
from candor.contracts.worker import SearchItem
from candor.rpc import convert
from candor.rpc.pb.candor.v1 import candor_pb2 as pb
from candor.terms import Norm
from tests.gateway.linear_worker import SHAPE, size_in
from tests.gateway.servers import Servers, until
from tests.gateway.test_transports import pixels_of, rejected, rejected_fields
from tests.gateway.test_versions import IMAGES, counted, twin  # noqa: F401, a fixture
from tests.gateway.test_versions import image as tensor_image

WIDTH, HEIGHT = 24, 32  # as shown; four pixels make one of the model's
BOX = {"x": 8, "y": 4, "width": 12, "height": 16}
INSIDE = np.s_[1:5, 2:5]  # the same at the model's size, rows and columns
ASKED = {
    "targets": [{"name": "dog"}, {"index": 2}],
    "rhos": [0.03],
    "norm": "l1.5",
    "away_from": {"name": "ship"},
    "steps": 12,
}


def saved(image: Image.Image, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", **options)
    return buffer.getvalue()


def base64_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def _photo() -> bytes:
    """Stored lying on its side, as telephones do."""
    values = np.random.default_rng(2).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    return saved(Image.fromarray(values).transpose(Image.Transpose.ROTATE_90), exif=exif)


def _mask() -> bytes:
    values = np.zeros((HEIGHT, WIDTH), np.uint8)
    values[4:20, 8:20] = 255
    return saved(Image.fromarray(values))


PHOTO, MASK = _photo(), _mask()
AS_JSON = {"image": {"encoded": base64_of(PHOTO)}}


def explained(servers: Servers, **fields: Any) -> api.ExplainResponse:
    values = {**ASKED, "image": {"encoded": PHOTO}, **fields}
    return servers.client.explain(api.ExplainRequest.model_validate(values), request_id="same")


def change_of(response: api.ExplainResponse, place: int = 0) -> np.ndarray:
    """(C, H, W), of the exact result."""
    tensor = response.explanations[place].image_tensor
    assert tensor is not None
    exact = np.frombuffer(tensor.data, "<f4").reshape(SHAPE)
    return exact.astype(np.float64) - pixels_of(response.input_png)


# --- what is right -----------------------------------------------------------------------------


def test_every_transport_gives_the_same_answer(servers: Servers) -> None:
    answer = explained(servers, region={"mask": MASK, "outside": True})
    expected = json.loads(answer.model_dump_json())
    headers = {"x-request-id": "same"}
    region = {"mask": base64_of(MASK), "outside": True}
    body = {**ASKED, **AS_JSON, "region": region}
    by_json = servers.rest.post("/v1/explain", json=body, headers=headers).json()
    parts = {
        "image": ("a.png", PHOTO, "image/png"),
        "mask": ("m.png", MASK, "image/png"),
        "request": (None, json.dumps({**ASKED, "region": {"outside": True}})),
    }
    by_parts = servers.rest.post("/v1/explain", files=parts, headers=headers).json()
    events = servers.rest.post("/v1/explain/stream", json=body, headers=headers).text
    streamed = json.loads(events.split("event: result")[1].split("data: ")[1].split("\n")[0])
    instance = {**ASKED, "b64": AS_JSON["image"]["encoded"]}
    instance["region"] = {"mask": {"b64": base64_of(MASK)}, "outside": True}
    (by_kserve,) = servers.rest.post(
        "/v1/models/linear:explain", json={"instances": [instance]}, headers=headers
    ).json()["explanations"]
    for found in (by_json, by_parts, streamed, by_kserve):
        assert {**found, "explanations": _fresh(found)} == {
            **expected,
            "explanations": _fresh(expected),
        }


def test_command_line_gives_the_same_answer(servers: Servers, tmp_path: Path) -> None:
    photo, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    photo.write_bytes(PHOTO)
    mask.write_bytes(MASK)
    asked = "--target dog --target-index 2 --rho 0.03 --norm l1.5 --away-from ship --steps 12"
    for region, options in (
        ({"mask": MASK, "outside": True}, ["--mask", mask, "--outside"]),
        ({"box": BOX}, ["--box", "8, 4, 12, 16"]),
    ):
        found = command(servers, "explain", photo, *asked.split(), *options)
        expected = json.loads(explained(servers, region=region).model_dump_json())
        assert _fresh(found) == _fresh(expected)
    (attack, _) = command(servers, "probe", photo, "--box", "8,4,12,16")["results"]
    assert attack["rmse_inside"] == pytest.approx(2 * attack["radius"], rel=1e-5)


def command(servers: Servers, *arguments: object) -> Any:
    given = [str(one) for one in arguments]
    result = CliRunner().invoke(
        build_app(), [*given, "--address", servers.client_address, "--json"]
    )
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_open_inference_explains_images_as_tensors(servers: Servers) -> None:
    """One image with the mask as parameter, two with a mask each as input, and a box."""
    asked = {"target": "dog", "rho": 0.03, "norm": "l1.5", "away_from": "#3", "steps": 12}
    names = ("explanations", "rmse_inside", "flips", "labels", "radius_notes")
    wanted = [{"name": one} for one in names]
    path = "/v2/models/linear/versions/1.2/explain"
    image, mask = AS_JSON["image"]["encoded"], base64_of(MASK)
    two = [bytes_tensor("image", image, image), bytes_tensor("mask", mask, mask)]
    for inputs, region in (
        ([bytes_tensor("image", image)], {"mask": mask, "outside": True}),
        (two, {}),
        ([bytes_tensor("image", image)], {"box": "8,4,12,16"}),
    ):
        body = {"inputs": inputs, "outputs": wanted, "parameters": {**asked, **region}}
        response = servers.rest.post(path, json=body)
        assert response.status_code == 200, response.text
        found = {one["name"]: one for one in response.json()["outputs"]}
        given = {"mask": MASK, "outside": "outside" in region}
        expected = explained(servers, region=given, targets=[{"name": "dog"}]).explanations[0]
        count = inputs[0]["shape"][0]
        flips = {"name": "flips", "datatype": "BOOL", "shape": [count]}
        assert found["flips"] == {**flips, "data": [expected.flips] * count}
        assert found["labels"]["data"] == [expected.predicted_after.name] * count
        assert found["rmse_inside"]["data"] == pytest.approx([expected.rmse_inside] * count)
        assert found["radius_notes"]["data"] == [expected.radius_note] * count
        pngs = [base64.b64decode(one) for one in found["explanations"]["data"]]
        assert pngs == [expected.image_png] * count


def bytes_tensor(name: str, *data: str) -> dict[str, Any]:
    return {"name": name, "datatype": "BYTES", "shape": [len(data)], "data": list(data)}


def test_open_inference_names_what_is_wrong(servers: Servers) -> None:
    image, mask = AS_JSON["image"]["encoded"], base64_of(MASK)
    one, masks = bytes_tensor("image", image), bytes_tensor("mask", mask)
    dog = {"target": "dog"}
    cases: list[tuple[list[dict[str, Any]], dict[str, Any], str]] = [
        ([one], {}, "parameters.target: required"),
        ([one], {**dog, "box": "1,2"}, "parameters.box: expected four whole numbers"),
        ([one], {**dog, "rho": 2}, "parameters.rho: expected a size in (0, 1], got 2"),
        ([one], {**dog, "norm": "l3"}, "parameters.norm: expected l1, l1.5, l2, linf"),
        ([one], {**dog, "mask": "?"}, "parameters.mask: expected base64"),
        ([one], {**dog, "top_k": 3}, "parameters.top_k: no such field"),
        ([one], {**dog, "outside": True}, "inputs.0.0.region: expected one of mask, box"),
        ([one, masks], {**dog, "box": "1,2,3,4"}, "inputs.1: expected none beside the"),
        ([bytes_tensor("mask", image), one], dog, "inputs.1.0.region.mask: expected a PNG in grey"),
        ([one, one], dog, "inputs: expected image and perhaps mask, got 'image',"),
        ([masks], dog, "inputs: expected image and perhaps mask, got 'mask'"),
        (
            [bytes_tensor("image", image, image), masks],
            dog,
            "inputs.1: expected BYTES of shape [2], a PNG for each image, got BYTES [1]",
        ),
    ]
    for inputs, parameters, line in cases:
        body = {"inputs": inputs, "parameters": parameters}
        response = servers.rest.post("/v2/models/linear/explain", json=body)
        assert response.status_code == 400
        assert line in response.json()["error"]


def _fresh(response: dict[str, Any]) -> list[dict[str, Any]]:
    return [{**one, "from_cache": False} for one in response["explanations"]]


def test_the_other_client_and_its_stream_give_the_same_answer(servers: Servers) -> None:
    request = api.ExplainRequest.model_validate(
        {**ASKED, "image": {"encoded": PHOTO}, "region": {"box": BOX}}
    )

    async def ask() -> list[api.ExplainResponse | None]:
        async with AsyncCandorClient(servers.client_address, timeout_seconds=20) as client:
            async with aclosing(client.explain_stream(request, request_id="same")) as events:
                streamed = [event async for event in events][-1].result
            return [streamed, await client.explain(request, request_id="same")]

    streamed, answered = asyncio.run(ask())
    assert streamed is not None
    assert answered == servers.client.explain(request, request_id="same")
    assert _fresh(streamed.model_dump(mode="json")) == _fresh(answered.model_dump(mode="json"))


@pytest.mark.parametrize("outside", [False, True])
def test_nothing_changes_where_it_may_not(servers: Servers, outside: bool) -> None:
    answer = explained(servers, region={"box": BOX, "outside": outside}, include_tensor=True)
    may_change = np.full(SHAPE[1:], outside)
    may_change[INSIDE] = not outside
    for place, item in enumerate(answer.explanations):
        change = change_of(answer, place)
        assert not change[:, ~may_change].any()
        assert change[:, may_change].any()
        shown = pixels_of(item.image_png) - pixels_of(answer.input_png)
        assert not shown[:, ~may_change].any()
        assert item.rmse_inside == pytest.approx(size_in(Norm.L2, change[:, may_change]), rel=1e-6)


@pytest.mark.parametrize("norm", Norm)
def test_answer_tells_its_size_in_every_norm(servers: Servers, norm: Norm) -> None:
    answer = explained(servers, norm=norm, include_tensor=True)
    item, change = answer.explanations[0], change_of(answer)
    sizes = {Norm.L1: item.rho_1, Norm.L1_5: item.rho_1_5, Norm.L2: item.rmse}
    for other, size in {**sizes, Norm.LINF: item.rho_inf}.items():
        assert size == pytest.approx(size_in(other, change), rel=1e-6)
    assert item.norm is norm
    assert {**sizes, Norm.LINF: item.rho_inf}[norm] <= 0.03
    assert item.sparsity == pytest.approx((np.abs(change).max(axis=0) > 1 / 255).mean())
    assert item.rmse_inside is None
    assert item.away_from is not None
    assert item.away_from.name == "ship"


def test_flips_says_whether_the_decision_changed_as_requested(servers: Servers) -> None:
    top = servers.client.predict(
        api.PredictRequest(image=api.ImageInput(encoded=PHOTO))
    ).predictions
    now, never = {"index": top[0].index}, {"index": top[-1].index}
    cases: list[tuple[dict[str, Any], bool]] = [
        ({"targets": [now], "direction": "for"}, False),  # it was that before
        ({"targets": [never], "direction": "for", "rhos": [0.5], "steps": 60}, True),
        ({"targets": [now], "direction": "against", "rhos": [0.5], "steps": 60}, True),
        ({"targets": [never], "direction": "against"}, False),
    ]
    for fields, flips in cases:
        (item,) = explained(servers, norm="l2", away_from=None, **fields).explanations
        assert item.flips is flips, fields


def test_contrast_may_go_either_way(servers: Servers) -> None:
    def odds(item: api.Explanation) -> float:
        assert item.away_from is not None
        return item.target.confidence / item.away_from.confidence

    (more,) = explained(servers, targets=[{"name": "dog"}]).explanations
    (less,) = explained(servers, targets=[{"name": "dog"}], direction="against").explanations
    assert odds(less) < odds(more)


def test_probe_stays_in_its_region(servers: Servers) -> None:
    fields = {"region": {"box": BOX}, "steps": 300}
    request = api.ProbeRequest.model_validate({**fields, "image": {"encoded": PHOTO}})
    by_grpc = servers.client.probe(request, request_id="same")
    headers = {"x-request-id": "same"}
    by_rest = servers.rest.post("/v1/probe", json={**fields, **AS_JSON}, headers=headers).json()
    for result in by_rest["results"]:
        result["from_cache"] = False
    assert by_rest == json.loads(by_grpc.model_dump_json())
    original = pixels_of(explained(servers).input_png)
    for result in by_grpc.results:
        assert result.radius is not None
        assert result.rmse_inside is not None
        # A quarter of the pixels has the whole change, so inside it is twice the RMSE.
        assert result.rmse_inside == pytest.approx(2 * result.radius, rel=1e-5)
        change = pixels_of(result.image_png) - original
        change[:, INSIDE[0], INSIDE[1]] = 0.0
        assert not change.any()


def test_worker_gets_norm_and_contrast_and_the_cache_tells_them_apart(servers: Servers) -> None:
    seed = {"seed": 17, "targets": [{"name": "dog"}]}
    variants: list[dict[str, Any]] = [
        {},
        {"norm": "l2"},
        {"away_from": None},
        {"away_from": {"name": "frog"}},
        {"region": {"box": BOX}},
        {"region": {"box": BOX, "outside": True}},
        {"region": {"mask": MASK, "outside": True}},  # the same pixels as before
    ]
    cached = [explained(servers, **seed, **one).explanations[0].from_cache for one in variants]
    assert cached == [False] * 6 + [True]
    sent = [
        (item.norm, item.away_from)
        for call in servers.backend.search_calls
        for item in call
        if isinstance(item, SearchItem) and item.seed == 17 and item.step == 0
    ]
    assert sent[:4] == [(Norm.L1_5, 3), (Norm.L2, 3), (Norm.L1_5, None), (Norm.L1_5, 2)]


def test_shadow_searches_in_the_same_region(
    twin: Servers,  # noqa: F811
    caplog: pytest.LogCaptureFixture,
) -> None:
    before = counted(twin, "explain", "agree", "linear@1.3")
    with caplog.at_level(logging.INFO, logger="gateway.shadow"):
        values = {**ASKED, "image": tensor_image(len(IMAGES) - 1)}
        region = {"box": {"x": 0, "y": 0, "width": 2, "height": 3}}
        twin.client.explain(api.ExplainRequest.model_validate({**values, "region": region}))
        until(lambda: counted(twin, "explain", "agree", "linear@1.3") == before + 1)
    differences = next(one.fields for one in caplog.records if one.fields["verb"] == "explain")
    for one in differences["differences"]:
        assert one == {"gain": 0.0, "rmse": 0.0, "cosine": pytest.approx(1.0, abs=1e-5)}


# --- what is wrong -----------------------------------------------------------------------------

_BLACK = base64_of(saved(Image.new("L", (WIDTH, HEIGHT))))
_LYING = base64_of(saved(Image.new("L", (HEIGHT, WIDTH), 255)))
_DOG = [{"name": "dog"}]
# Verb, fields, the field that is wrong, and how its description begins.
BAD: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "empty mask": (
        "explain",
        {"targets": _DOG, "region": {"mask": _BLACK}},
        "region.mask",
        "expected pixels that may change (white or opaque), got none",
    ),
    "mask of the pixels as stored": (
        "probe",
        {"region": {"mask": _LYING}},
        "region.mask",
        "expected 24x32 pixels (width x height) as the image is shown, got 32x24",
    ),
    "no PNG": (
        "probe",
        {"region": {"mask": base64_of(b"GIF89a")}},
        "region.mask",
        "expected PNG, got ",
    ),
    "box beyond the image": (
        "explain",
        {"targets": _DOG, "region": {"box": {**BOX, "x": 20}}},
        "region.box",
        "expected within the 24x32 pixels (width x height) of the image as shown, "
        "got columns 20 to 32 and rows 4 to 20",
    ),
    "box left of the image": (
        "explain",
        {"targets": _DOG, "region": {"box": {**BOX, "x": -1}}},
        "region.box.x",
        "expected a whole number of pixels, 0 or more, got -1",
    ),
    "outside alone": (
        "explain",
        {"targets": _DOG, "region": {"outside": True}},
        "region",
        "expected one of mask, box, got none",
    ),
    "nothing outside": (
        "probe",
        {"region": {"box": {"width": WIDTH, "height": HEIGHT}, "outside": True}},
        "region.outside",
        "expected pixels beside the mask or box, got none: it covers everything",
    ),
    "against itself": (
        "explain",
        {"targets": [{"name": "cat"}, {"name": "dog"}], "away_from": {"index": 1}},
        "away_from",
        "expected another class than the targets, got 'dog', which is targets.1, too",
    ),
    "unknown contrast": (
        "explain",
        {"targets": _DOG, "away_from": {"name": "wolf"}},
        "away_from.name",
        "",
    ),
    "contrast without a class": (
        "explain",
        {"targets": _DOG, "away_from": {}},
        "away_from",
        "expected one of index, name, got none",
    ),
}
# What a message of gRPC cannot even hold.
BAD_JSON: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "mask and box": (
        "explain",
        {"targets": _DOG, "region": {"mask": _BLACK, "box": BOX}},
        "region",
        "expected one of mask, box, got both",
    ),
    "box without area": (
        "explain",
        {"targets": _DOG, "region": {"box": {**BOX, "width": 0}}},
        "region.box.width",
        "expected a whole number of pixels, 1 or more, got 0",
    ),
    "box as a text": (
        "explain",
        {"targets": _DOG, "region": {"box": "1,2,3,4"}},
        "region.box",
        "expected an object with x, y, width and height, got '1,2,3,4'",
    ),
    "mask that is no base64": (
        "explain",
        {"targets": _DOG, "region": {"mask": "x.png"}},
        "region.mask",
        "expected base64, got other text",
    ),
    "unknown norm": (
        "explain",
        {"targets": _DOG, "norm": "l3"},
        "norm",
        "expected l1, l1.5, l2, linf, got 'l3'",
    ),
    "norm as a number": (
        "explain",
        {"targets": _DOG, "norm": 1.5},
        "norm",
        "expected l1, l1.5, l2, linf, got 1.5",
    ),
    "norm of a probe": ("probe", {"norm": "l1"}, "norm", "no such field"),
    "region of a prediction": ("predict", {"region": {"box": BOX}}, "region", "no such field"),
}


@pytest.mark.parametrize(
    ("verb", "fields", "field", "description"),
    [*BAD.values(), *BAD_JSON.values()],
    ids=[*BAD, *BAD_JSON],
)
def test_rest_names_what_is_wrong(
    servers: Servers, verb: str, fields: dict[str, Any], field: str, description: str
) -> None:
    found = rejected_fields(servers, verb, {**AS_JSON, **fields})
    assert list(found) == [field]
    assert found[field].startswith(description)


@pytest.mark.parametrize(("verb", "fields", "field", "description"), BAD.values(), ids=BAD.keys())
def test_grpc_names_the_same(
    servers: Servers, verb: str, fields: dict[str, Any], field: str, description: str
) -> None:
    values = {**fields, "image": {"encoded": PHOTO}}
    if "mask" in values.get("region", {}):
        values["region"] = {"mask": base64.b64decode(values["region"]["mask"])}
    calls = {
        "explain": (servers.stub.Explain, pb.ExplainRequest()),
        "probe": (servers.stub.Probe, pb.ProbeRequest()),
    }
    call, message = calls[verb]
    _, details = rejected(call, convert.to_message(values, message))
    (violation,) = details["BadRequest"].field_violations
    assert violation.field == field
    assert violation.description.startswith(description)


def test_norm_of_a_newer_client_is_named(servers: Servers) -> None:
    message = pb.ExplainRequest(targets=[pb.ClassRef(index=0)], norm=9)
    message.image.encoded = PHOTO
    _, details = rejected(servers.stub.Explain, message)
    (violation,) = details["BadRequest"].field_violations
    assert violation.field == "norm"
    assert violation.description == "expected l1, l1.5, l2, linf, got '9'"


def test_mask_given_twice_is_named(servers: Servers) -> None:
    request = {"targets": _DOG, "region": {"mask": _BLACK}}
    parts = {"image": PHOTO, "mask": MASK, "request": json.dumps(request).encode()}
    response = servers.rest.post("/v1/explain", files=parts)
    assert response.json()["error"]["violations"] == [
        {"field": "region.mask", "description": "expected once, got twice"}
    ]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--mask MASK --box 1,2,3,4", "region: expected one of --mask and --box, got both"),
        ("--outside", "outside: expected it with --mask or --box, got it alone"),
        ("--box 1,2,3", "box: expected four whole numbers X,Y,WIDTH,HEIGHT, got '1,2,3'"),
        ("--box a,b,c,d", "box: expected four whole numbers X,Y,WIDTH,HEIGHT, got 'a,b,c,d'"),
        ("--box -1,2,3,4", "region.box.x: expected 0 or more, got -1"),
        ("--box 1,2,0,4", "region.box.width: expected 1 or more, got 0"),
        ("--mask missing.png", "missing.png: No such file or directory"),
        ("--norm l3", "'l3' is not one of 'l1', 'l1.5', 'l2', 'linf'"),
        ("--away-from dog", "away_from: expected another class than the targets, got 'dog'"),
        ("--away-from cat --away-from-index 2", "away-from: expected one of --away-from and"),
    ],
)
def test_command_line_names_what_is_wrong(
    servers: Servers, tmp_path: Path, options: str, line: str
) -> None:
    photo, mask = tmp_path / "photo.png", tmp_path / "mask.png"
    photo.write_bytes(PHOTO)
    mask.write_bytes(MASK)
    given = [str(mask) if one == "MASK" else one for one in options.split()]
    target = ["--target", "dog", "--address", servers.client_address]
    result = CliRunner().invoke(build_app(), ["explain", str(photo), *target, *given])
    assert result.exit_code != 0
    assert line in result.output
    assert result.output.count("\n") == 1


def test_errors_are_the_same_in_the_client(servers: Servers) -> None:
    with pytest.raises(ServiceError, match="away_from: expected another class"):
        explained(servers, away_from={"name": "dog"})

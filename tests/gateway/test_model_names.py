"""A model whose name is of another script, in two spellings, through every protocol."""

import base64
import unicodedata
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from candor.contracts import api
from candor.rpc.pb.candor.v1 import candor_pb2
from candor.rpc.pb.openinference import inference_pb2, inference_pb2_grpc
from tests.gateway.servers import Servers, opened

NAME = "gr\u00fcn-\u0915\u094d\u200d\u0937-\u732b"
SPELLINGS = [unicodedata.normalize(form, NAME) for form in ("NFC", "NFD")]


@pytest.fixture(scope="module")
def named() -> Iterator[Servers]:
    yield from opened(models=(SPELLINGS[1], "linear"), metrics_port=0)


@pytest.mark.parametrize("name", SPELLINGS, ids=["NFC", "NFD"])
def test_every_protocol_knows_the_model_by_either_spelling(
    named: Servers, name: str, png: bytes
) -> None:
    encoded, path = base64.b64encode(png).decode(), quote(name)
    fields = {"model": name, "image": {"encoded": encoded}}
    tensor = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [encoded]}
    rest, predictions = named.rest, "predictions"
    answers = [
        rest.get(f"/v1/models/{path}").json()["name"],
        rest.get(f"/v1/models/{path}@1.2").json()["name"],
        rest.get(f"/v2/models/{path}").json()["name"],
        rest.post("/v1/predict", json=fields).json()["model"]["name"],
        rest.post("/v1/predict", json={**fields, "model": f"{name}@1.2"}).json()["model"]["name"],
        rest.post(f"/v2/models/{path}/infer", json={"inputs": [tensor]}).json()["model_name"],
        named.client.get_model(name).model.name,
        named.client.predict(
            api.PredictRequest(model=name, image=api.ImageInput(encoded=png))
        ).model.name,
        named.stub.GetModel(candor_pb2.GetModelRequest(model=name)).model.name,
        _inferred(named, name, png),
    ]
    assert answers == [NAME] * len(answers)
    kserve = rest.post(f"/v1/models/{path}:predict", json={"instances": [{"b64": encoded}]})
    assert len(kserve.json()[predictions]) == 1, kserve.text
    assert rest.get(f"/v2/models/{path}/ready").status_code == 200
    assert rest.get("/", params={"model": name}).status_code == 200


def _inferred(named: Servers, name: str, png: bytes) -> str:
    request = inference_pb2.ModelInferRequest(model_name=name)
    request.inputs.add(name="image", datatype="BYTES", shape=[1]).contents.bytes_contents[:] = [png]
    stub = inference_pb2_grpc.GRPCInferenceServiceStub(named.channel)
    return str(stub.ModelInfer(request).model_name)


def test_pages_and_metrics_write_the_one_spelling(named: Servers, png: bytes) -> None:
    for name in SPELLINGS:
        named.client.predict(api.PredictRequest(model=name, image=api.ImageInput(encoded=png)))
    port = named.gateway.metrics_port
    text = named.rest.get(f"http://127.0.0.1:{port}/metrics").content.decode()
    assert f'model="{NAME}"' in text
    assert SPELLINGS[1] not in text
    page = named.rest.get("/").text
    assert NAME in page
    assert SPELLINGS[1] not in page


def test_explanations_of_either_spelling_are_one_in_the_cache(named: Servers, png: bytes) -> None:
    found = [
        named.client.explain(
            api.ExplainRequest(
                model=name,
                image=api.ImageInput(encoded=png),
                targets=(api.ClassRef(index=1),),
                rhos=(0.05,),
                steps=3,
            )
        ).explanations[0]
        for name in SPELLINGS
    ]
    assert [one.from_cache for one in found] == [False, True]


def test_an_unknown_model_of_another_script_is_named_with_its_code_points(named: Servers) -> None:
    answer = named.rest.get("/v1/models/" + quote("gr\u0443n"))
    assert answer.status_code == 404
    assert NAME in answer.json()["error"]["message"]
    assert "\\u0443" in answer.json()["error"]["message"]

"""The Open Inference Protocol and KServe's v1 over real gRPC and REST, as they are on the wire."""

import base64
import json
import struct
from typing import Any

import grpc
import numpy as np
import pytest

from candor.contracts import limits
from candor.rpc.pb.candor.v1 import candor_pb2
from candor.rpc.pb.openinference import inference_pb2 as pb
from candor.rpc.pb.openinference import inference_pb2_grpc
from tests.gateway.linear_worker import CARD, CLASSES, SHAPE, confidences_of
from tests.gateway.servers import Servers

INFER = "/v2/models/linear/infer"


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(3).random((3, *SHAPE), dtype=np.float32)


@pytest.fixture
def stub(servers: Servers) -> inference_pb2_grpc.GRPCInferenceServiceStub:
    return inference_pb2_grpc.GRPCInferenceServiceStub(servers.channel)


def tensors(images: np.ndarray) -> list[dict[str, Any]]:
    shape = list(images.shape)
    data = images.ravel().tolist()
    return [{"name": "image", "datatype": "FP32", "shape": shape, "data": data}]


def encoded(*images: bytes) -> list[dict[str, Any]]:
    data = [base64.b64encode(image).decode() for image in images]
    return [{"name": "image", "datatype": "BYTES", "shape": [len(images)], "data": data}]


def outputs_of(answer: dict[str, Any]) -> dict[str, np.ndarray]:
    return {one["name"]: np.array(one["data"]).reshape(one["shape"]) for one in answer["outputs"]}


def infer_request(images: np.ndarray, *, is_raw: bool, **fields: Any) -> pb.ModelInferRequest:
    request = pb.ModelInferRequest(model_name="linear", **fields)
    tensor = request.inputs.add(name="image", datatype="FP32", shape=images.shape)
    if is_raw:
        request.raw_input_contents.append(images.astype("<f4").tobytes())
    else:
        tensor.contents.fp32_contents.extend(images.ravel().tolist())
    return request


# --- metadata and health -----------------------------------------------------------------------


def test_rest_tells_server_and_models(servers: Servers) -> None:
    assert servers.rest.get("/v2").json()["name"] == "candor"
    assert servers.rest.get("/v2/health/live").json() == {"live": True}
    assert servers.rest.get("/v2/health/ready").json() == {"ready": True}
    for path in ("", f"/versions/{CARD.version}"):
        metadata = servers.rest.get(f"/v2/models/linear{path}").json()
        assert metadata["versions"] == [CARD.version]
        assert [one["shape"] for one in metadata["inputs"]] == [[-1], [-1, *SHAPE]]
        assert {one["name"] for one in metadata["outputs"]} == {"indices", "labels", "confidences"}
        assert servers.rest.get(f"/v2/models/linear{path}/ready").json()["ready"] is True
    for path in ("/v2/models/cubic", "/v2/models/linear/versions/9", "/v2/models/cubic/ready"):
        response = servers.rest.get(path)
        assert response.status_code == 404
        assert isinstance(response.json()["error"], str)


def test_grpc_tells_the_same(servers: Servers, stub: Any) -> None:
    assert stub.ServerLive(pb.ServerLiveRequest()).live
    assert stub.ServerReady(pb.ServerReadyRequest()).ready
    assert stub.ServerMetadata(pb.ServerMetadataRequest()).name == "candor"
    assert stub.ModelReady(pb.ModelReadyRequest(name="linear")).ready
    metadata = stub.ModelMetadata(pb.ModelMetadataRequest(name="linear"))
    rest = servers.rest.get("/v2/models/linear").json()
    assert [list(one.shape) for one in metadata.inputs] == [one["shape"] for one in rest["inputs"]]
    assert [one.name for one in metadata.outputs] == [one["name"] for one in rest["outputs"]]
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelMetadata(pb.ModelMetadataRequest(name="linear", version="9"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


# --- inference ---------------------------------------------------------------------------------


def test_every_way_in_gives_what_predict_gives(
    servers: Servers, stub: Any, images: np.ndarray
) -> None:
    body = {"id": "mine", "inputs": tensors(images), "parameters": {"top_k": 5}}
    answer = servers.rest.post(INFER, json=body).json()
    assert (answer["id"], answer["model_name"]) == ("mine", "linear")
    outputs = outputs_of(answer)
    for place, image in enumerate(images):
        confidences = confidences_of(image)
        order = np.argsort(-confidences)
        assert outputs["indices"][place].tolist() == order.tolist()
        np.testing.assert_allclose(outputs["confidences"][place], confidences[order], rtol=1e-5)
        assert outputs["labels"][place].tolist() == [CLASSES[index] for index in order]
    for is_raw in (False, True):
        request = infer_request(images, is_raw=is_raw, id="mine")
        request.parameters["top_k"].int64_param = 5
        response = stub.ModelInfer(request)
        assert response.id == "mine"
        indices, labels, confidences = (
            response.raw_output_contents
            if is_raw
            else [
                np.array(response.outputs[0].contents.int64_contents, "<i8").tobytes(),
                b"".join(
                    struct.pack("<I", len(one)) + one
                    for one in response.outputs[1].contents.bytes_contents
                ),
                np.array(response.outputs[2].contents.fp32_contents, "<f4").tobytes(),
            ]
        )
        assert np.frombuffer(indices, "<i8").tolist() == outputs["indices"].ravel().tolist()
        np.testing.assert_allclose(
            np.frombuffer(confidences, "<f4"), outputs["confidences"].ravel(), rtol=1e-6
        )
        assert labels[4:].startswith(outputs["labels"][0, 0].encode())


def test_images_travel_as_bytes_too(servers: Servers, stub: Any, png: bytes) -> None:
    plain = servers.rest.post("/v1/predict", files={"image": png}).json()["predictions"]
    want = [one["index"] for one in plain]
    by_json = servers.rest.post(INFER, json={"inputs": encoded(png, png)}).json()
    assert outputs_of(by_json)["indices"].tolist() == [want, want]
    request = pb.ModelInferRequest(model_name="linear")
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[1])
    tensor.contents.bytes_contents.append(png)
    answer = stub.ModelInfer(request)
    assert list(answer.outputs[0].contents.int64_contents) == want


def test_binary_tensors_behind_the_json(servers: Servers, images: np.ndarray) -> None:
    raw = images.astype("<f4").tobytes()
    head = {
        "inputs": [
            {
                "name": "image",
                "datatype": "FP32",
                "shape": list(images.shape),
                "parameters": {"binary_data_size": len(raw)},
            }
        ],
        "outputs": [{"name": "confidences", "parameters": {"binary_data": True}}],
    }
    text = json.dumps(head).encode()
    headers = {"inference-header-content-length": str(len(text))}
    response = servers.rest.post(INFER, content=text + raw, headers=headers)
    length = int(response.headers["inference-header-content-length"])
    (output,) = json.loads(response.content[:length])["outputs"]
    values = np.frombuffer(response.content[length:], "<f4").reshape(output["shape"])
    np.testing.assert_allclose(values[0, 0], confidences_of(images[0]).max(), rtol=1e-5)
    too_long = {"inference-header-content-length": str(len(text) + len(raw) + 1)}
    assert servers.rest.post(INFER, content=text + raw, headers=too_long).status_code == 400
    assert servers.rest.post(INFER, content=text, headers=headers).status_code == 400


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"inputs": []}, "inputs"),
        ({"inputs": [{"name": "pixels", "datatype": "BYTES", "shape": [0], "data": []}]}, "inputs"),
        (
            {"inputs": [{"name": "image", "datatype": "FP16", "shape": [1], "data": [1]}]},
            "datatype",
        ),
        ({"inputs": [{"name": "image", "datatype": "FP32", "shape": [2], "data": [1]}]}, "data"),
        ({"inputs": [{"name": "image", "datatype": "FP32", "shape": [-1], "data": []}]}, "shape"),
        (
            {"inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]}]},
            "shape",
        ),
        ({"inputs": [{"name": "image", "datatype": "FP32", "shape": [1], "data": ["a"]}]}, "data"),
        (
            {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["!"]}]},
            "data",
        ),
        (
            {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": ["AAAA"]}]},
            "image",
        ),
        ({"inputs": [{"name": "image", "datatype": "BYTES", "shape": [0], "data": []}]}, "shape"),
        ({"outputs": [{"name": "logits"}]}, "outputs"),
        ({"parameters": {"top_k": 0}}, "top_k"),
    ],
)
def test_bad_tensor_is_named(
    servers: Servers, png: bytes, changes: dict[str, Any], field: str
) -> None:
    response = servers.rest.post(INFER, json={"inputs": encoded(png), **changes})
    assert response.status_code == 400, response.text
    answer = response.json()
    assert isinstance(answer["error"], str)
    assert field in answer["details"]["violations"][0]["field"]


def test_too_many_images_are_rejected_over_grpc_and_rest(
    servers: Servers, stub: Any, png: bytes
) -> None:
    count = limits.MAX_INSTANCES + 1
    response = servers.rest.post(INFER, json={"inputs": encoded(*[png] * count)})
    assert response.status_code == 400
    assert f"[1, {limits.MAX_INSTANCES}]" in response.json()["error"]
    request = pb.ModelInferRequest(model_name="linear")
    tensor = request.inputs.add(name="image", datatype="BYTES", shape=[count])
    tensor.contents.bytes_contents.extend([png] * count)
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    request.raw_input_contents.extend([b"", b""])
    with pytest.raises(grpc.RpcError, match="raw_input_contents"):
        stub.ModelInfer(request)


def test_bad_image_among_good_ones_is_named_by_its_place(servers: Servers, png: bytes) -> None:
    response = servers.rest.post(INFER, json={"inputs": encoded(png, b"no image", png)})
    assert response.status_code == 400
    (violation,) = response.json()["details"]["violations"]
    assert violation["field"] == "inputs.0.1.image.encoded"


# --- KServe v1 ---------------------------------------------------------------------------------


def test_v1_predicts_and_explains_instances(servers: Servers, png: bytes) -> None:
    instance = {"b64": base64.b64encode(png).decode()}
    plain = servers.rest.post("/v1/predict", files={"image": png}).json()["predictions"]
    response = servers.rest.post("/v1/models/linear:predict", json={"instances": [instance] * 2})
    assert response.json()["predictions"] == [plain, plain]
    asked = {**instance, "targets": [{"name": "dog"}], "rhos": [0.02], "steps": 5}
    answer = servers.rest.post("/v1/models/linear:explain", json={"instances": [asked]}).json()
    (explained,) = answer["explanations"]
    assert explained["explanations"][0]["rmse"] <= 0.02
    assert explained["explanations"][0]["target"]["name"] == "dog"


def test_v1_errors_have_the_error_body_and_the_index(servers: Servers, png: bytes) -> None:
    good = {"b64": base64.b64encode(png).decode()}
    path = "/v1/models/linear:predict"
    for body, field in (
        ({}, "instances"),
        ({"instances": []}, "instances"),
        ({"instances": [good, 7]}, "instances.1"),
        ({"instances": [good, {"b64": "!"}]}, "instances.1.image.encoded"),
    ):
        response = servers.rest.post(path, json=body)
        assert response.status_code == 400, response.text
        assert response.json()["error"]["violations"][0]["field"] == field
    response = servers.rest.post("/v1/models/cubic:predict", json={"instances": [good]})
    assert response.status_code == 404


@pytest.mark.parametrize(
    ("reference", "index", "hint"),
    [
        ({"name": "#2"}, 2, ""),
        ({"name": "ship"}, 3, ""),
        ({"name": "2"}, None, "an index is written #2"),
        ({"name": "Ship"}, None, "near: ship"),
        ({"name": "shi\u0440"}, None, "U+0440"),
        ({"index": "2"}, None, "expected a class index, 0 or more, got '2'"),
        ({"index": True}, None, "expected a class index, 0 or more, got true"),
    ],
)
def test_every_protocol_reads_a_class_alike(
    servers: Servers, png: bytes, reference: dict[str, Any], index: int | None, hint: str
) -> None:
    image = base64.b64encode(png).decode()
    fields = {"targets": [reference], "rhos": [0.05], "steps": 2}
    rest = servers.rest.post("/v1/explain", json={"image": {"encoded": image}, **fields}).json()
    body = {"instances": [{"b64": image, **fields}]}
    kserve = servers.rest.post("/v1/models/linear:explain", json=body).json()
    if index is None:
        assert hint in rest["error"]["message"]
        assert hint in kserve["error"]["message"]
    else:
        (answer,) = kserve["explanations"]
        for one in (rest, answer):
            assert one["explanations"][0]["target"]["index"] == index
    if isinstance(reference.get("name"), str):
        request = candor_pb2.ExplainRequest(image=candor_pb2.Image(encoded=png), steps=2)
        request.targets.add(name=reference["name"])
        if index is None:
            with pytest.raises(grpc.RpcError) as caught:
                servers.stub.Explain(request)
            assert hint in caught.value.details()
        else:
            assert servers.stub.Explain(request).explanations[0].target.index == index


# --- what clients of KServe send, and what contradicts itself ----------------------------------


def test_nested_bytes_are_read(servers: Servers, stub: Any, png: bytes) -> None:
    flat = servers.rest.post(INFER, json={"inputs": encoded(png, png)}).json()
    text = base64.b64encode(png).decode()
    nested = {"name": "image", "datatype": "BYTES", "shape": [2, 1], "data": [[text], [text]]}
    response = servers.rest.post(INFER, json={"inputs": [nested], "model_name": "linear"})
    assert response.json()["outputs"] == flat["outputs"]
    raw = pb.ModelInferRequest(model_name="linear")
    raw.inputs.add(name="image", datatype="BYTES", shape=[2, 1])
    raw.raw_input_contents.append((struct.pack("<I", len(png)) + png) * 2)
    listed = pb.ModelInferRequest(model_name="linear")
    tensor = listed.inputs.add(name="image", datatype="BYTES", shape=[2, 1])
    tensor.contents.bytes_contents.extend([png, png])
    for request in (raw, listed):
        assert stub.ModelInfer(request).outputs[0].shape[0] == 2


def _tensor(png: bytes, **changes: Any) -> dict[str, Any]:
    return {**encoded(png)[0], **changes}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": [2]}, "expected 2 values (shape), got 1"),
        ({"data": [["AA=="], ["AA=="]], "shape": [1, 2]}, "lists of shape [1, 2], got [2, 1]"),
        ({"data": [["AA=="], "AA=="], "shape": [2]}, "lists of equal length"),
        ({"shape": [True]}, "expected a whole number, got true"),
        ({"parameters": {"binary_data_size": 4}}, "expected none beside binary_data_size"),
        ({"datatype": "FP32", "data": ["0.5"], "shape": [1]}, "expected numbers, got '0.5'"),
        ({"datatype": "FP32", "data": [True], "shape": [1]}, "expected numbers, got true"),
        ({"datatype": "FP32", "data": [None], "shape": [1]}, "expected numbers, got null"),
        ({"nome": "x"}, "nome: no such field"),
        ({"name": "imagf"}, "expected one input named image"),
    ],
)
def test_tensors_that_contradict_themselves_are_rejected(
    servers: Servers, png: bytes, change: dict[str, Any], said: str
) -> None:
    response = servers.rest.post(INFER, json={"inputs": [_tensor(png, **change)]})
    assert response.status_code == 400
    assert said in response.json()["error"]


def test_requests_that_contradict_themselves_are_rejected(servers: Servers, png: bytes) -> None:
    inputs = [_tensor(png)]
    for body, said in (
        ({"inputs": inputs * 2}, "expected one input named image"),
        ({"inputs": inputs, "model_name": "cubic"}, "expected 'linear' of the path, got 'cubic'"),
        ({"inputs": inputs, "outputs": [{"name": "labels"}] * 2}, "got one twice"),
        (
            {"inputs": inputs, "parameters": {"top_k": True}},
            "parameters.top_k: expected a whole",
        ),
    ):
        assert said in servers.rest.post(INFER, json=body).json()["error"]
    text = json.dumps({"inputs": inputs}).encode()
    headers = {"inference-header-content-length": str(len(text))}
    response = servers.rest.post(INFER, content=text + b"more", headers=headers)
    assert "expected 0 bytes behind the JSON (binary_data_size), got 4" in response.json()["error"]


def test_contents_that_contradict_themselves_are_rejected(stub: Any, images: np.ndarray) -> None:
    both = infer_request(images, is_raw=True)
    both.inputs[0].contents.fp32_contents.extend(images.ravel().tolist())
    other = infer_request(images, is_raw=False)
    other.inputs[0].contents.bytes_contents.append(b"x")
    for request, said in (
        (both, "inputs.0.contents: expected none beside raw_input_contents, got fp32_contents"),
        (other, "inputs.0.contents: expected fp32_contents, got bytes_contents"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request)
        assert caught.value.details() == said


def test_v1_instances_that_contradict_themselves_are_rejected(servers: Servers, png: bytes) -> None:
    text = base64.b64encode(png).decode()
    path = "/v1/models/linear:predict"
    assert servers.rest.post(path, json={"instances": [{"image": {"b64": text}}]}).is_success
    for body, said in (
        ({"instances": [{"b64": text, "image": {"encoded": text}}]}, "expected one of b64, image"),
        ({"instances": [{"b64": text, "model": "cubic"}]}, "expected 'linear' of the path"),
        ({"instances": [{"b64": text}], "instance": []}, "instance: no such field"),
        (
            {"instances": [{"b64": text, "top_k": "3"}]},
            "expected a whole number in [1, 1000], got '3'",
        ),
    ):
        response = servers.rest.post(path, json=body)
        assert response.status_code == 400
        assert said in response.json()["error"]["message"]


# --- parameters, and tensors whose parts disagree ------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"parameters": {"topk": 1}}, "parameters.topk: no such field"),
        ({"parameters": {"priority": 1}}, "parameters.priority: no such field"),
        ({"parameters": {"binary_data_output": 1}}, "expected true or false, got 1"),
        ({"parameters": {"top_k": None}}, "expected a whole number in [1, 1000], got null"),
        ({"outputs": [{"name": "labels", "parameters": {"classification": 3}}]}, "classification"),
        ({"outputs": [{"name": "labels", "parameters": {"binary_data": "x"}}]}, "got 'x'"),
        ({"tensor": {"parameters": {"content_type": "np"}}}, "content_type: no such field"),
        ({"tensor": {"parameters": {"binary_data_size": None}}}, "a whole number, got null"),
        ({"tensor": {"shape": [10**30]}}, "inputs.0.shape: expected at most 8 sizes in [0, "),
        ({"tensor": {"data": [0.5]}}, "inputs.0.data: expected base64 texts, got 0.5"),
        ({"tensor": {"data": ["!"]}}, "inputs.0.data: expected base64, got other text"),
        (
            {"tensor": {"datatype": "FP32", "shape": list(SHAPE), "data": [1e300] * 144}},
            "inputs.0.data: expected FP32 values",
        ),
    ],
)
def test_parameters_and_tensors_are_read_strictly(
    servers: Servers, png: bytes, changes: dict[str, Any], said: str
) -> None:
    others = {key: value for key, value in changes.items() if key != "tensor"}
    body = {"inputs": [_tensor(png, **changes.get("tensor", {}))], **others}
    response = servers.rest.post(INFER, json=body)
    assert response.status_code == 400
    assert said in response.json()["error"]
    assert len(response.json()["details"]["violations"]) == 1


def test_grpc_reads_parameters_as_strictly(stub: Any, images: np.ndarray) -> None:
    def said_to(edit: Any, *, is_raw: bool = False) -> str:
        request = infer_request(images, is_raw=is_raw)
        edit(request)
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(request)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        return str(caught.value.details())

    def named(name: str, **value: Any) -> Any:
        return lambda request: request.parameters[name].MergeFrom(pb.InferParameter(**value))

    assert said_to(named("topk", int64_param=1)) == "parameters.topk: no such field"
    assert "got 1.0" in said_to(named("top_k", double_param=1.0))
    assert "got null" in said_to(named("top_k"))
    assert "datatype: expected BYTES or FP32, got 'FP64'" in said_to(
        lambda request: setattr(request.inputs[0], "datatype", "FP64")
    )
    assert "expected one input named image" in said_to(
        lambda request: request.inputs.add(name="mask", datatype="FP32")
    )

    def name_size(request: pb.ModelInferRequest) -> None:
        request.inputs[0].parameters["binary_data_size"].int64_param = 1

    size = images.astype("<f4").nbytes
    assert f"expected {size}, as raw_input_contents has, got 1" in said_to(name_size, is_raw=True)


def test_version_of_the_body_is_that_of_a_path_without_one(servers: Servers, png: bytes) -> None:
    body = {"inputs": [_tensor(png)], "model_version": CARD.version}
    assert servers.rest.post(INFER, json=body).json()["model_version"] == CARD.version
    body["model_version"] = "9"
    assert "expected one of 1.2, got '9'" in servers.rest.post(INFER, json=body).json()["error"]
    path = f"/v2/models/linear/versions/{CARD.version}/infer"
    said = servers.rest.post(path, json=body).json()["error"]
    assert said == f"model_version: expected '{CARD.version}' of the path, got '9'"


@pytest.mark.parametrize("length", ["0000000000115", "-1", "+1", "1_0", "abc", "9" * 20])
def test_length_of_the_json_is_a_number_within_the_body(servers: Servers, length: str) -> None:
    headers = {"inference-header-content-length": length}
    response = servers.rest.post(INFER, content=b"{}", headers=headers)
    assert "expected a number of bytes in [0, 2]" in response.json()["error"]

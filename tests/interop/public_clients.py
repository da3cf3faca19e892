"""Asks a gateway with the public clients of Triton and KServe; prints what each got as JSON.

Runs in an environment of its own (`requirements.txt`) and imports nothing of ours.
``python public_clients.py triton|kserve REST_ADDRESS GRPC_ADDRESS PICTURES.npy PICTURE.png``
One process cannot hold both: each registers the protocol's messages under the same names.
"""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

MODEL = "linear"


def ask_triton(rest: str, grpc_address: str, images: np.ndarray, png: bytes) -> Any:
    """Every call of the protocol, over HTTP (with binary tensors) and gRPC."""
    import tritonclient.grpc
    import tritonclient.http

    return {
        "http": _ask_triton(tritonclient.http, rest, images, png),
        "grpc": _ask_triton(tritonclient.grpc, grpc_address, images, png),
    }


def _ask_triton(module: Any, address: str, images: np.ndarray, png: bytes) -> dict[str, Any]:
    from tritonclient.utils import InferenceServerException

    client = module.InferenceServerClient(address)
    found = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL),
        "other_ready": _is_ready(client, "cubic"),
        "server": _name(client.get_server_metadata()),
        "model": _name(client.get_model_metadata(MODEL)),
        "tensors": _infer(module, client, images, "FP32"),
        "pictures": _infer(module, client, np.array([png, png], dtype=np.object_), "BYTES"),
    }
    try:
        _infer(module, client, images[:, :, :2], "FP32")
    except InferenceServerException as err:
        found["refusal"] = str(err)
    client.close()
    return found


def _is_ready(client: Any, model: str) -> bool:
    from tritonclient.utils import InferenceServerException

    try:
        return bool(client.is_model_ready(model))
    except InferenceServerException:
        return False


def _name(metadata: Any) -> str:
    return str(metadata["name"] if isinstance(metadata, dict) else metadata.name)


def _infer(module: Any, client: Any, values: np.ndarray, datatype: str) -> dict[str, Any]:
    tensor = module.InferInput("image", list(values.shape), datatype)
    tensor.set_data_from_numpy(values)
    wanted = [module.InferRequestedOutput(name) for name in ("indices", "labels", "confidences")]
    answer = client.infer(MODEL, [tensor], outputs=wanted, request_id="conformance")
    return {
        "indices": answer.as_numpy("indices").tolist(),
        "labels": [[one.decode() for one in row] for row in answer.as_numpy("labels")],
        "confidences": answer.as_numpy("confidences").tolist(),
    }


def ask_kserve(rest: str, grpc_address: str, images: np.ndarray, png: bytes) -> Any:
    """KServe's clients: v1 and v2 over REST, v2 over gRPC."""
    return asyncio.run(_ask_kserve(rest, grpc_address, images, png))


async def _ask_kserve(rest: str, grpc_address: str, images: np.ndarray, png: bytes) -> Any:
    from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
    from kserve.inference_client import RESTConfig

    instance = {"b64": base64.b64encode(png).decode()}
    asked = {**instance, "targets": [{"index": 0}], "rhos": [0.02], "steps": 3}
    tensor = InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=False)
    request = InferRequest(MODEL, [tensor], request_id="conformance")
    found: dict[str, Any] = {}
    url = f"http://{rest}"
    async with InferenceRESTClient(config=RESTConfig(protocol="v1")) as client:
        predicted = await client.infer(url, {"instances": [instance]}, model_name=MODEL)
        explained = await client.explain(url, MODEL, {"instances": [asked]})
        found["v1"] = {
            "ready": await client.is_model_ready(url, MODEL),
            "predictions": predicted["predictions"],
            "rmse": explained["explanations"][0]["explanations"][0]["rmse"],
        }
    async with InferenceRESTClient(config=RESTConfig(protocol="v2")) as client:
        answer = await client.infer(url, request, model_name=MODEL)
        found["v2"] = {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model_ready": await client.is_model_ready(url, MODEL),
            "indices": _output(answer, "indices"),
        }
    client = InferenceGRPCClient(grpc_address)
    raw = InferInput("image", list(images.shape), "FP32")
    raw.set_data_from_numpy(images, binary_data=True)
    answer = await client.infer(InferRequest(MODEL, [raw], request_id="conformance"))
    found["grpc"] = {
        "ready": await client.is_server_ready(),
        "model_ready": await client.is_model_ready(MODEL),
        "indices": _output(answer, "indices"),
    }
    return found


def _output(answer: Any, name: str) -> Any:
    (output,) = [one for one in answer.outputs if one.name == name]
    return output.as_numpy().tolist()


def main(which: str, rest: str, grpc_address: str, images_path: str, png_path: str) -> None:
    ask = {"triton": ask_triton, "kserve": ask_kserve}[which]
    found = ask(rest, grpc_address, np.load(images_path), Path(png_path).read_bytes())
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Calls a gateway with the public clients of KServe; prints their results as JSON.

Runs in an environment of its own (`requirements.txt`) and imports nothing of ours.  A process of
its own, because it registers the protocol's messages under the same names as Triton's client.
``python kserve_client.py REST_ADDRESS GRPC_ADDRESS IMAGES.npy IMAGE.png``
"""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig

MODEL = "linear"


async def call(rest: str, grpc_address: str, images: np.ndarray, png: bytes) -> dict[str, Any]:
    """v1 and v2 over REST, v2 over gRPC."""
    return {
        "v1": await _over_rest_v1(f"http://{rest}", png),
        "v2": await _over_rest_v2(f"http://{rest}", images),
        "grpc": await _over_grpc(grpc_address, images),
    }


async def _over_rest_v1(url: str, png: bytes) -> dict[str, Any]:
    instance = {"b64": base64.b64encode(png).decode()}
    to_explain = {**instance, "targets": [{"index": 0}], "rhos": [0.02], "steps": 3}
    async with InferenceRESTClient(config=RESTConfig(protocol="v1")) as client:
        predicted = await client.infer(url, {"instances": [instance]}, model_name=MODEL)
        explained = await client.explain(url, MODEL, {"instances": [to_explain]})
        return {
            "ready": await client.is_model_ready(url, MODEL),
            "predictions": predicted["predictions"],
            "rmse": explained["explanations"][0]["explanations"][0]["rmse"],
        }


async def _over_rest_v2(url: str, images: np.ndarray) -> dict[str, Any]:
    request = _request(images, is_binary=False)
    async with InferenceRESTClient(config=RESTConfig(protocol="v2")) as client:
        response = await client.infer(url, request, model_name=MODEL)
        return {
            "live": await client.is_server_live(url),
            "ready": await client.is_server_ready(url),
            "model_ready": await client.is_model_ready(url, MODEL),
            "indices": _indices(response),
        }


async def _over_grpc(address: str, images: np.ndarray) -> dict[str, Any]:
    client = InferenceGRPCClient(address)
    response = await client.infer(_request(images, is_binary=True))
    return {
        "ready": await client.is_server_ready(),
        "model_ready": await client.is_model_ready(MODEL),
        "indices": _indices(response),
    }


def _request(images: np.ndarray, *, is_binary: bool) -> Any:
    tensor = InferInput("image", list(images.shape), "FP32")
    tensor.set_data_from_numpy(images, binary_data=is_binary)
    return InferRequest(MODEL, [tensor], request_id="conformance")


def _indices(response: Any) -> Any:
    (output,) = [one for one in response.outputs if one.name == "indices"]
    return output.as_numpy().tolist()


def main(rest: str, grpc_address: str, images_path: str, png_path: str) -> None:
    images, png = np.load(images_path), Path(png_path).read_bytes()
    print(json.dumps(asyncio.run(call(rest, grpc_address, images, png))))


if __name__ == "__main__":
    main(*sys.argv[1:])

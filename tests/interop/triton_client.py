"""Calls a gateway with the public client of Triton; prints its results as JSON.

Runs in an environment of its own (`requirements.txt`) and imports nothing of ours.  A process of
its own, because it registers the protocol's messages under the same names as KServe's client.
``python triton_client.py REST_ADDRESS GRPC_ADDRESS IMAGES.npy IMAGE.png``
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc
import tritonclient.http
from tritonclient.utils import InferenceServerException

MODEL = "linear"


def call(module: Any, address: str, images: np.ndarray, png: bytes) -> dict[str, Any]:
    """Every call of the protocol; over HTTP with binary tensors."""
    client = module.InferenceServerClient(address)
    found = {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL),
        "other_ready": _is_ready(client, "cubic"),
        "server": _name(client.get_server_metadata()),
        "model": _name(client.get_model_metadata(MODEL)),
        "tensors": _infer(module, client, images, "FP32"),
        "images": _infer(module, client, np.array([png, png], dtype=np.object_), "BYTES"),
    }
    try:
        _infer(module, client, images[:, :, :2], "FP32")
    except InferenceServerException as err:
        found["error"] = str(err)
    client.close()
    return found


def _is_ready(client: Any, model: str) -> bool:
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
    response = client.infer(MODEL, [tensor], outputs=wanted, request_id="conformance")
    return {
        "indices": response.as_numpy("indices").tolist(),
        "labels": [[one.decode() for one in row] for row in response.as_numpy("labels")],
        "confidences": response.as_numpy("confidences").tolist(),
    }


def main(rest: str, grpc_address: str, images_path: str, png_path: str) -> None:
    images, png = np.load(images_path), Path(png_path).read_bytes()
    found = {
        "http": call(tritonclient.http, rest, images, png),
        "grpc": call(tritonclient.grpc, grpc_address, images, png),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])

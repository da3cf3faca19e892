"""``python -m candor.stack.probe``: exit code 0 where TorchServe works for every model right now.

A real prediction and a real search step each: TorchServe's own ping succeeds even when its
workers are gone.
"""

import argparse
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import URLError

import numpy as np

from candor.contracts import wire
from candor.contracts.addresses import url
from candor.contracts.card import ModelCard
from candor.contracts.proxies import open_url
from candor.contracts.violations import read_model
from candor.contracts.worker import ANSWER_ADAPTER, ItemError, PredictItem, SearchItem
from candor.gateway.sockets import loopback
from candor.terms import Goal

_ARCHIVES_DIR = Path(__file__).resolve().parents[2] / "build" / "archives"
_BOUNDARY = "candor-probe"
_INFERENCE_PORT = 8080  # TorchServe's default, which `candor worker` keeps
_GREY = 0.5
_ITEMS = {
    "predict": PredictItem(),
    "search": SearchItem(goal=Goal.BTR, target=0, step_count=2, chunk_steps=1),
}


class ProbeError(Exception):
    """A worker does not work; the message names it and quotes its response."""


def main() -> int:
    """Exit code 0 where every worker works, else 1 and the first that does not."""
    arguments = _arguments()
    try:
        names = [_probe(path, arguments.url, arguments.seconds) for path in _archives(arguments)]
    except ProbeError as err:
        print(f"candor.stack.probe: {err}", file=sys.stderr)
        return 1
    print(f"{len(names)} workers answer: {', '.join(names)}")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="candor.stack.probe", description=__doc__)
    parser.add_argument("--archives-dir", type=Path, default=_ARCHIVES_DIR)
    inference = url("http", loopback(), _INFERENCE_PORT)
    parser.add_argument("--url", default=inference, help="TorchServe's inference.")
    parser.add_argument("--seconds", type=float, default=10.0, help="Longest wait for a response.")
    return parser.parse_args()


def _archives(arguments: argparse.Namespace) -> Iterator[Path]:
    paths = sorted(path.parent for path in arguments.archives_dir.glob("*/card.json"))
    if not paths:
        raise ProbeError(f"archives-dir: {arguments.archives_dir} has no archive")
    yield from paths


def _probe(archive: Path, server: str, seconds: float) -> str:
    """The worker's name, once it has answered a tiny item of its kind."""
    spec = read_model(ModelCard, (archive / "card.json").read_bytes()).input
    grey = np.full((spec.channels, spec.height, spec.width), _GREY, np.float32)
    item = _ITEMS[archive.name.rpartition("-")[2]]
    message = wire.pack(item.model_dump(mode="json"), {"image": grey})
    try:
        response = _call(f"{server}/predictions/{archive.name}", message, seconds)
    except (URLError, OSError, ValueError) as err:
        raise ProbeError(f"{archive.name}: {err}") from err
    if isinstance(response, ItemError):
        raise ProbeError(f"{archive.name}: {response.field}: {response.message}")
    return archive.name


def _call(address: str, message: bytes, seconds: float) -> object:
    """Raises: URLError, OSError, ValueError: no response, or one that cannot be read."""
    request = urllib.request.Request(
        address,
        _form(wire.pack_list([message])),
        {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"},
    )
    with open_url(request, seconds=seconds) as response:
        (packed,) = wire.unpack_list(response.read())
    return ANSWER_ADAPTER.validate_python(wire.unpack(packed)[0])


def _form(items: bytes) -> bytes:
    """What gRPC's input map holds, as a multipart form with the one field `items`."""
    head = (
        f"--{_BOUNDARY}\r\n"
        'Content-Disposition: form-data; name="items"; filename="items"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode() + items + f"\r\n--{_BOUNDARY}--\r\n".encode()


if __name__ == "__main__":
    sys.exit(main())

"""``python -m tools.fuzz.decoders NAME COUNT FOLDER`` fuzzes one decoder with atheris.

A decoder may refuse bytes in its own words only: any other exception ends the run as a crash, which
leaves its input in FOLDER.  Prints what was tried as one JSON line.  A process of its own, because
atheris ends the one it runs in.
"""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import atheris
import psutil

from candor.contracts.json_text import json_text

NAMES = ("images", "wire", "artifacts", "workers")
_MAX_INPUT_BYTES = 4096
_SECONDS_AN_INPUT = 10
_RSS_LIMIT_MEGABYTES = 3000
# Whose branches lead the search for new inputs.
_GUIDED_BY = [
    *("PIL.ImageFile", "PIL.JpegImagePlugin", "PIL.PngImagePlugin", "PIL.WebPImagePlugin"),
    *("candor.models.folder", "candor.contracts.wire", "candor.images.decode", "handlers"),
]
Decoder = Callable[[bytes], None]


def images(folder: Path) -> tuple[Decoder, Sequence[bytes]]:
    """Encoded images and masks, as both transports decode them."""
    from candor.contracts.api import ImageInput, InputSpec
    from candor.images.decode import BadImage, UnusableImage, open_mask
    from candor.images.decode import decode as decode_image
    from tools.fuzz.outcomes import images as real

    spec = InputSpec(channels=3, height=8, width=6, lower=0.0, upper=1.0)

    def decode(content: bytes) -> None:
        with contextlib.suppress(BadImage):
            decode_image(ImageInput(encoded=content), spec)
        with contextlib.suppress(UnusableImage):
            open_mask(content)

    return decode, real()


def wire(folder: Path) -> tuple[Decoder, Sequence[bytes]]:
    """Messages between gateway and workers."""
    import numpy as np

    from candor.contracts import wire

    message = wire.pack({"kind": "predict"}, {"image": np.zeros((3, 8, 6), np.float32)})

    def decode(content: bytes) -> None:
        for read in (wire.unpack, wire.unpack_list):
            with contextlib.suppress(wire.WireError):
                read(content)

    return decode, (message, wire.pack_list([message, b""]))


def artifacts(folder: Path) -> tuple[Decoder, Sequence[bytes]]:
    """Model folders: odd inputs are the card, even ones the weights that a whole card names."""
    from candor.models.folder import CARD_FILE, WEIGHTS_FILE, ArtifactError, load_model

    model = _tiny_model(folder)
    card, weights = (model / CARD_FILE).read_bytes(), (model / WEIGHTS_FILE).read_bytes()
    digest = hashlib.sha256(weights).hexdigest().encode()
    header = weights[: 8 + int.from_bytes(weights[:8], "little")]

    def decode(content: bytes) -> None:
        if content[:1] == b"{":
            (model / CARD_FILE).write_bytes(content)
            (model / WEIGHTS_FILE).write_bytes(weights)
        else:
            new = hashlib.sha256(content).hexdigest().encode()
            (model / CARD_FILE).write_bytes(card.replace(digest, new))
            (model / WEIGHTS_FILE).write_bytes(content)
        with contextlib.suppress(ArtifactError):
            load_model(model)

    return decode, (card, header[:_MAX_INPUT_BYTES])


def workers(folder: Path) -> tuple[Decoder, Sequence[bytes]]:
    """Items as TorchServe hands them to both handlers: each gets a response, nothing is raised."""
    import numpy as np

    from candor.contracts import wire
    from handlers.predict_handler import PredictHandler
    from handlers.search_handler import SearchHandler
    from tests.handlers.conftest import call, new_context

    context = new_context(_tiny_model(folder))
    handlers = (PredictHandler(), SearchHandler())
    for handler in handlers:
        handler.initialize(context)
    image = np.full((3, 32, 32), 0.5, np.float32)
    predict = wire.pack({"kind": "predict"}, {"image": image})
    meta = {"kind": "search", "goal": "btr", "target": 0, "step_count": 1, "chunk_steps": 1}
    seeds = [wire.pack_list([predict]), wire.pack_list([wire.pack(meta, {"image": image})])]

    def decode(content: bytes) -> None:
        for handler in handlers:
            call(handler, [{"items": content}], context)

    return decode, (*seeds, b"", b"{}")


def _tiny_model(folder: Path) -> Path:
    from candor.models.folder import save_model
    from candor.nets.architectures import NetworkSpec, build_network

    spec = NetworkSpec(
        architecture="cifar-resnet20", class_count=3, mean=(0.5,) * 3, std=(0.2,) * 3
    )
    save_model(
        folder / "tiny",
        name="tiny",
        model_version="1.0",
        description="untrained",
        spec=spec,
        state_dict=build_network(spec).state_dict(),
        input_size=(32, 32),
        classes=("a", "b", "c"),
        recipe={},
    )
    return folder / "tiny"


def run(name: str, count: int, folder: Path) -> dict[str, float]:
    """What a child process says of ``count`` inputs; ``code`` is not 0 where one broke it."""
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "tools.fuzz.decoders", name, str(count), folder],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        print(done.stderr[-3000:], file=sys.stderr)
        return {"tried": 1, "code": done.returncode or 1}
    return {**json.loads(lines[-1]), "code": 0}


def main(name: str, count: int, folder: Path) -> None:
    with atheris.instrument_imports(include=_GUIDED_BY):
        decode, seeds = globals()[name](folder)
    corpus = folder / f"seeds-{name}"
    shutil.rmtree(corpus, ignore_errors=True)
    corpus.mkdir(parents=True)
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)
    process, tried, warm, slowest = psutil.Process(), 0, 0.0, 0.0

    def one(content: bytes) -> None:
        nonlocal tried, warm, slowest
        started = time.perf_counter()
        decode(content)
        slowest = max(slowest, time.perf_counter() - started)
        tried += 1
        if tried == count // 3:
            warm = process.memory_info().rss / 1e6
        if tried >= count:
            grown = process.memory_info().rss / 1e6 - warm
            print(json_text({"tried": tried, "grown": grown, "slowest": slowest}), flush=True)
            os._exit(0)

    options = [
        f"-max_len={_MAX_INPUT_BYTES if name != 'workers' else 4 * _MAX_INPUT_BYTES}",
        f"-timeout={_SECONDS_AN_INPUT}",
        f"-rss_limit_mb={_RSS_LIMIT_MEGABYTES}",
        f"-artifact_prefix={folder}/",
        "-seed=1",
        str(corpus),
    ]
    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))

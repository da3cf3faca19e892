"""`python -m tools.bench.onnx_network`: a network brought as ONNX against the same as it was.

EfficientNet-Lite0 of `tools.bench.lite0` on photographs of CANDOR_DATA/imagenet-samples, exported
by torch for two opsets: difference of the logits, cosine of the gradients, and seconds of search
steps, turn by turn in one run.
"""

import copy
import logging
import statistics
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from candor.contracts.card import Preprocessing
from candor.images.geometry import Size, prepare
from candor.nets.imported import ImportedNetwork
from candor.onnx_import.reader import read_onnx
from candor.runtime.allocator import keep_freed_memory
from candor.search import paper
from candor.search.goals import goal_code
from candor.search.state import begin
from candor.terms import Goal
from tools.bench import lite0
from tools.bench.machine import description
from tools.bench.table import Options, Row, options_of, parser, show
from tools.bench.timing import interleaved, spread

RULE = Preprocessing(
    resize="crop-first",
    crop=lite0.SHARE,
    interpolation="bicubic",
    normalization="candor",
    mean=(lite0.MEAN,) * 3,
    std=(lite0.STD,) * 3,
)
_STEPS = 4
_BATCHES = (1, 8)
_LEAST_SPEED, _LEAST_COSINE, _MOST_DIFFERENCE = 0.9, 0.9999, 1e-3
EXPORTS: dict[int, dict[str, Any]] = {
    17: {"dynamo": False, "dynamic_axes": {"images": [0]}},
    20: {"dynamo": True, "dynamic_shapes": ({0: torch.export.Dim("batch")},)},
}


def measure(options: Options) -> list[Row]:
    """Rows of each opset; see the head of this file."""
    keep_freed_memory()
    bare, paths = lite0.released(), lite0.photographs(options.data_dir)
    images = torch.stack(list(map(_pixels, paths[: options.image_count])))
    native = ImportedNetwork(bare, RULE, "softmax").eval().requires_grad_(False)
    rows = []
    for opset in EXPORTS:
        module = through_onnx(bare, opset)
        network = ImportedNetwork(module, RULE, "softmax").eval().requires_grad_(False)
        rows += _agreement(native, network, images, opset)
        rows += [_speed(native, network, images[:n], opset, options.repeats) for n in _BATCHES]
    return rows


def _pixels(path: Path) -> Tensor:
    """(3, 224, 224) in [0, 1], by the network's own rule."""
    with Image.open(path) as image:
        fitted = prepare(image.convert("RGB"), RULE, Size(lite0.SIZE, lite0.SIZE))
    return torch.from_numpy(np.asarray(fitted).copy()).permute(2, 0, 1).float() / 255


def through_onnx(network: nn.Module, opset: int) -> nn.Module:
    """Exported by torch into a file, and read from it."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "network.onnx"
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, lite0.SIZE, lite0.SIZE),),
            str(path),
            opset_version=opset,
            input_names=["images"],
            verbose=False,
            **EXPORTS[opset],
        )
        return read_onnx(path).module


def _agreement(native: nn.Module, network: nn.Module, images: Tensor, opset: int) -> list[Row]:
    gap, cosines = _compared(native, network, images)
    exact_native = copy.deepcopy(native).double()
    _, exact = _compared(exact_native, copy.deepcopy(network).double(), images)
    # Rounding that moves a value over a bound of ReLU6 turns a gradient, with ONNX and without.
    _, own = _compared(native, exact_native, images)
    return [
        Row(
            measure=f"ONNX opset {opset}, logits", ours=gap, baseline=None, ratio=None,
            unit="largest difference", goal=f"<= {_MOST_DIFFERENCE:g}", n=len(images),
            is_met=gap <= _MOST_DIFFERENCE, detail="EfficientNet-Lite0, photographs",
        ),
        *(
            Row(
                measure=f"ONNX opset {opset}, gradients in {precision}", ours=min(found),
                baseline=beside, ratio=None, unit="least cosine", goal=f">= {_LEAST_COSINE:g}",
                n=len(images), is_met=min(found) >= _LEAST_COSINE,
                detail=f"{min(found):.6f}, median {statistics.median(found):.8f}, "
                f"{sum(one < _LEAST_COSINE for one in found)} below; baseline: the native network "
                "in float32 against itself in float64",
            )
            for precision, found, beside in (
                ("float32", cosines, min(own)), ("float64", exact, None),
            )
        ),
    ]  # fmt: skip


def _compared(native: nn.Module, network: nn.Module, images: Tensor) -> tuple[float, list[float]]:
    """Largest difference of the logits, and each image's cosine of the gradients."""
    gaps, cosines = [], []
    for part in torch.split(images, max(_BATCHES)):
        ours, theirs = (
            _logits_and_slope(one, part.to(next(one.parameters()).dtype))
            for one in (network, native)
        )
        gaps.append(float((ours[0] - theirs[0]).abs().max()))
        slopes = [slope.double().flatten(1) for _, slope in (ours, theirs)]
        cosines += torch.cosine_similarity(slopes[0], slopes[1]).tolist()
    return max(gaps), cosines


def _logits_and_slope(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Logits, and the gradient of the largest one over the pixels."""
    inputs = images.clone().requires_grad_()
    logits = network(inputs)
    (slope,) = torch.autograd.grad(logits.amax(1).sum(), inputs)
    return logits.detach(), slope


def _speed(native: nn.Module, network: nn.Module, images: Tensor, opset: int, repeats: int) -> Row:
    works = [_steps(network, images), _steps(native, images)]
    ours, theirs = (times.wall for times in interleaved(works, repeats))
    ratios = [slow / fast for fast, slow in zip(ours, theirs, strict=True)]
    ratio, count = statistics.median(ratios), _STEPS * len(images)
    return Row(
        measure=f"ONNX opset {opset}, search step, batch {len(images)}",
        ours=1e3 * statistics.median(ours) / count,
        baseline=1e3 * statistics.median(theirs) / count,
        unit="ms/image-step",
        ratio=ratio,
        goal=f">= {_LEAST_SPEED:g} of the native speed",
        is_met=ratio >= _LEAST_SPEED,
        n=repeats,
        detail=f"ratios {spread(ratios)}; eager, {description(images.device)}",
    )


def _steps(network: nn.Module, images: Tensor) -> Callable[[], object]:
    count = len(images)
    state = begin(
        images,
        goals=torch.full((count,), goal_code(Goal.EXPLAIN_FOR)),
        targets=torch.arange(count),
        rhos=torch.full((count,), 0.1, dtype=torch.float64),
        step_counts=torch.full((count,), _STEPS),
        seeds=torch.arange(count),
    )
    return lambda: paper.advance(network, state, _STEPS)


def main() -> None:
    command = parser("python -m tools.bench.onnx_network", __doc__)
    command.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = command.parse_args()
    torch.set_num_threads(arguments.threads)
    show(measure(options_of(arguments)), arguments)


if __name__ == "__main__":
    main()

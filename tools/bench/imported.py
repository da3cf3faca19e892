"""`python -m tools.bench.imported`: a network of another library, served, beside its own code.

EfficientNet-Lite0 of `tools.bench.lite0` on CANDOR_DATA/imagenet-samples: `candor import`,
TorchServe and the gateway on one side, the package's own code with its own preprocessing on the
other.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from candor import terms
from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.messages import Message
from candor.nets.imported import library
from candor.robustness.ara import accuracy_interval
from candor.stack.config import StackConfig, shared_search_workers
from candor.stack.supervisor import Stack
from tools.bench import lite0
from tools.bench.table import Options, Row, options_of, parser, show

_LEAST_SAME, _MOST_DIFFERENCE = 0.99, 1e-3
_SAME_ANSWER = 1e-3
_CROWD = 8
_RHO = 0.01
_STEPS = {"fast": terms.FAST_EXPLAIN_STEPS, "paper": 50}
_SECONDS = 1800.0


@dataclass(frozen=True, slots=True)
class Photograph:
    """A file with the index of its class."""

    path: Path
    label: int

    @property
    def image(self) -> api.ImageInput:
        return api.ImageInput(encoded=self.path.read_bytes())


def measure(options: Options) -> list[Row]:
    """Rows of the import, of the answers and of their times."""
    paths = lite0.photographs(options.data_dir)[: options.image_count]
    photographs = [Photograph(path, int(path.name[:3])) for path in paths]
    with tempfile.TemporaryDirectory() as folder:
        _import(Path(folder), photographs)
        config = StackConfig(
            models_dir=Path(folder) / "models",
            archives_dir=Path(folder) / "archives",
            search_workers=shared_search_workers(),
            ready_timeout_seconds=_SECONDS,
        )
        with (
            Stack(config) as stack,
            CandorClient(stack.grpc_address, timeout_seconds=_SECONDS) as client,
        ):
            bench = _Bench(stack, client, photographs, options.repeats)
            return [*bench.predictions(), *bench.both_protocols(), *bench.times()]


def _import(folder: Path, photographs: Sequence[Photograph]) -> None:
    """`candor import`, accepted on the photographs, into ``models`` of ``folder``."""
    names = library("torchvision").models.EfficientNet_B0_Weights.IMAGENET1K_V1.meta["categories"]
    (folder / "names.txt").write_text("\n".join(names))
    for one in photographs:
        (folder / "data" / str(one.label)).mkdir(parents=True, exist_ok=True)
        (folder / "data" / str(one.label) / one.path.name).symlink_to(one.path.resolve())
    architecture = f"timm/tf_{lite0.NAME.replace('-', '_')}"
    arguments = [
        *("import", str(lite0.weights_file()), "--architecture", architecture, "--match-by-order"),
        *("--input-size", f"3x{lite0.SIZE}x{lite0.SIZE}", "--resize", "crop-first"),
        *("--crop", str(lite0.SHARE), "--interpolation", "bicubic"),
        *("--mean", str(lite0.MEAN)) * 3,
        *("--std", str(lite0.STD)) * 3,
        *("--classes", str(folder / "names.txt"), "--data-dir", str(folder / "data")),
        *("--out", str(folder / "models" / lite0.NAME)),
    ]
    program = "from candor.cli.main import main; main()"
    subprocess.run([sys.executable, "-c", program, *arguments], check=True)


class _Bench:
    """The running service, and the answers of the package's own code."""

    def __init__(
        self,
        stack: Stack,
        client: CandorClient,
        photographs: Sequence[Photograph],
        repeats: int,
    ) -> None:
        self._stack = stack
        self._client = client
        self._photographs = photographs
        self._repeats = repeats

    def predictions(self) -> list[Row]:
        """The same class, logits and accuracy."""
        theirs = own_logits(self._photographs)
        ours = np.stack([self._logits(one.image) for one in self._photographs])
        labels = np.array([one.label for one in self._photographs])
        same = float((ours.argmax(1) == theirs.argmax(1)).mean())
        gap = float(np.abs(ours - _centred(theirs)).max())
        served, own = (
            accuracy_interval(int((one.argmax(1) == labels).sum()), len(labels))
            for one in (ours, theirs)
        )
        count, shown = len(labels), f"[{served.low:.1%}, {served.high:.1%}]"
        return [
            _row("the same class as its own code", same, "share", count, same >= _LEAST_SAME,
                 f">= {_LEAST_SAME:.0%}", "its own preprocessing, TorchServe, gRPC"),
            _row("logits", gap, "largest difference", count, gap <= _MOST_DIFFERENCE,
                 f"<= {_MOST_DIFFERENCE:g}", "up to a constant, which confidences do not have"),
            _row("accuracy", served.value, "share", count, True, "shown", f"95 % {shown}",
                 baseline=own.value),
        ]  # fmt: skip

    def both_protocols(self) -> list[Row]:
        """Explain, probe and compare through gRPC and through REST."""
        image = self._photographs[0].image
        target = api.ClassRef(index=self._photographs[1].label)
        fields: dict[str, Any] = {"image": image, "solver": "fast", "no_cache": True}
        explain = api.ExplainRequest(targets=(target,), rhos=(_RHO,), **fields)
        probe = api.ProbeRequest(**fields)
        compare = api.CompareRequest(target=target, rho=_RHO, **fields)
        gaps = {
            "explain": _gap(self._client.explain(explain), self._posted("explain", explain)),
            "probe": _gap(self._client.probe(probe), self._posted("probe", probe)),
            "compare": _gap(self._client.compare(compare), self._posted("compare", compare)),
        }
        return [
            _row(f"{verb} through gRPC and REST", gap, "largest difference", 1,
                 gap <= _SAME_ANSWER, f"<= {_SAME_ANSWER:g}", "of every number in the answer")
            for verb, gap in gaps.items()
        ]  # fmt: skip

    def times(self) -> list[Row]:
        """Seconds for one explanation, alone and eight at once."""
        self._explain(0, "fast", _STEPS["fast"])
        rows = []
        for solver, steps in _STEPS.items():
            one, all_of_them = (
                [_timed(work) for _ in range(self._repeats)]
                for work in (self._alone(solver, steps), self._crowd(solver, steps))
            )
            for what, seconds in (("alone", one), (f"{_CROWD} at once", all_of_them)):
                median = statistics.median(seconds)
                rows.append(
                    _row(f"explanation, {solver}, {steps} steps, {what}", median, "s",
                         self._repeats, True, "shown", f"{min(seconds):.3g} to {max(seconds):.3g}")
                )  # fmt: skip
        return rows

    def _alone(self, solver: str, steps: int) -> Callable[[], object]:
        return lambda: self._explain(0, solver, steps)

    def _crowd(self, solver: str, steps: int) -> Callable[[], object]:
        def run() -> None:
            with ThreadPoolExecutor(_CROWD) as threads:
                list(threads.map(lambda place: self._explain(place, solver, steps), range(_CROWD)))

        return run

    def _explain(self, place: int, solver: str, steps: int) -> api.ExplainResponse:
        target = api.ClassRef(index=self._photographs[place + 1].label)
        request = api.ExplainRequest(
            image=self._photographs[place].image,
            targets=(target,),
            rhos=(_RHO,),
            solver=solver,
            steps=steps,
            no_cache=True,
        )
        return self._client.explain(request)

    def _logits(self, image: api.ImageInput) -> NDArray[np.float64]:
        """(V,), centred."""
        answer = self._client.predict(api.PredictRequest(image=image, top_k=1000))
        found = np.zeros(len(answer.predictions))
        for one in answer.predictions:
            found[one.index] = np.log(one.confidence)
        logits: NDArray[np.float64] = _centred(found[None])[0]
        return logits

    def _posted(self, verb: str, request: Message) -> Message:
        body = request.model_dump(mode="json", exclude_none=True)
        url = f"{self._stack.rest_url}/v1/{verb}"
        response = httpx.post(url, json=body, timeout=_SECONDS, trust_env=False)
        response.raise_for_status()
        kinds: dict[str, type[Message]] = {
            "explain": api.ExplainResponse,
            "probe": api.ProbeResponse,
            "compare": api.CompareResponse,
        }
        return kinds[verb].model_validate(response.json())


@torch.no_grad()
def own_logits(photographs: Sequence[Photograph]) -> NDArray[np.float64]:
    """(N, V) of the package's network, preprocessed as it was trained: with torchvision."""
    transforms = library("torchvision").transforms
    bicubic = transforms.InterpolationMode.BICUBIC
    finish = transforms.Compose(
        [
            transforms.Resize((lite0.SIZE, lite0.SIZE), interpolation=bicubic),
            transforms.ToTensor(),
            transforms.Normalize((lite0.MEAN,) * 3, (lite0.STD,) * 3),
        ]
    )
    network = lite0.released()
    found = []
    for one in photographs:
        with Image.open(one.path) as image:
            square = transforms.CenterCrop(int(lite0.SHARE * min(image.size)))(image.convert("RGB"))
        found.append(network(finish(square)[None])[0].double().numpy())
    return np.asarray(np.stack(found))


def _centred(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(logits - logits.mean(1, keepdims=True))


def _gap(first: Any, second: Any) -> float:
    """The largest difference of two answers' numbers, maps included; infinite for other texts."""
    if isinstance(first, Message):
        names = sorted(set(type(first).model_fields) - {"request_id", "from_cache"})
        return max(_gap(getattr(first, name), getattr(second, name)) for name in names)
    if isinstance(first, api.SaliencyMap | bytes):
        return 0.0  # pictures and maps of the numbers beside them
    if isinstance(first, tuple):
        pairs = zip(first, second, strict=True)
        return max((_gap(one, other) for one, other in pairs), default=0.0)
    if isinstance(first, float):
        return abs(first - float(second))
    return 0.0 if first == second else float("inf")


def _row(
    what: str,
    ours: float,
    unit: str,
    n: int,
    is_met: bool,
    goal: str,
    detail: str,
    baseline: float | None = None,
) -> Row:
    return Row(
        measure=f"8 imported: {what}",
        ours=ours,
        baseline=baseline,
        unit=unit,
        ratio=None,
        goal=goal,
        is_met=is_met,
        n=n,
        detail=detail,
    )


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    command = parser("python -m tools.bench.imported", __doc__)
    command.set_defaults(images=500)
    arguments = command.parse_args()
    show(measure(options_of(arguments)), arguments)


if __name__ == "__main__":
    main()

"""The commands `predict`, `explain`, `probe` and `compare`, against a service or a model folder."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from pydantic import BaseModel, ValidationError
from rich.table import Table

from candor import terms
from candor.cli.output import AsJson, clear_errors, console, print_json
from candor.contracts import api, limits
from candor.contracts.errors import FieldViolation, invalid_input

if TYPE_CHECKING:
    from candor.client.sync import CandorClient
    from candor.stack.in_process import LocalClient

Image = Annotated[Path, typer.Argument(help="PNG, JPEG or WebP.")]
ModelDir = Annotated[
    Path | None, typer.Option("--model", help="Model folder to use in this process, no service.")
]
Address = Annotated[
    str, typer.Option(help="gRPC door of a running service; CANDOR_KEY and CANDOR_CA are heeded.")
]
ModelName = Annotated[
    str,
    typer.Option("--name", help="Model of the service, NAME or NAME@VERSION; default its first."),
]
TopK = Annotated[int, typer.Option(help="Classes to list.")]
Steps = Annotated[
    int | None, typer.Option(help=f"Search steps, [1, {limits.MAX_STEPS}]; default the solver's.")
]
Solver = Annotated[str, typer.Option(help=f"One of {terms.SOLVERS}.")]
Seed = Annotated[int, typer.Option(help="Same request, same seed, same answer.")]
OutDir = Annotated[Path | None, typer.Option("--out", help="Folder for the images.")]

RequestT = TypeVar("RequestT", bound=BaseModel)

DEFAULT_ADDRESS = "127.0.0.1:8500"


def predict(
    image: Image,
    model: Annotated[
        Path | None,
        typer.Option(help="Model folder, or ONNX file, to use in this process, no service."),
    ] = None,
    runtime: Annotated[
        str | None, typer.Option(help="With --model: torch, or onnx (default of an ONNX file).")
    ] = None,
    address: Address = DEFAULT_ADDRESS,
    name: ModelName = "",
    top_k: TopK = limits.DEFAULT_TOP_K,
    as_json: AsJson = False,
) -> None:
    """What is this image?"""
    with clear_errors("predict"):
        if runtime is not None and model is None:
            raise ValueError(f"runtime: got {runtime!r}, allowed with --model only")
        values = {"model": name, "image": _image(image), "top_k": top_k}
        with _client(model, address, runtime) as client:
            answer = client.predict(as_request(api.PredictRequest, values))
        if as_json:
            print_json(answer.model_dump(mode="json"))
        else:
            _show_classes(f"{answer.model.name} on {image}", answer.predictions)


def explain(
    image: Image,
    target: Annotated[list[str], typer.Option(help="Class name or index; may be repeated.")],
    rho: Annotated[
        list[float] | None, typer.Option(help="RMSE to change by, (0, 1]; may be repeated.")
    ] = None,
    against: Annotated[
        bool, typer.Option("--against", help="Less of the class instead of more.")
    ] = False,
    model: ModelDir = None,
    address: Address = DEFAULT_ADDRESS,
    name: ModelName = "",
    steps: Steps = None,
    solver: Solver = terms.DEFAULT_SOLVER,
    seed: Seed = 0,
    top_k: TopK = limits.DEFAULT_TOP_K,
    out: OutDir = None,
    as_json: AsJson = False,
) -> None:
    """Show the image changed by RMSE rho so that the network says the target."""
    with clear_errors("explain"):
        values = {
            "model": name,
            "image": _image(image),
            "targets": [_class_ref(text) for text in target],
            "rhos": rho or [],
            "direction": api.Direction.AGAINST if against else api.Direction.FOR,
            **({} if steps is None else {"steps": steps}),
            "solver": solver,
            "seed": seed,
            "top_k": top_k,
        }
        with _client(model, address) as client:
            answer = client.explain(as_request(api.ExplainRequest, values))
        if out is not None:
            _save_explanations(out, answer)
        if as_json:
            print_json(answer.model_dump(mode="json"))
        else:
            _show_explanations(image, answer)


def probe(
    image: Image,
    label: Annotated[
        str | None, typer.Option(help="True class, name or index; default what is predicted.")
    ] = None,
    model: ModelDir = None,
    address: Address = DEFAULT_ADDRESS,
    name: ModelName = "",
    steps: Steps = None,
    solver: Solver = terms.DEFAULT_SOLVER,
    seed: Seed = 0,
    top_k: TopK = limits.DEFAULT_TOP_K,
    out: OutDir = None,
    as_json: AsJson = False,
) -> None:
    """How little must the image change before the network errs (attack, BTR)?"""
    with clear_errors("probe"):
        values = {
            "model": name,
            "image": _image(image),
            "label": None if label is None else _class_ref(label),
            **({} if steps is None else {"steps": steps}),
            "solver": solver,
            "seed": seed,
            "top_k": top_k,
        }
        with _client(model, address) as client:
            answer = client.probe(as_request(api.ProbeRequest, values))
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            for result in answer.results:
                if result.image_png:
                    (out / f"{result.goal}.png").write_bytes(result.image_png)
        if as_json:
            print_json(answer.model_dump(mode="json"))
        else:
            _show_probe(image, answer)


def compare(
    image: Image,
    target: Annotated[
        str | None, typer.Option(help="Class name or index; default what is predicted.")
    ] = None,
    rho: Annotated[
        float | None, typer.Option(help="RMSE of the adversarial explanation; default the model's.")
    ] = None,
    model: ModelDir = None,
    address: Address = DEFAULT_ADDRESS,
    name: ModelName = "",
    steps: Steps = None,
    solver: Solver = terms.DEFAULT_SOLVER,
    seed: Seed = 0,
    out: OutDir = None,
    as_json: AsJson = False,
) -> None:
    """Hold other explanations against the adversarial one, and all of them against a change."""
    with clear_errors("compare"):
        values = {
            "model": name,
            "image": _image(image),
            "target": None if target is None else _class_ref(target),
            "rho": rho,
            **({} if steps is None else {"steps": steps}),
            "solver": solver,
            "seed": seed,
        }
        with _client(model, address) as client:
            answer = client.compare(as_request(api.CompareRequest, values))
        if out is not None:
            _save_comparison(out, answer)
        if as_json:
            print_json(answer.model_dump(mode="json"))
        else:
            _show_comparison(image, answer)


def _client(
    model: Path | None, address: str, runtime: str | None = "torch"
) -> "CandorClient | LocalClient":
    if model is None:
        return service_client(address)
    from candor.stack.in_process import open_local

    return open_local(model, runtime)


def service_client(address: str) -> "CandorClient":
    """Of a running service, with the key and the authorities of the environment."""
    from candor.client.connection import Tls
    from candor.client.sync import CandorClient

    authorities = os.environ.get("CANDOR_CA")
    return CandorClient(address, tls=Tls(ca=Path(authorities)) if authorities else None)


def as_request(kind: type[RequestT], values: dict[str, object]) -> RequestT:
    """Raises: ServiceError: INVALID_INPUT, with every bad field."""
    try:
        return kind.model_validate(values)
    except ValidationError as err:
        raise invalid_input(
            [
                FieldViolation(
                    ".".join(map(str, item["loc"])), f"got {item['input']!r}: {item['msg']}"
                )
                for item in err.errors()
            ]
        ) from err


def _image(image: Path) -> dict[str, bytes]:
    return {"encoded": image.read_bytes()}


def _class_ref(text: str) -> dict[str, int | str]:
    return {"index": int(text)} if text.isdigit() else {"name": text}


def _save_explanations(out: Path, answer: api.ExplainResponse) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "input.png").write_bytes(answer.input_png)
    for explanation in answer.explanations:
        # Class names may hold anything; file names may not.
        target = re.sub(r"[^\w-]", "_", explanation.target.name)
        name = f"explanation_{explanation.direction}_{target}_{explanation.rho:g}.png"
        (out / name).write_bytes(explanation.image_png)


def _save_comparison(out: Path, answer: api.CompareResponse) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / "input.png").write_bytes(answer.input_png)
    (out / "perturbed.png").write_bytes(answer.perturbation.image_png)
    (out / "explanation.png").write_bytes(answer.explanation.image_png)
    for item in answer.methods:
        (out / f"saliency_{item.method}.png").write_bytes(item.overlay_png)
        (out / f"saliency_{item.method}_perturbed.png").write_bytes(item.perturbed_overlay_png)


def _show_classes(title: str, classes: Sequence[api.ClassConfidence]) -> None:
    table = Table(title=title)
    table.add_column("class")
    table.add_column("confidence", justify="right")
    for entry in classes:
        table.add_row(entry.name, f"{entry.confidence:.4f}")
    console().print(table)


def _show_explanations(image: Path, answer: api.ExplainResponse) -> None:
    table = Table(title=f"{answer.model.name} on {image}")
    for heading in ("target", "rho", "RMSE", "before", "after", "says now", "status", "steps"):
        table.add_column(heading)
    for item in answer.explanations:
        table.add_row(
            f"{'more' if item.direction is api.Direction.FOR else 'less'} {item.target.name}",
            f"{item.rho:g}",
            f"{item.rmse:.5f}",
            f"{item.confidence_before:.4f}",
            f"{item.confidence_after:.4f}",
            f"{item.predicted_after.name} {item.predicted_after.confidence:.3f}",
            item.status,
            str(item.steps),
        )
    console().print(table)


def _show_probe(image: Path, answer: api.ProbeResponse) -> None:
    table = Table(title=f"{answer.model.name} on {image}, label {answer.label.name}")
    for heading in ("goal", "status", "radius (RMSE)", "falls to", "label then", "steps"):
        table.add_column(heading)
    for item in answer.results:
        radius = f"> {item.lower_bound:.5f}" if item.radius is None else f"{item.radius:.5f}"
        table.add_row(
            item.goal,
            item.status,
            radius,
            f"{item.falls_to.name} {item.falls_to.confidence:.3f}",
            f"{item.label_confidence_after:.4f}",
            str(item.steps),
        )
    console().print(table)


def _show_comparison(image: Path, answer: api.CompareResponse) -> None:
    target, moved = answer.explanation.target.name, answer.perturbation
    table = Table(
        title=f"{answer.model.name} on {image}, target {target}",
        caption=f"perturbed by RMSE {moved.rmse:.4f}: {target} "
        f"{moved.confidence_before:.1%} -> {moved.confidence_after:.1%}",
    )
    share = f"AE's energy in the top {answer.top_share:.0%}"
    for heading in ("method", share, "rank correlation", "cosine"):
        table.add_column(heading)
    for item in answer.methods:
        table.add_row(
            item.method,
            f"{item.energy_share:.1%}",
            f"{item.rank_correlation:.3f}",
            f"{item.cosine:.3f}",
        )
    console().print(table)

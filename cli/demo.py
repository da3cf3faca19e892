"""The command `candor demo`.  May import cli siblings, candor.contracts and gateway.client."""

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer
from PIL import Image
from rich.console import Console
from rich.table import Table

from candor.contracts import api
from candor.contracts.errors import ServiceError
from cli.archives import MODELS_DIR, ArchiveError
from cli.output import AsJson, print_json
from cli.pictures import Difference, Panel, difference, difference_sheet, scale_notes, sheet
from cli.stack import Stack, StackConfig, StackError
from gateway.client import CandorClient

_PHOTO = ("data", "chelsea.png")  # scikit-image's photograph of a cat, 451x300, CC0
_PHOTO_SHOWS = "cat"
_STEPS = 200  # reaches rho 0.1 and a little more; a newcomer should not wait for all 450


@dataclass(frozen=True, slots=True)
class Answer:
    """An explanation ready to be shown."""

    explanation: api.Explanation
    picture: Image.Image
    difference: Difference

    @property
    def name(self) -> str:
        return self.explanation.target.name

    @property
    def file_name(self) -> str:
        return re.sub(r"[^\w-]+", "_", self.name)


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("out/demo"),
    target: Annotated[
        str | None, typer.Option(help="Class to ask for; default what the photograph shows.")
    ] = None,
    models_dir: Annotated[Path, typer.Option(help="Folder of model folders.")] = MODELS_DIR,
    default_model: Annotated[
        str | None, typer.Option("--model", help="Default: the first of the store.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Start the service, explain a photograph of a cat, write the pictures and stop."""
    console = Console(stderr=as_json)
    config = StackConfig(models_dir=models_dir, default_model=default_model)
    console.print("Starting the service, takes some seconds ...")
    try:
        with Stack(config) as stack:
            console.print("Explaining the photograph ...")
            response = _ask(stack.grpc_address, files("skimage").joinpath(*_PHOTO), target)
    except (StackError, ArchiveError, ServiceError) as err:
        Console(stderr=True).print(f"candor demo: {err}", style="red", markup=False)
        raise typer.Exit(1) from err
    before = _opened(response.input_png)
    answers = [_answer(explanation, before) for explanation in response.explanations]
    _write(out, response, before, answers)
    _show(console, response, answers)
    if as_json:
        print_json(_record(response, answers))
    console.print(f"Look at {out / 'composite.png'}; everything else is beside it.")


def _ask(address: str, photo: Any, target: str | None) -> api.ExplainResponse:
    """Why the most likely class, and what would make it another."""
    image = api.ImageInput(encoded=photo.read_bytes())
    with CandorClient(address) as client:
        likely = client.predict(api.PredictRequest(image=image, top_k=2)).predictions
        wanted = target or (_PHOTO_SHOWS if _PHOTO_SHOWS in client.get_model().classes else None)
        if wanted in (None, likely[0].name):
            wanted = likely[1].name
        targets = (api.ClassRef(name=likely[0].name), api.ClassRef(name=wanted))
        return client.explain(api.ExplainRequest(image=image, targets=targets, steps=_STEPS))


def _answer(explanation: api.Explanation, before: Image.Image) -> Answer:
    picture = _opened(explanation.image_png)
    return Answer(explanation, picture, difference(before, picture))


def _opened(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(encoded)).convert("RGB")


def _write(
    out: Path, response: api.ExplainResponse, before: Image.Image, answers: Sequence[Answer]
) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for kind in ("explanation", "difference"):  # of an earlier run, perhaps of other classes
        for stale in out.glob(f"{kind}_*.png"):
            stale.unlink()
    (out / "input.png").write_bytes(response.input_png)
    for answer in answers:
        (out / f"explanation_{answer.file_name}.png").write_bytes(answer.explanation.image_png)
        title = f"Change towards {answer.name}"
        difference_sheet(title, answer.difference).save(out / f"difference_{answer.file_name}.png")
    _composite(response, before, answers).save(out / "composite.png")
    (out / "response.json").write_text(json.dumps(_record(response, answers), indent=2) + "\n")


def _composite(
    response: api.ExplainResponse, before: Image.Image, answers: Sequence[Answer]
) -> Image.Image:
    likely = response.predictions_before
    said = tuple(f"{item.name} {item.confidence:.1%}" for item in likely[:2])
    titles = (f"Why {answers[0].name}?", f"What would make it {answers[1].name}?")
    pictures = zip(titles, answers, strict=True)
    changes = [
        Panel(f"Change towards {item.name}", item.difference.picture, scale_notes(item.difference))
        for item in answers
    ]
    return sheet(
        [
            [Panel("Input, as the model sees it", before, said)]
            + [Panel(title, item.picture, _notes(item.explanation)) for title, item in pictures],
            [None, *changes],
        ]
    )


def _notes(explanation: api.Explanation) -> tuple[str, str]:
    target = explanation.target.name
    before, after = explanation.confidence_before, explanation.confidence_after
    said = explanation.predicted_after
    return (
        f"{target} {before:.1%} -> {after:.1%}, RMSE {explanation.rmse:.3f}",
        f"the model now says {said.name} {said.confidence:.1%}",
    )


def _record(response: api.ExplainResponse, answers: Sequence[Answer]) -> dict[str, Any]:
    return {
        "model": response.model.name,
        "request_id": response.request_id,
        "explanations": [_explanation_record(response, answer) for answer in answers],
    }


def _explanation_record(response: api.ExplainResponse, answer: Answer) -> dict[str, Any]:
    explanation = answer.explanation
    plain = ("rho", "rmse", "confidence_before", "confidence_after", "steps", "solver")
    return {
        "target": answer.name,
        **{name: getattr(explanation, name) for name in plain},
        "predicted_before": explanation.predicted_before.name,
        "predicted_after": explanation.predicted_after.name,
        "status": explanation.status.value,
        "difference_scale": answer.difference.scale,
        "model_version": response.model.version,
        "weights_digest": response.model.weights_digest,
    }


def _show(console: Console, response: api.ExplainResponse, answers: Sequence[Answer]) -> None:
    likely = ", ".join(f"{p.name} {p.confidence:.1%}" for p in response.predictions_before[:3])
    console.print(f"{response.model.name} {response.model.version} sees: {likely}")
    table = Table("towards", "confidence", "the model then says", "RMSE", "largest change", "steps")
    for answer in answers:
        found = answer.explanation
        table.add_row(
            answer.name,
            f"{found.confidence_before:.1%} -> {found.confidence_after:.1%}",
            f"{found.predicted_after.name} {found.predicted_after.confidence:.1%}",
            f"{found.rmse:.4f} of {found.rho:g}",
            f"{answer.difference.scale:.3f}",
            f"{found.steps} ({found.solver}, {found.status.value})",
        )
    console.print(table)

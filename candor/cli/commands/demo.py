"""The command `candor demo`."""

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

from candor.cli.output import AsJson, print_json
from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.errors import ServiceError
from candor.contracts.names import split_name
from candor.stack.archives import DEFAULT_MODEL, MODELS_DIR, PLAIN_MODEL
from candor.stack.config import StackConfig
from candor.stack.errors import ArchiveError, StackError
from candor.stack.supervisor import Stack
from candor.viz.images import Difference, Panel, difference, difference_sheet, scale_notes, sheet

_PHOTO = ("data", "chelsea.png")  # scikit-image's photograph of a cat, 451x300, CC0
_PHOTO_SHOWS = "cat"
_STEPS = 200  # reaches rho 0.1 and a little more; a newcomer should not wait for all 450


@dataclass(frozen=True, slots=True)
class Answer:
    """An explanation ready to be shown."""

    explanation: api.Explanation
    image: Image.Image
    difference: Difference

    @property
    def name(self) -> str:
        return self.explanation.target.name

    @property
    def file_name(self) -> str:
        return re.sub(r"[^\w-]+", "_", self.name)


@dataclass(frozen=True, slots=True)
class View:
    """What one model says of the photograph.

    Attributes:
        before: the photograph as the model sees it.
        answers: one a target, the same targets and rho for every model.
        attack: how little must change before the model says something else.
    """

    response: api.ExplainResponse
    before: Image.Image
    answers: tuple[Answer, ...]
    attack: api.ProbeResult

    @property
    def model(self) -> str:
        return self.response.model.name

    @property
    def radius(self) -> str:
        """RMSE of the attack; a lower bound where it did not succeed."""
        if self.attack.radius is None:
            return f"> {self.attack.lower_bound or 0.0:.4f}"
        return f"{self.attack.radius:.4f}"


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the images.")] = Path("out/demo"),
    target: Annotated[
        str | None, typer.Option(help="Class to ask for; default what the photograph shows.")
    ] = None,
    models_dir: Annotated[Path, typer.Option(help="Folder of model folders.")] = MODELS_DIR,
    default_model: Annotated[
        str | None, typer.Option("--model", help=f"Default: {DEFAULT_MODEL}, or the store's first.")
    ] = None,
    plain_model: Annotated[
        str, typer.Option("--plain", help="What it is compared with, where the store has it.")
    ] = PLAIN_MODEL,
    as_json: AsJson = False,
) -> None:
    """Start the service, explain a photograph of a cat, write the images and stop."""
    console = Console(stderr=as_json)
    config = StackConfig(
        models_dir=models_dir,
        default_model=default_model,
        models=(default_model or DEFAULT_MODEL, plain_model),
    )
    console.print("Starting the service, takes some seconds ...")
    try:
        with Stack(config) as stack:
            compared = _compared(stack.models, plain_model)
            console.print(f"Explaining the photograph with {' and '.join(compared)} ...")
            photo = files("skimage").joinpath(*_PHOTO).read_bytes()
            with CandorClient(stack.grpc_address) as client:
                views = _ask(client, api.ImageInput(encoded=photo), compared, target)
    except (StackError, ArchiveError, ServiceError) as err:
        Console(stderr=True).print(f"candor demo: {err}", style="red", markup=False)
        raise typer.Exit(1) from err
    _write(out, views)
    _show(console, views)
    if as_json:
        print_json([_record(view) for view in views])
    console.print(f"Look at {out / 'composite.png'}; everything else is beside it.")


def _compared(served: Sequence[str], plain: str) -> list[str]:
    """The first model served, and the plain one where it is another and there."""
    others = {split_name(name)[0] for name in served} - {split_name(served[0])[0]}
    return [served[0], *([plain] if plain in others else [])]


def _ask(
    client: CandorClient, image: api.ImageInput, models: Sequence[str], target: str | None
) -> list[View]:
    """Every model the same: why what the first one says, and what would make it another."""
    details = client.get_model(models[0])
    likely = client.predict(api.PredictRequest(model=models[0], image=image, top_k=2)).predictions
    wanted = target or (_PHOTO_SHOWS if _PHOTO_SHOWS in details.classes else None)
    if wanted in (None, likely[0].name):
        wanted = likely[1].name
    targets = (api.ClassRef(name=likely[0].name), api.ClassRef(name=wanted))
    return [_view(client, image, name, targets, details.recommended_rho) for name in models]


def _view(
    client: CandorClient,
    image: api.ImageInput,
    model: str,
    targets: tuple[api.ClassRef, ...],
    rho: float,
) -> View:
    response = client.explain(
        api.ExplainRequest(model=model, image=image, targets=targets, rhos=(rho,), steps=_STEPS)
    )
    (attack,) = client.probe(
        api.ProbeRequest(model=model, image=image, goals=(api.ProbeGoal.ATTACK,), steps=_STEPS)
    ).results
    before = _opened(response.input_png)
    answers = tuple(_answer(explanation, before) for explanation in response.explanations)
    return View(response, before, answers, attack)


def _answer(explanation: api.Explanation, before: Image.Image) -> Answer:
    picture = _opened(explanation.image_png)
    return Answer(explanation, picture, difference(before, picture))


def _opened(encoded: bytes) -> Image.Image:
    return Image.open(io.BytesIO(encoded)).convert("RGB")


def _write(out: Path, views: Sequence[View]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for kind in ("input", "explanation", "difference"):  # of an earlier run, perhaps of others
        for stale in out.glob(f"{kind}_*.png"):
            stale.unlink()
    for view in views:
        (out / f"input_{view.model}.png").write_bytes(view.response.input_png)
        for answer in view.answers:
            name = f"{view.model}_{answer.file_name}.png"
            (out / f"explanation_{name}").write_bytes(answer.explanation.image_png)
            title = f"Change towards {answer.name}"
            difference_sheet(title, answer.difference).save(out / f"difference_{name}")
    sheet([_panels(view) for view in views]).save(out / "composite.png")
    records = [_record(view) for view in views]
    (out / "response.json").write_text(json.dumps(records, indent=2) + "\n")


def _panels(view: View) -> list[Panel]:
    """One row of the image: what the model sees, then each explanation and its change."""
    likely = view.response.predictions_before[0]
    said = f"says {likely.name} {likely.confidence:.1%}"
    falls = f"until RMSE {view.radius}: {view.attack.falls_to.name}"
    panels = [Panel(view.model, view.before, (said, falls))]
    for answer in view.answers:
        asked = "Why" if answer.name == likely.name else "What would make it"
        change = answer.difference
        panels += [
            Panel(f"{asked} {answer.name}?", answer.image, _notes(answer.explanation)),
            Panel(f"Change towards {answer.name}", change.image, scale_notes(change)),
        ]
    return panels


def _notes(explanation: api.Explanation) -> tuple[str, str]:
    target = explanation.target.name
    before, after = explanation.confidence_before, explanation.confidence_after
    said = explanation.predicted_after
    return (
        f"{target} {before:.1%} -> {after:.1%}, RMSE {explanation.rmse:.3f}",
        f"the model now says {said.name} {said.confidence:.1%}",
    )


def _record(view: View) -> dict[str, Any]:
    return {
        "model": view.response.model.model_dump(),
        "request_id": view.response.request_id,
        "explanations": [_explanation_record(answer) for answer in view.answers],
        "attack": view.attack.model_dump(mode="json", exclude={"image_png"}),
    }


def _explanation_record(answer: Answer) -> dict[str, Any]:
    explanation = answer.explanation
    plain = ("rho", "rmse", "confidence_before", "confidence_after", "steps", "solver")
    return {
        "target": answer.name,
        **{name: getattr(explanation, name) for name in plain},
        "predicted_before": explanation.predicted_before.name,
        "predicted_after": explanation.predicted_after.name,
        "status": explanation.status.value,
        "difference_scale": answer.difference.scale,
    }


def _show(console: Console, views: Sequence[View]) -> None:
    table = Table("model", "says", "falls at RMSE", "towards", "confidence", "RMSE", "then says")
    for view in views:
        likely = view.response.predictions_before[0]
        first = (view.model, f"{likely.name} {likely.confidence:.1%}", view.radius)
        for answer in view.answers:
            found = answer.explanation
            table.add_row(
                *first,
                answer.name,
                f"{found.confidence_before:.1%} -> {found.confidence_after:.1%}",
                f"{found.rmse:.4f} of {found.rho:g}",
                f"{found.predicted_after.name} {found.predicted_after.confidence:.1%}",
            )
            first = ("", "", "")
    console.print(table)

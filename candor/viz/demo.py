"""The demo: a photograph explained by two models of a running service, as images."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from PIL import Image

from candor.client.sync import CandorClient
from candor.contracts import api
from candor.contracts.json_text import json_text
from candor.contracts.names import file_part, normalised, split_name
from candor.files.writing import write_files
from candor.images.photographs import Photograph, square
from candor.viz.images import (
    Difference,
    Panel,
    difference,
    difference_sheet,
    opened,
    scale_notes,
    sheet,
)


class ExplainingClient(Protocol):
    """What a view needs of a client: of a service, or of a model in this process."""

    def explain(self, request: api.ExplainRequest) -> api.ExplainResponse: ...

    def probe(self, request: api.ProbeRequest) -> api.ProbeResponse: ...


@dataclass(frozen=True, slots=True)
class ShownChange:
    """An explanation with its image and the difference to the input."""

    explanation: api.Explanation
    image: Image.Image
    difference: Difference

    @property
    def name(self) -> str:
        return self.explanation.target.name

    @property
    def file_name(self) -> str:
        return file_part(self.name)


@dataclass(frozen=True, slots=True)
class View:
    """The predictions and explanations of one model for the photograph.

    Attributes:
        before: the photograph as the model sees it.
        changes: one a target, the same targets and rho for every model.
        attack: the least change that makes the model predict another class.
    """

    response: api.ExplainResponse
    before: Image.Image
    changes: tuple[ShownChange, ...]
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


def compared_models(models: Sequence[str], plain: str) -> list[str]:
    """The default model, and the plain one where it is another model that is served."""
    others = {split_name(name)[0] for name in models} - {split_name(models[0])[0]}
    return [models[0], *([plain] if plain in others else [])]


def explained_views(
    client: CandorClient, photograph: Photograph, models: Sequence[str], target: str | None
) -> list[View]:
    """Every model with the same two targets: what the first one predicts, and another class.

    Args:
        models: by the name they are served under, the first decides the targets.
        photograph: one that is installed.
        target: the other class; None for what the photograph shows, or the second likely class.
    Raises:
        ServiceError: the service does not know a model or the target, or cannot answer.
    """
    image = api.ImageInput(encoded=square(photograph))
    details = client.get_model(models[0])
    likely = client.predict(api.PredictRequest(model=models[0], image=image, top_k=2)).predictions
    wanted = target or (photograph.name if photograph.name in details.classes else None)
    is_first = wanted is None or normalised(wanted) == likely[0].name
    other = api.ClassRef(index=likely[1].index) if is_first else api.ClassRef(name=wanted)
    # By index: two classes may share a name.
    targets = (api.ClassRef(index=likely[0].index), other)
    rho = details.recommended_rho
    return [view_of(client, image, name, targets, rho) for name in models]


def view_of(
    client: ExplainingClient,
    image: api.ImageInput,
    model: str,
    targets: tuple[api.ClassRef, ...],
    rho: float,
) -> View:
    """What one model says of an image and of ``targets``, at RMSE ``rho``.

    Raises:
        ServiceError: the model does not know a target, or cannot answer.
    """
    response = client.explain(
        api.ExplainRequest(model=model, image=image, targets=targets, rhos=(rho,))
    )
    (attack,) = client.probe(
        api.ProbeRequest(model=model, image=image, goals=(api.ProbeGoal.ATTACK,))
    ).results
    before = opened(response.input_png)
    changes = tuple(_shown_change(found, before) for found in response.explanations)
    return View(response, before, changes, attack)


def _shown_change(explanation: api.Explanation, before: Image.Image) -> ShownChange:
    after = opened(explanation.image_png)
    return ShownChange(explanation, after, difference(before, after))


def write_views(out: Path, views: Sequence[View]) -> None:
    """Every image, one composite of all and ``response.json`` into ``out``."""
    contents: dict[str, bytes] = {}
    for view in views:
        contents[f"input_{view.model}.png"] = view.response.input_png
        for change in view.changes:
            name = f"{view.model}_{change.file_name}.png"
            contents[f"explanation_{name}"] = change.explanation.image_png
            title = f"Change towards {change.name}"
            contents[f"difference_{name}"] = _png(difference_sheet(title, change.difference))
    contents["composite.png"] = _png(sheet([_panels(view) for view in views]))
    records = [view_record(view) for view in views]
    contents["response.json"] = (json_text(records, indent=2) + "\n").encode()
    write_files(out, contents)
    for kind in ("input", "explanation", "difference"):  # of an earlier run, perhaps of others
        for stale in out.glob(f"{kind}_*.png"):
            if stale.name not in contents:
                stale.unlink()


def _png(image: Image.Image) -> bytes:
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()


def _panels(view: View) -> list[Panel]:
    """One row of the image: what the model sees, then each explanation and its change."""
    likely = view.response.predictions_before[0]
    prediction = f"says {likely.name} {likely.confidence:.1%}"
    falls = f"until RMSE {view.radius}: {view.attack.falls_to.name}"
    panels = [Panel(view.model, view.before, (prediction, falls))]
    for change in view.changes:
        question = "Why" if change.name == likely.name else "What would make it"
        signed = change.difference
        panels += [
            Panel(f"{question} {change.name}?", change.image, _notes(change.explanation)),
            Panel(f"Change towards {change.name}", signed.image, scale_notes(signed)),
        ]
    return panels


def _notes(explanation: api.Explanation) -> tuple[str, str]:
    target = explanation.target.name
    before, after = explanation.confidence_before, explanation.confidence_after
    after_change = explanation.predicted_after
    return (
        f"{target} {before:.1%} -> {after:.1%}, RMSE {explanation.rmse:.3f}",
        f"the model now says {after_change.name} {after_change.confidence:.1%}",
    )


def view_record(view: View) -> dict[str, Any]:
    """What ``response.json`` holds of a model, JSON-able."""
    return {
        "model": view.response.model.model_dump(),
        "request_id": view.response.request_id,
        "explanations": [_explanation_record(change) for change in view.changes],
        "attack": view.attack.model_dump(mode="json", exclude={"image_png"}),
    }


def _explanation_record(change: ShownChange) -> dict[str, Any]:
    explanation = change.explanation
    plain = ("rho", "rmse", "confidence_before", "confidence_after", "steps", "solver")
    return {
        "target": change.name,
        **{name: getattr(explanation, name) for name in plain},
        "predicted_before": explanation.predicted_before.name,
        "predicted_after": explanation.predicted_after.name,
        "status": explanation.status.value,
        "difference_scale": change.difference.scale,
    }

"""The images of a service's responses as files in a folder."""

import re
from pathlib import Path

from candor.contracts import api


def save_explanations(out: Path, response: api.ExplainResponse) -> None:
    """``input.png`` and ``explanation_DIRECTION_TARGET_RHO.png`` for each explanation."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "input.png").write_bytes(response.input_png)
    for explanation in response.explanations:
        # Class names may hold any character; file names may not.
        target = re.sub(r"[^\w-]", "_", explanation.target.name)
        name = f"explanation_{explanation.direction}_{target}_{explanation.rho:g}.png"
        (out / name).write_bytes(explanation.image_png)


def save_probe(out: Path, response: api.ProbeResponse) -> None:
    """``GOAL.png`` for each search that has an image."""
    out.mkdir(parents=True, exist_ok=True)
    for result in response.results:
        if result.image_png:
            (out / f"{result.goal}.png").write_bytes(result.image_png)


def save_comparison(out: Path, response: api.CompareResponse) -> None:
    """The image, its perturbed copy, the explanation, and two saliency maps of each method."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "input.png").write_bytes(response.input_png)
    (out / "perturbed.png").write_bytes(response.perturbation.image_png)
    (out / "explanation.png").write_bytes(response.explanation.image_png)
    for item in response.methods:
        (out / f"saliency_{item.method}.png").write_bytes(item.overlay_png)
        (out / f"saliency_{item.method}_perturbed.png").write_bytes(item.perturbed_overlay_png)

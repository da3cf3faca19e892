"""The images of a service's responses as files in a folder."""

from collections.abc import Sequence
from pathlib import Path

from candor.contracts import api
from candor.contracts.names import file_part
from candor.files.writing import write_files


def save_explanations(out: Path, response: api.ExplainResponse) -> None:
    """``input.png`` and ``explanation_DIRECTION_TARGET_RHO.png`` for each explanation."""
    images = {}
    targets = [explanation.target for explanation in response.explanations]
    for explanation in response.explanations:
        target = _target_part(explanation.target, targets)
        name = f"explanation_{explanation.direction}_{target}_{explanation.rho:g}.png"
        images[name] = explanation.image_png
    write_files(out, images | {"input.png": response.input_png})


def _target_part(target: api.ClassConfidence, targets: Sequence[api.ClassConfidence]) -> str:
    """The target in the name of a file; with its index where another would have the same name."""
    part = file_part(target.name)
    others = {one.index for one in targets if _same_file(file_part(one.name), part)}
    return part if others == {target.index} else f"{part}_{target.index}"


def _same_file(name: str, other: str) -> bool:
    """Whether some file system holds the two for one."""
    return name.casefold() == other.casefold()


def save_probe(out: Path, response: api.ProbeResponse) -> None:
    """``GOAL.png`` for each search that has an image."""
    images = {f"{found.goal}.png": found.image_png for found in response.results}
    write_files(out, {name: content for name, content in images.items() if content})


def save_comparison(out: Path, response: api.CompareResponse) -> None:
    """The image, its perturbed copy, the explanation, and two saliency maps of each method."""
    images = {
        "perturbed.png": response.perturbation.image_png,
        "explanation.png": response.explanation.image_png,
    }
    for item in response.methods:
        images[f"saliency_{item.method}.png"] = item.overlay_png
        images[f"saliency_{item.method}_perturbed.png"] = item.perturbed_overlay_png
    write_files(out, images | {"input.png": response.input_png})

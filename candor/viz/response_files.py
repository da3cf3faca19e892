"""The images of a service's responses as files in a folder."""

from collections.abc import Sequence
from pathlib import Path

from candor.contracts import api
from candor.contracts.names import file_part


def save_explanations(out: Path, response: api.ExplainResponse) -> None:
    """``input.png`` and ``explanation_DIRECTION_TARGET_RHO.png`` for each explanation."""
    out.mkdir(parents=True, exist_ok=True)
    (out / "input.png").write_bytes(response.input_png)
    targets = [explanation.target for explanation in response.explanations]
    for explanation in response.explanations:
        target = _target_part(explanation.target, targets)
        name = f"explanation_{explanation.direction}_{target}_{explanation.rho:g}.png"
        (out / name).write_bytes(explanation.image_png)


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

"""Stage `explanations` and its section of the report.

Each image is explained for its runner-up class: what would the image need to be that instead?
"""

import base64
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from statistics import median
from typing import Literal

import torch
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor, nn

from candor.attacks.margin import other_class
from candor.audit.plan import Budget
from candor.audit.records import Row
from candor.audit.report.schema_sections import Example, ExplanationQuality, Faithfulness, Overlap
from candor.audit.report.schema_values import Estimate
from candor.audit.sections.measures import SIZES, measured
from candor.audit.sections.summary import Evidence, share
from candor.audit.stage import Batch, Subject
from candor.contracts.radius import radius_note
from candor.explainers.feature_map import NoFeatureMap
from candor.explainers.measures import says, transition_score
from candor.explainers.overlap import energy_share, rank_correlation
from candor.explainers.saliency import LIME_SAMPLES, grad_cam, input_gradient, lime
from candor.images.encode import encode_png
from candor.runtime.threads import in_shares
from candor.search.batch import plan_goal, run_searches
from candor.search.result import SearchResult
from candor.terms import Goal

SOLVER = "paper"  # also where a service searches by another: older reports stay comparable
INFIDELITY_SAMPLES = 50
INFIDELITY_NOISE = 0.02
SENSITIVITY_SAMPLES = 3
SENSITIVITY_RADIUS = 0.02  # largest change of a pixel
GRAD_CAM = "Grad-CAM"
METHODS = (GRAD_CAM, "LIME")
ATTRIBUTIONS = ("explanation", "input gradient")
# Names of `ExplanationMeasures`, and where a search's result has them.
_SIZES = {name: "rmse" if name == "rho_2" else name for name in SIZES}
Rank = Literal["best", "median", "worst"]


def explanation_rows(subject: Subject, batch: Batch, budget: Budget) -> list[Row]:
    """One explanation an image, its scores and its images."""
    network, images = subject.network, batch.images
    with torch.no_grad():
        logits = network(images)
    labels = logits.argmax(1)
    targets = other_class(logits, labels)
    seeds = batch.seeds("explanations")
    explain = explainer(subject, budget.descent_steps, seeds)
    found = explain(images, targets)
    ends = found.images
    saliencies = _saliencies(network, images, targets, seeds)
    rows: list[Row] = []
    for row in range(len(images)):
        energy = (ends[row] - images[row]).square().sum(dim=0).double().numpy()
        maps = {name: found[row].double().numpy() for name, found in saliencies.items()}
        rows.append(
            {
                "position": batch.positions[row],
                "identifier": batch.identifiers[row],
                "label": int(batch.labels[row]),
                "target": int(targets[row]),
                **_change(found, row, int(targets[row])),
                "overlap": {name: energy_share(energy, own) for name, own in maps.items()},
                "correlation": {name: rank_correlation(energy, own) for name, own in maps.items()},
                **{name: float(getattr(found, field)[row]) for name, field in _SIZES.items()},
                **_measures(subject, images[row], ends[row], targets[row], labels[row]),
                **_faithfulness(subject, batch, row, targets, ends, budget.descent_steps),
                "pictures": {
                    "original": _image(images[row]),
                    "explanation": _image(ends[row]),
                    "difference": _difference(ends[row] - images[row]),
                    "grad_cam": _heat(saliencies[GRAD_CAM][row]) if GRAD_CAM in maps else None,
                },
            }
        )
    return rows


def _saliencies(
    network: nn.Module, images: Tensor, targets: Tensor, seeds: Sequence[int]
) -> dict[str, Tensor]:
    """Maps (B, H, W) by method, without those that this network has none of."""
    found = {"LIME": lime(network, images, targets, samples=LIME_SAMPLES, seeds=seeds)}
    try:
        return {GRAD_CAM: grad_cam(network, images, targets)} | found
    except NoFeatureMap:
        return found


def section(
    evidence: Evidence, classes: Sequence[str], rho: float, radius: Estimate | None
) -> ExplanationQuality | None:
    """Medians, shares and three examples; None where the stage did not run.

    Args:
        rho: RMSE of the explanations.     radius: see `Report.median_radius`.
    """
    rows = evidence.rows.get("explanations")
    if not rows:
        return None
    return ExplanationQuality(
        image_count=len(rows),
        rho=evidence.distance(rho),
        note=radius_note(None if radius is None else radius.value, rho),
        gain_per_rmse=median(_gain(row) for row in rows),
        moved=share(row["confidence_after"] > row["confidence_before"] for row in rows),
        measures=measured(evidence, rows, classes),
        overlaps=tuple(
            Overlap(
                method=name,
                median=median(row["overlap"][name] for row in rows),
                rank_correlation=median(row["correlation"][name] for row in rows),
            )
            for name in METHODS
            if name in rows[0]["overlap"]
        ),
        missing=tuple(name for name in METHODS if name not in rows[0]["overlap"]),
        faithfulness=tuple(
            Faithfulness(
                method=name,
                infidelity=median(row["infidelity"][name] for row in rows),
                max_sensitivity=median(row["max_sensitivity"][name] for row in rows),
            )
            for name in ATTRIBUTIONS
        ),
        examples=_examples(evidence, rows, classes),
    )


def explainer(
    subject: Subject, steps: int, seeds: Sequence[int]
) -> Callable[[Tensor, Tensor], SearchResult]:
    """What explains images (B, C, H, W) for targets (B,), at the RMSE that the card recommends.

    Args:
        seeds: one an image.
    """

    def explain(images: Tensor, targets: Tensor) -> SearchResult:
        plan = plan_goal(Goal.EXPLAIN_FOR, targets, steps=steps, rho=subject.card.recommended_rho)
        plan = replace(plan, seeds=torch.tensor(seeds))
        return run_searches(
            subject.network,
            images,
            plan,
            solver=SOLVER,
            batch_size=len(images),
            execute=in_shares,
        )

    return explain


def _change(found: SearchResult, row: int, target: int) -> Row:
    """What the verification of a search says of its target."""
    shares = torch.stack([found.logits_before[row], found.logits_after[row]]).softmax(dim=1)
    return {
        "confidence_before": float(shares[0, target]),
        "confidence_after": float(shares[1, target]),
        "validity": int(shares[1].argmax()) == target,
    }


def _measures(
    subject: Subject, before: Tensor, after: Tensor, target: Tensor, label: Tensor
) -> Row:
    """Of one explanation; the names are those of `ExplanationMeasures`."""
    oracle, real = subject.independent, subject.real
    return {
        "oracle_score": None if oracle is None else bool(says(oracle, after[None], target[None])),
        "cout": transition_score(
            subject.network, before, after, target=int(target), label=int(label)
        ),
        "nearest_real": None if real is None else real.percentile(after, int(target)),
    }


def _faithfulness(
    subject: Subject, batch: Batch, row: int, targets: Tensor, ends: Tensor, steps: int
) -> Row:
    """Infidelity (each attribution scaled as suits it best) and max-sensitivity, by captum."""
    image, target = batch.images[row : row + 1], targets[row : row + 1]
    seed = batch.seeds("faithfulness")[row]

    def confidence(images: Tensor) -> Tensor:
        shares: Tensor = subject.network(images).softmax(dim=1)[:, int(target)]
        return shares

    def perturb(images: Tensor) -> tuple[Tensor, Tensor]:
        noise = INFIDELITY_NOISE * torch.randn_like(images)
        return noise, images - noise

    def explanation_of(images: Tensor) -> Tensor:
        count = len(images)
        explain = explainer(subject, steps, [seed] * count)
        return explain(images.clamp(0.0, 1.0), target.expand(count)).images - images

    def gradient_of(images: Tensor) -> Tensor:
        return input_gradient(subject.network, images, target.expand(len(images)))

    sources = {
        "explanation": (ends[row : row + 1] - image, explanation_of),
        "input gradient": (gradient_of(image), gradient_of),
    }
    scores: Row = {"infidelity": {}, "max_sensitivity": {}}
    for name, (attribution, source) in sources.items():
        # captum draws from torch's global generator, which is put back as it was.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            scores["infidelity"][name] = float(
                infidelity(
                    confidence, perturb, image, attribution,
                    n_perturb_samples=INFIDELITY_SAMPLES, normalize=True,
                )
            )  # fmt: skip
            torch.manual_seed(seed)
            scores["max_sensitivity"][name] = float(
                sensitivity_max(
                    partial(_of_first, source), image, perturb_radius=SENSITIVITY_RADIUS,
                    n_perturb_samples=SENSITIVITY_SAMPLES,
                )
            )  # fmt: skip
    return scores


def _of_first(source: Callable[[Tensor], Tensor], inputs: tuple[Tensor]) -> tuple[Tensor]:
    """captum hands its one input over as a tuple and wants one back."""
    return (source(inputs[0]),)


def _gain(row: Row) -> float:
    """Rise of the target's confidence for an RMSE of 1; 0 where nothing was changed."""
    rise = row["confidence_after"] - row["confidence_before"]
    return float(rise / row["rho_2"]) if row["rho_2"] > 0 else 0.0


def _examples(
    evidence: Evidence, rows: Sequence[Row], classes: Sequence[str]
) -> tuple[Example, ...]:
    ordered = sorted(rows, key=_gain, reverse=True)
    chosen: dict[Rank, Row] = {"best": ordered[0]}
    if len(ordered) > 2:
        chosen["median"] = ordered[len(ordered) // 2]
    if len(ordered) > 1:
        chosen["worst"] = ordered[-1]
    return tuple(
        Example(
            rank=rank,
            identifier=row["identifier"],
            label=classes[row["label"]],
            target=classes[row["target"]],
            confidence_before=row["confidence_before"],
            confidence_after=row["confidence_after"],
            distance=evidence.distance(row["rho_2"]),
            **row["pictures"],
        )
        for rank, row in chosen.items()
    )


def _image(image: Tensor) -> str:
    """PNG data URI of (C, H, W) in [0, 1]; one channel is drawn grey."""
    return "data:image/png;base64," + base64.b64encode(encode_png(image.cpu().numpy())).decode()


def _difference(delta: Tensor) -> str:
    """Signed difference around grey, stretched to its largest value."""
    return _image(0.5 + 0.5 * delta / delta.abs().max().clamp_min(1e-12))


def _heat(saliency: Tensor) -> str:
    """Saliency from black (least) to white (most)."""
    low, high = saliency.min(), saliency.max()
    return _image(((saliency - low) / (high - low).clamp_min(1e-12))[None])

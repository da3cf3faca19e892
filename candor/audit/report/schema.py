"""The report: the one object that JSON, HTML and PDF render."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from candor.audit.plan import AuditPlan, Frozen
from candor.audit.report.schema_sections import (
    CalibrationSection,
    ExplanationQuality,
    Gallery,
    HumanFlipRate,
)
from candor.audit.report.schema_values import Area, Distance, Estimate, Fraction, Number, Share
from candor.audit.sections.threat import ThreatModel
from candor.contracts.json_text import json_text
from candor.files.writing import write_file

SCHEMA_FILE = Path(__file__).with_name("report.schema.json")


class CurvePoint(Frozen):
    """Accuracy just above a distance."""

    distance: Distance
    accuracy: Fraction


class Curve(Frozen):
    """Accuracy against RMSE: a step function, constant between its points."""

    goal: Literal["attack", "btr"]
    points: tuple[CurvePoint, ...]


class ClassRow(Frozen):
    """One class; the mean radius is the area under its own curve, without a baseline."""

    name: str
    accuracy: Share
    attack_mean_radius: Distance
    btr_mean_radius: Distance


class AttackRow(Frozen):
    """What one attack did for one goal.

    Attributes:
        eps_l2: largest L2 it may use, None for minimal-norm attacks.
        image_count: images it was tried on; already wrong ones included.
        not_tried: images on which it failed, which say nothing of the model.
        found, unresolved, already_wrong, unverified: how it ended on them.
        wins: images on which its radius is the smallest (the first in the list on a tie).
        holds_rounded: of the found, how many hold after rounding to 8 bits.
        median_radius: of the found, None without any.
        area: ARA by this attack alone over its own images; None for attacks of fixed budget.
        settings: its hyper-parameters.
    """

    attack: str
    goal: Literal["attack", "btr"]
    eps_l2: float | None
    image_count: Number
    not_tried: Number = 0
    found: Number
    unresolved: Number
    already_wrong: Number
    unverified: Number
    wins: Number
    holds_rounded: Number
    median_radius: Distance | None
    area: Area | None
    settings: dict[str, Any]
    warnings: tuple[str, ...]


class BudgetRow(Frozen):
    """Accuracy of a fixed-budget attack: the share it did not fool within ``eps``.

    Attributes:
        accuracy: of the images it was tried on; None where it was tried on none.
        not_tried: images on which it failed.
    """

    attack: str
    eps: Distance
    accuracy: Share | None
    not_tried: Number = 0


class NotTried(Frozen):
    """An attack that failed on some images, where it is neither resisted nor successful.

    Attributes:
        image_count: images on which it failed, with any goal or budget.
        planned_count: images that it was to be tried on.
        reasons: errors it ended with, each once.
    """

    attack: str
    image_count: Number
    planned_count: Number
    reasons: tuple[str, ...]


class Check(Frozen):
    """One of the 20 checks of the masking panel."""

    number: Annotated[int, Field(ge=1, le=20)]
    title: str
    verdict: Literal["pass", "warn", "fail", "not-applicable"]
    evidence: str
    image_count: Number


class CertifiedPoint(Frozen):
    """Certified accuracy at a distance: right, not abstained, and radius at least that."""

    distance: Distance
    certified: Fraction
    empirical: Fraction


class Smoothing(Frozen):
    """Randomised smoothing of the audited network.  (Cohen et al., arXiv 1902.02918)

    The certificate is of the *smoothed* classifier, not of the network itself.

    Attributes:
        sigma: of the noise per pixel, which is its RMSE.
        alpha: chance that one certificate is wrong.
        accuracy: of the smoothed classifier; an abstention counts as wrong.
        area: area of max(0, certified accuracy - naive).
        empirical: area of the network itself on the same images, by the ensemble.
    """

    sigma: float
    alpha: float
    selection_samples: Number
    samples: Number
    abstained: Share
    accuracy: Share
    area: Area
    empirical: Area
    points: tuple[CertifiedPoint, ...]


class Clever(Frozen):
    """CLEVER scores: an extreme-value *estimate*, not a bound.  (Weng et al., arXiv 1801.10578)

    Attributes:
        above_empirical: images whose estimate exceeds the radius an attack found, so is wrong.
        fitted: images whose gradients the Weibull distribution fits (Kolmogorov-Smirnov p > 0.05).
    """

    image_count: Number
    samples: Number
    ball: Distance
    median: Distance
    above_empirical: Number
    fitted: Number


class Reference(Frozen):
    """A row of the paper, for scale; other images, other training."""

    name: str
    source: str
    accuracy: Fraction
    attack_ara: Distance
    btr_ara: Distance


class PublishedRow(Frozen):
    """Standard AutoAttack on another network, as RobustBench has it; all 10,000 test images."""

    name: str
    source: str
    eps_l2: float
    accuracy: Share
    robust_accuracy: Share


class ComparedGoal(Frozen):
    """Ours minus theirs on the same images."""

    goal: Literal["attack", "btr"]
    difference: Distance
    low: Distance
    high: Distance
    ours_larger: Number
    theirs_larger: Number
    ties: Number
    p_value: Fraction


class Comparison(Frozen):
    """This report against another, image by image.

    ``p_value`` is two-sided, of so large a difference of areas if the two models were exchanged
    at random image by image; the interval is a paired bootstrap of the difference of areas.
    """

    model: str
    weights_sha256: str
    image_count: Number
    goals: tuple[ComparedGoal, ...]


class ModelFacts(Frozen):
    """Who is audited."""

    name: str
    version: str
    architecture: str
    activation: str
    parameter_count: Number
    classes: tuple[str, ...]
    input_shape: tuple[int, int, int]


class Machine(Frozen):
    """What computed the numbers; no host, user or path."""

    processor: str
    cores: Number
    system: str
    device: str


class Provenance(Frozen):
    """Where the numbers come from, enough to compute them again.

    Attributes:
        compute_seconds: sum over all blocks of work, whichever process ran them.
        stage_seconds: the same by stage; empty in reports from before it was kept.
    """

    plan: AuditPlan
    plan_sha256: str
    ledger_sha256: str
    versions: dict[str, str]
    machine: Machine
    compute_seconds: float
    stage_seconds: dict[str, float] = {}
    finished_at: str
    command: str


class Report(Frozen):
    """A robustness report.

    Attributes:
        warnings: what a reader must know before believing a number.
        not_tried: attacks that failed on some images; a report with any is not complete.
        words: the threat model as a paragraph.
        naive: accuracy of always naming the most frequent class of the data.
        pixel_count: C*H*W, so that L2 = RMSE * sqrt(pixel_count).
        areas: by the whole ensemble, every image with whichever attacks saw it.
        median_radius: RMSE at which the ensemble has changed half of the right predictions; None
            where half of them are unresolved, and in older reports.
        subset_areas: `areas` over the images every attack saw, to show what the costly ones add.
        human_flip_rate: what people say of the model's explanations; None where nobody was asked.
    """

    report_version: Literal[1] = 1
    model: ModelFacts
    data: str
    image_count: Number
    warnings: tuple[str, ...]
    not_tried: tuple[NotTried, ...] = ()
    threat: ThreatModel
    words: str
    naive: Fraction
    pixel_count: Number
    accuracy: Share
    above_chance: Share
    areas: tuple[Area, ...]
    median_radius: Estimate | None = None
    subset_areas: tuple[Area, ...]
    curves: tuple[Curve, ...]
    classes: tuple[ClassRow, ...]
    attacks: tuple[AttackRow, ...]
    budgets: tuple[BudgetRow, ...]
    checks: tuple[Check, ...]
    smoothing: Smoothing | None
    clever: Clever | None
    explanations: ExplanationQuality | None
    calibration: CalibrationSection | None = None
    human_flip_rate: HumanFlipRate | None = None
    references: tuple[Reference, ...]
    published: tuple[PublishedRow, ...] = ()
    comparison: Comparison | None
    gallery: Gallery | None = None
    provenance: Provenance


def schema_text() -> str:
    """JSON Schema of `Report` as ``report.schema.json`` holds it."""
    schema = Report.model_json_schema(mode="serialization")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return json_text(schema, indent=2) + "\n"


if __name__ == "__main__":
    write_file(SCHEMA_FILE, schema_text().encode())

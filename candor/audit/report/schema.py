"""The report: the one object that JSON, HTML and PDF render."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from candor.audit.plan import AuditPlan, FittedTemperature, Frozen
from candor.audit.sections.threat import ThreatModel
from candor.contracts.json_text import json_text
from candor.files.writing import write_file

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Number = Annotated[int, Field(ge=0)]
SCHEMA_FILE = Path(__file__).with_name("report.schema.json")


class Distance(Frozen):
    """One distance in both units."""

    rmse: float
    l2: float


class Share(Frozen):
    """``count`` of ``image_count`` images, with the exact (Clopper-Pearson) 95 % interval."""

    value: Fraction
    low: Fraction
    high: Fraction
    count: Number
    image_count: Number


class Estimate(Frozen):
    """A mean or a median over ``image_count`` images, with its 95 % bootstrap interval.

    One image says nothing of others: low and high are its value then.
    """

    value: float
    low: float
    high: float
    image_count: Number


class Area(Frozen):
    """An accuracy-robustness area with its 95 % bootstrap interval.

    Attributes:
        unresolved_count: images on which no attack succeeded; they count with the largest RMSE
            visited, so with any of them the area is a lower bound of what the attacks could show.
    """

    goal: Literal["attack", "btr"]
    value: Distance
    low: Distance
    high: Distance
    image_count: Number
    unresolved_count: Number
    median_radius: Distance


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


class Example(Frozen):
    """One adversarial explanation; images are PNG as data URIs.

    Attributes:
        rank: by class gain among the explained images.
        grad_cam: None where no layer of the network has a feature map.
    """

    rank: Literal["best", "median", "worst"]
    identifier: str
    label: str
    target: str
    confidence_before: Fraction
    confidence_after: Fraction
    distance: Distance
    original: str
    explanation: str
    difference: str
    grad_cam: str | None


class Overlap(Frozen):
    """How much of the explanation's energy a saliency method's own top pixels hold.

    Attributes:
        median: share of the squared perturbation inside the method's top fifth of pixels; a
            perturbation that ignores the method has 0.2.
        rank_correlation: median Spearman correlation between energy and saliency.
    """

    method: str
    median: Fraction
    rank_correlation: float


class Faithfulness(Frozen):
    """Medians of captum's two scores for one attribution; smaller is better.

    Attributes:
        infidelity: squared error of the attribution as a local linear model of the target's
            confidence, after the scaling that suits it best (Yeh et al., arXiv 1901.09392).
        max_sensitivity: largest relative change of the attribution when the image changes a bit.
    """

    method: str
    infidelity: float
    max_sensitivity: float


class ExplanationMeasures(Frozen):
    """Measures of the explanations for one class, or of all of them.

    Attributes:
        target: name of the class that the explanations are for; None for all.
        image_count: explained images.
        validity: explanations that the network gives the target.
        oracle_score: explanations that an independent network gives the target, too
            (arXiv 2111.00177); None without such a model.
        cout: mean COUT (arXiv 2203.15064), [-1, 1]: how fast the target rises and the class of the
            image falls as the pixels that changed most are put in first.
        nearest_real: median percentile of the distance to the nearest real training images of the
            target, among the distances of real test images, in the penultimate layer of an
            independent network: 0.5 lies as near as a typical real image, 1 further than any.
            None without such a network or without training images.
        sparsity: median share of the pixels of which a channel changed by more than 1/255.
        rho_1, rho_1_5, rho_2, rho_inf: median size of the change, (mean |change|^p)^(1/p); rho_2 is
            the RMSE.
    """

    target: str | None
    image_count: Number
    validity: Share
    oracle_score: Share | None
    cout: Estimate
    nearest_real: Estimate | None
    sparsity: Estimate
    rho_1: Estimate
    rho_1_5: Estimate
    rho_2: Estimate
    rho_inf: Estimate


class ExplanationQuality(Frozen):
    """Quality of explanations for the runner-up class at one RMSE.

    Attributes:
        note: what the median attack radius says of these explanations, one sentence; empty in
            reports from before there were measures.
        gain_per_rmse: median rise of the target's confidence, divided by the RMSE.
        moved: images whose target became more likely.
        measures: of all explanations, then of each class that some were for.
        missing: saliency methods that this network has no layer for.
        reached, agreement: of reports from before there were measures: images whose target became
            the prediction, and those on which an independent model found the target likelier.
    """

    image_count: Number
    rho: Distance
    note: str = ""
    gain_per_rmse: float
    moved: Share
    measures: tuple[ExplanationMeasures, ...] = ()
    overlaps: tuple[Overlap, ...]
    missing: tuple[str, ...] = ()
    faithfulness: tuple[Faithfulness, ...]
    examples: tuple[Example, ...]
    reached: Share | None = Field(default=None, exclude=True)
    agreement: Share | None = Field(default=None, exclude=True)


class CalibrationPoint(Frozen):
    """How true the probabilities are at one temperature, and BTR there.

    Attributes:
        nll: mean negative log-likelihood of the labels, nats.
        ece: expected calibration error in 15 bins (Guo et al., arXiv 1706.04599).
        ece_low, ece_high: its interval.
        image_count: of both.
        btr: ARA by `fast` alone on the first images; None where none was searched.
    """

    temperature: float
    nll: float
    ece: Fraction
    ece_low: Fraction
    ece_high: float
    image_count: Number
    btr: Area | None


class CalibrationSection(Frozen):
    """BTR depends on the temperature of the softmax, so it stands beside the truest one.

    A higher temperature never shrinks a BTR radius and changes neither accuracy nor attack ARA.

    Attributes:
        own, fitted: at the network's own temperature and at ``temperature``.
    """

    temperature: FittedTemperature
    own: CalibrationPoint
    fitted: CalibrationPoint


class HumanFlipRate(Frozen):
    """Share of the model's explanations that people call the target, with its 95 % interval.

    From the model's card, where `candor annotations flips` has written it; not computed here.

    Attributes:
        image_count: explanations that people have judged.
        data: data set of the explained images, that of the report.
        method: how they were made and judged.
    """

    value: Fraction
    low: Fraction
    high: Fraction
    image_count: Number
    data: str
    method: str


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


class GalleryPart(Frozen):
    """Images of a gallery that were chosen for one reason, in words."""

    title: str
    image_count: Number


class Gallery(Frozen):
    """Where the images stand that say most, each with its explanation.

    Attributes:
        page: the first page, relative to the report.
        image_count: an image may be in several parts.
    """

    page: str
    image_count: Number
    parts: tuple[GalleryPart, ...]


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

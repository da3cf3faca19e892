"""Sections of a report about what people are shown: explanations, calibration and gallery."""

from typing import Literal

from pydantic import Field

from candor.audit.plan import FittedTemperature, Frozen
from candor.audit.report.schema_values import Area, Distance, Estimate, Fraction, Number, Share


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

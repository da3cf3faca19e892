"""The masking panel: 20 checks, each a verdict with its evidence.

The list is the evaluation checklist of Carlini et al. 2019 (arXiv 1902.06705).  A verdict is a
function of the ledger's rows alone.  "fail" says that the radii cannot be trusted, "warn" that a
reader should look, "not-applicable" that what the check needs was not given.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from candor.audit.plan import AuditPlan
from candor.audit.records import Row
from candor.audit.report.schema import Check, Smoothing
from candor.audit.report.schema_values import Area, Share
from candor.audit.sections.probes import BUDGETS_L2, PANEL_EPS_L2, RESTARTS, RUNS
from candor.audit.sections.summary import Evidence, not_tried, sentence
from candor.terms import Goal

Verdict = Literal["pass", "warn", "fail", "not-applicable"]
LARGEST_SPREAD = 1e-4  # of repeated outputs, relative (AutoAttack's own flag)
LARGEST_SLOPE_ERROR = 0.5  # of the gradient against a finite difference
KINK_CHANGE = 1e-3  # relative change of a gradient that says the function is curved
FEWEST_ATTACKS = 3
FEWEST_IMAGES = 5  # of the panel; with fewer nothing that compares attacks passes
_NO_PANEL = "the panel saw no image"
_BLIND_ATTACKS = ("square", "label-only")


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """What the checks look at.

    Attributes:
        rows: of the stage `panel`, of images classified correctly; empty where it did not run.
        areas: both ARAs by the ensemble.
    """

    evidence: Evidence
    plan: AuditPlan
    rows: Sequence[Row]
    accuracy: Share
    areas: tuple[Area, ...]
    smoothing: Smoothing | None

    def count(self, name: str) -> int:
        """Panel images on which measure ``name`` is true."""
        return sum(bool(row[name]) for row in self.rows)

    def fooled_within(self, eps_l2: float, positions: Sequence[int]) -> set[int]:
        """Images that a gradient attack fools within ``eps_l2``, wrong ones left out."""
        limit = eps_l2 / self.evidence.distance(1.0).l2
        return {
            record.position
            for name, records in self.evidence.records.items()
            if name not in _BLIND_ATTACKS
            for record in records
            if record.goal is Goal.ATTACK and record.radius and record.radius <= limit
        } & set(positions)


Finding = tuple[Verdict, str, int]


def run_checks(panel: Panel) -> tuple[Check, ...]:
    """All 20, in order."""
    return tuple(
        Check(number=number, title=title, verdict=verdict, evidence=text, image_count=count)
        for number, (title, check) in enumerate(_CHECKS, start=1)
        for verdict, text, count in [check(panel)]
    )


def failed_checks(checks: Sequence[Check]) -> list[str]:
    """A warning for the head of the report where the panel failed."""
    failed = [f"{check.number} ({check.title})" for check in checks if check.verdict == "fail"]
    if not failed:
        return []
    return [
        "The masking panel failed; the radii may be those of attacks that were misled, not of a "
        f"robust model. Checks: {', '.join(failed)}."
    ]


def _threat_model(panel: Panel) -> Finding:
    return "pass", "norm, box, quantisation, goals and knowledge are fields of this report", 0


def _own_loss(panel: Panel) -> Finding:
    names = [
        name
        for name, records in panel.evidence.records.items()
        if name not in _BLIND_ATTACKS and any(record.is_tried for record in records)
    ]
    text = f"{', '.join(names)} differentiate the network as deployed, preprocessing included"
    return ("pass" if names else "fail"), text, panel.accuracy.image_count


def _released(panel: Panel) -> Finding:
    text = (
        f"weights {panel.plan.weights_sha256[:12]}, code {panel.plan.code_sha256[:12]}; "
        "the command in the provenance repeats the ledger bit by bit on the same kind of machine"
    )
    return "pass", text, 0


def _clean_accuracy(panel: Panel) -> Finding:
    share, naive = panel.accuracy, panel.evidence.naive
    text = f"{share.value:.3f} [{share.low:.3f}, {share.high:.3f}], naive {naive:.3f}"
    return ("pass" if share.low > naive else "warn"), text, share.image_count


def _iterative(panel: Panel) -> Finding:
    single, iterated = panel.count("fgsm"), panel.count("pgd")
    text = f"within L2 {PANEL_EPS_L2:g} one step fools {single}, PGD {iterated}"
    return ("fail" if single > iterated else "pass"), text, len(panel.rows)


def _grows(panel: Panel) -> Finding:
    counts = [sum(row["pgd_budgets"][i] for row in panel.rows) for i in range(len(BUDGETS_L2))]
    steps = ", ".join(f"{eps:g}: {n}" for eps, n in zip(BUDGETS_L2, counts, strict=True))
    text = f"fooled by PGD within L2 {steps}"
    is_falling = any(later < earlier for earlier, later in zip(counts, counts[1:], strict=False))
    is_flat = counts[0] == counts[-1] < len(panel.rows)
    return ("fail" if is_falling or is_flat else "pass"), text, len(panel.rows)


def _unbounded(panel: Panel) -> Finding:
    left = len(panel.rows) - panel.count("pgd_unbounded")
    text = f"with the whole box allowed, {left} of {len(panel.rows)} stay correct"
    is_chance = left <= panel.evidence.naive * len(panel.rows)
    return ("pass" if is_chance else "fail"), text, len(panel.rows)


def _whole_axis(panel: Panel) -> Finding:
    worst = max(area.unresolved_count for area in panel.areas)
    count = panel.areas[0].image_count
    verdict: Verdict = "pass" if worst == 0 else "warn" if worst <= 0.05 * count else "fail"
    return verdict, f"{worst} of {count} images have no radius", count


def _minimum(panel: Panel) -> Finding:
    everywhere = [
        name
        for name, records in panel.evidence.records.items()
        if len({r.position for r in records if r.is_tried}) == panel.plan.image_count
    ]
    text = (
        f"the smallest radius of each image counts; {len(panel.evidence.records)} attacks, "
        f"on every image: {', '.join(everywhere) or 'none'}"
    )
    failed = not_tried(panel.evidence)
    if failed:
        return "fail", f"{text}; {' '.join(map(sentence, failed))}", panel.plan.image_count
    is_enough = len(panel.evidence.records) >= FEWEST_ATTACKS and everywhere
    return ("pass" if is_enough else "warn"), text, panel.plan.image_count


def _settings_listed(panel: Panel) -> Finding:
    return "pass", "a table of this report; the whole plan is in the provenance", 0


def _blind(panel: Panel) -> Finding:
    ran = [name for name in _BLIND_ATTACKS if name in panel.evidence.records]
    if not ran:
        return "not-applicable", "neither Square nor the hard-label attack ran", 0
    texts, worst, count = [], 0, 0
    for name in ran:
        records = [record for record in panel.evidence.records[name] if record.is_tried]
        if not records:
            return "fail", f"{name} failed on every image", 0
        eps = records[0].eps_l2 or 0.0
        hits = {record.position for record in records if record.radius}
        known = panel.fooled_within(eps, [record.position for record in records])
        texts.append(
            f"{name} fools {len(hits)}, gradient attacks {len(known)} within L2 {eps:g}, "
            f"{len(hits - known)} by it alone"
        )
        worst, count = max(worst, len(hits - known)), max(count, len(records))
    verdict = _compared(worst, count)
    if len(ran) < len(_BLIND_ATTACKS) and verdict == "pass":
        verdict = "warn"
    return _sized((verdict, "; ".join(texts), count))


def _transfer(panel: Panel) -> Finding:
    if any(row["transfer"] is None for row in panel.rows):
        return "not-applicable", "no independent model was given", 0
    alone = sum(row["transfer"] and not row["pgd"] for row in panel.rows)
    text = (
        f"PGD on the independent model fools {panel.count('transfer')} here, PGD on this one "
        f"{panel.count('pgd')}, {alone} only by transfer (L2 {PANEL_EPS_L2:g})"
    )
    return _compared(alone, len(panel.rows)), text, len(panel.rows)


def _doubled(panel: Panel) -> Finding:
    alone = sum(row["pgd_double"] and not row["pgd"] for row in panel.rows)
    steps = panel.plan.budget.descent_steps
    text = f"PGD with {2 * steps} instead of {steps} steps fools {alone} more"
    return _compared(alone, len(panel.rows)), text, len(panel.rows)


def _restarts(panel: Panel) -> Finding:
    alone = sum(row["pgd_restarts"] and not row["pgd"] for row in panel.rows)
    text = f"{RESTARTS} random starts fool {alone} that PGD from the image does not"
    return _compared(alone, len(panel.rows)), text, len(panel.rows)


def _differentiable(panel: Panel) -> Finding:
    zero = panel.count("has_zero_gradient")
    spread = max(row["output_spread"] for row in panel.rows)
    error = median(row["slope_error"] for row in panel.rows)
    kinks: int | str = sum(
        bool(row["has_zero_curvature"]) and row["gradient_change"] > KINK_CHANGE
        for row in panel.rows
    )
    if any(row["has_zero_curvature"] is None for row in panel.rows):
        kinks = "not known, there is no second derivative"
    shares = panel.count("has_probabilities")
    text = (
        f"zero gradients: {zero}; {RUNS} runs differ by {spread:.1e}; gradient off the finite "
        f"difference by {error:.1%} (median); piecewise linear (kinks no gradient sees): {kinks}; "
        f"outputs that are probabilities: {shares}"
    )
    if zero or spread > LARGEST_SPREAD or error > LARGEST_SLOPE_ERROR:
        return "fail", text, len(panel.rows)
    return ("warn" if kinks or shares else "pass"), text, len(panel.rows)


def _random_noise(panel: Panel) -> Finding:
    hit = sum(row["noise_hits"] > 0 for row in panel.rows)
    alone = sum(row["noise_hits"] > 0 and not row["pgd"] for row in panel.rows)
    trials = panel.plan.budget.noise_trials
    text = (
        f"{trials} random perturbations of L2 {PANEL_EPS_L2:g} fool {hit}, PGD "
        f"{panel.count('pgd')}, {alone} only by noise"
    )
    return ("fail" if alone else "pass"), text, len(panel.rows)


def _targeted(panel: Panel) -> Finding:
    alone = sum(row["pgd_targeted"] and not row["pgd"] for row in panel.rows)
    text = (
        f"targeted PGD fools {panel.count('pgd_targeted')}, untargeted {panel.count('pgd')}, "
        f"{alone} only by a target"
    )
    return _compared(alone, len(panel.rows)), text, len(panel.rows)


def _ablation(panel: Panel) -> Finding:
    if any(row["undefended"] is None for row in panel.rows):
        return "not-applicable", "no undefended model was given", 0
    there, here = panel.count("undefended"), panel.count("pgd")
    text = f"the same PGD fools {there} on the undefended model, {here} on this one"
    return ("pass" if there >= here and there else "fail"), text, len(panel.rows)


def _corruptions(panel: Panel) -> Finding:
    names = list(panel.rows[0]["corruptions"])
    kept = {name: sum(row["corruptions"][name] for row in panel.rows) for name in names}
    text = "still correct: " + ", ".join(f"{name}: {count}" for name, count in kept.items())
    return ("warn" if min(kept.values()) < len(panel.rows) / 2 else "pass"), text, len(panel.rows)


def _bound(panel: Panel) -> Finding:
    smoothing = panel.smoothing
    if smoothing is None:
        return "not-applicable", "no certificate was computed", 0
    text = (
        f"certified ARA of the smoothed classifier {smoothing.area.value.rmse:.4f}, empirical "
        f"{smoothing.empirical.value.rmse:.4f}, abstained {smoothing.abstained.count}"
    )
    return "pass", text, smoothing.area.image_count


def _compared(alone: int, count: int) -> Verdict:
    """What a weaker attack finds alone: nothing passes, more than a tenth of the images fails."""
    return "pass" if alone == 0 else "warn" if alone <= 0.1 * count else "fail"


def _with_panel(check: Callable[[Panel], Finding]) -> Callable[[Panel], Finding]:
    return lambda panel: _sized(check(panel)) if panel.rows else ("not-applicable", _NO_PANEL, 0)


def _sized(finding: Finding) -> Finding:
    """The finding; too few images turn a pass into a warning."""
    verdict, text, count = finding
    if verdict == "pass" and count < FEWEST_IMAGES:
        return "warn", f"{text}; too few images to pass", count
    return finding


_CHECKS: tuple[tuple[str, Callable[[Panel], Finding]], ...] = (
    ("The threat model is stated", _threat_model),
    ("Attacks use the model's own outputs and gradients", _own_loss),
    ("Code and weights are pinned, one command repeats it", _released),
    ("Clean accuracy is better than naive", _clean_accuracy),
    ("An iterative attack beats a single step", _with_panel(_iterative)),
    ("Success grows with the budget", _with_panel(_grows)),
    ("Accuracy at high distortion reaches chance", _with_panel(_unbounded)),
    ("The curve ends where every image is fooled", _whole_axis),
    ("The minimum over attacks is taken image by image", _minimum),
    ("All hyper-parameters are listed", _settings_listed),
    ("Gradient-free and hard-label attacks win less often", _blind),
    ("Transfer from another model wins less often", _with_panel(_transfer)),
    ("Twice the steps change nothing", _with_panel(_doubled)),
    ("Random starts change nothing", _with_panel(_restarts)),
    ("Outputs are deterministic and their gradients true", _with_panel(_differentiable)),
    ("Random noise of the same norm wins less often", _with_panel(_random_noise)),
    ("Targeted attacks win no more often", _with_panel(_targeted)),
    ("The same attack breaks an undefended model", _with_panel(_ablation)),
    ("Accuracy under corruptions that nobody chose", _with_panel(_corruptions)),
    ("A provable bound is given", _bound),
)

"""This report against another, paired image by image."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from candor.audit.ensemble import combine
from candor.audit.errors import AuditError
from candor.audit.plan import AuditPlan
from candor.audit.records import AttackRecord
from candor.audit.report.ledger_table import LEDGER_FILE, record_of_ledger_row
from candor.audit.report.schema import ComparedGoal, Comparison, Report
from candor.audit.sections.summary import GOAL_NAMES, Evidence, GoalName, sentence
from candor.contracts.strict_json import JsonError
from candor.contracts.violations import read_model
from candor.files.reading import MIB, UnusableFile, read_file
from candor.files.tables import read_table
from candor.robustness.paired import area_difference

_REPORT_FILE = "report.json"
_FEWEST_IMAGES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Other:
    """A finished report of another model.

    Attributes:
        records: of its ledger; their positions are indices in the data set.
    """

    report: Report
    records: tuple[AttackRecord, ...]

    @property
    def name(self) -> str:
        """Of its model, with the version."""
        return f"{self.report.model.name} {self.report.model.version}"


def read_other(folder: Path) -> Other:
    """Report and ledger of a finished audit.

    Raises:
        AuditError: either is missing or damaged.
    """
    try:
        report = read_model(Report, read_file(folder / _REPORT_FILE, 512 * MIB))
        rows = read_table(folder / LEDGER_FILE).to_pylist()
        records = tuple(map(record_of_ledger_row, rows))
    except FileNotFoundError as err:
        raise AuditError(f"compare: {folder} holds no finished audit: {err}") from err
    except UnusableFile as err:
        raise AuditError(f"compare: {err}") from err
    except JsonError as err:
        raise AuditError(
            f"compare: the report in {folder} is damaged or of another version ({err})"
        ) from err
    except (pa.ArrowException, KeyError, ValueError) as err:
        raise AuditError(f"compare: {folder / LEDGER_FILE} is damaged: {err}") from err
    return Other(report=report, records=records)


def compared_warnings(other: Other) -> tuple[str, ...]:
    """Where an attack failed on the other model its radii may be too large."""
    return tuple(
        f"The report of {other.name}, with which this one is compared, is not complete: "
        f"{sentence(one)}"
        for one in other.report.not_tried
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairedRadii:
    """Radii for one goal of the images that both models saw.

    Attributes:
        positions: (N,) int64, of the images in our audit.
        ours, theirs: (N,) float64 RMSE, as `candor.audit.ensemble.Radii.values`.
        is_theirs_unresolved: (N,) bool.
    """

    positions: NDArray[np.int64]
    ours: NDArray[np.float64]
    theirs: NDArray[np.float64]
    is_theirs_unresolved: NDArray[np.bool_]


def paired_radii(evidence: Evidence, plan: AuditPlan, other: Other, goal: GoalName) -> PairedRadii:
    """Our radii and theirs on the images both saw.

    Raises:
        AuditError: other data, or fewer than two images in common.
    """
    theirs = other.report.provenance.plan
    if theirs.data_sha256 != plan.data_sha256:
        raise AuditError(f"compare: that audit is of {theirs.data}, other images than {plan.data}")
    own = {row["index"]: row["position"] for row in evidence.clean}
    common = sorted(own.keys() & {record.position for record in other.records})
    if len(common) < _FEWEST_IMAGES:
        raise AuditError(f"compare: expected at least 2 images in common, got {len(common)}")
    ours = evidence.radii(goal)
    by_position = dict(zip(ours.positions.tolist(), ours.values.tolist(), strict=True))
    right = combine(other.records, goal, common)
    positions = [own[index] for index in common]
    return PairedRadii(
        positions=np.array(positions, dtype=np.int64),
        ours=np.array([by_position[position] for position in positions]),
        theirs=right.values,
        is_theirs_unresolved=right.is_unresolved,
    )


def compare(evidence: Evidence, plan: AuditPlan, other: Other) -> Comparison:
    """Our radii against theirs; raises as `paired_radii`."""
    pairs = {goal: paired_radii(evidence, plan, other, goal) for goal in GOAL_NAMES}
    return Comparison(
        model=other.name,
        weights_sha256=other.report.provenance.plan.weights_sha256,
        image_count=len(pairs["attack"].positions),
        goals=tuple(_compare_goal(evidence, goal, found) for goal, found in pairs.items()),
    )


def _compare_goal(evidence: Evidence, goal: GoalName, found: PairedRadii) -> ComparedGoal:
    left, right = found.ours, found.theirs
    difference = area_difference(
        left, right, naive=evidence.naive, generator=np.random.default_rng(evidence.seed)
    )
    return ComparedGoal(
        goal=goal,
        difference=evidence.distance(difference.value),
        low=evidence.distance(difference.low),
        high=evidence.distance(difference.high),
        ours_larger=int((left > right).sum()),
        theirs_larger=int((left < right).sum()),
        ties=int((left == right).sum()),
        p_value=difference.p_value,
    )

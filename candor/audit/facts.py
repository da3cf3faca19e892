"""What a report says of model, data and machine, kept beside the plan.

With `plan.json` and `facts.json` the parts of many machines can be merged and rendered where
neither model nor data is at hand.
"""

import os
import platform
from importlib.metadata import version
from pathlib import Path

from torch import nn

from candor.audit.errors import AuditError
from candor.audit.ledger import read_model, write_model
from candor.audit.plan import Frozen
from candor.audit.report.schema import Machine, ModelFacts
from candor.audit.report.schema_sections import HumanFlipRate
from candor.contracts.card import HUMAN_FLIP_RATE, ModelCard
from candor.contracts.names import class_difference
from candor.data.images import Images
from candor.robustness.ara import naive_accuracy
from candor.runtime.processor import this_processor

FACTS_FILE = "facts.json"
_VERSIONS = ("candor", "torch", "numpy", "scipy", "captum", "pyautoattack")


class Facts(Frozen):
    """Facts of one audit.

    Attributes:
        rho: RMSE the card recommends for explanations.
        naive: share of the most frequent class of the whole data set.
        versions: of Python and the libraries that compute.
        human_flip_rate: of the card, on these data; people may judge while an audit runs.
    """

    model: ModelFacts
    rho: float
    naive: float
    machine: Machine
    versions: dict[str, str]
    human_flip_rate: HumanFlipRate | None = None

    @property
    def pixel_count(self) -> int:
        """C*H*W."""
        channels, height, width = self.model.input_shape
        return channels * height * width


def collect(network: nn.Module, card: ModelCard, data: Images) -> Facts:
    """Facts of this model, data and machine.

    Raises:
        AuditError: model and data do not fit each other.
    """
    shape = (card.input.channels, card.input.height, card.input.width)
    got = data.shape
    if got != shape:
        raise AuditError(
            f"data: expected images of {shape} for the model, got {got} of {data.name}"
        )
    if difference := class_difference(card.classes, data.class_names):
        raise AuditError(f"data: {data.name}: {difference}")
    device = next(network.parameters()).device
    return Facts(
        model=ModelFacts(
            name=card.name,
            version=card.version,
            architecture=card.network.architecture,
            activation=card.network.activation,
            parameter_count=sum(weight.numel() for weight in network.parameters()),
            classes=card.classes,
            input_shape=shape,
        ),
        rho=card.recommended_rho,
        naive=naive_accuracy(data.labels.numpy(), len(data.class_names)),
        machine=Machine(
            processor=this_processor().name,
            cores=os.cpu_count() or 0,
            system=f"{platform.system()} {platform.machine()}",
            device=str(device),
        ),
        versions={"python": platform.python_version()}
        | {name: version(name) for name in _VERSIONS},
        human_flip_rate=_human_flip_rate(card, data.name),
    )


def _human_flip_rate(card: ModelCard, data: str) -> HumanFlipRate | None:
    found = (
        metric for metric in card.metrics if (metric.name, metric.data) == (HUMAN_FLIP_RATE, data)
    )
    metric = next(found, None)
    return None if metric is None else HumanFlipRate(**metric.model_dump(exclude={"name"}))


def write_facts(folder: Path, facts: Facts) -> None:
    """Keep the facts in ``folder``."""
    write_model(folder / FACTS_FILE, facts)


def settle_facts(folder: Path, facts: Facts) -> None:
    """Keep the facts of an audit that begins, and compare those of one that goes on.

    Raises:
        AuditError: it began with another model, other classes or other versions.
    """
    if (folder / FACTS_FILE).exists():
        check_same_facts(facts, read_facts(folder), folder)
    write_facts(folder, facts)


def check_same_facts(found: Facts, expected: Facts, folder: Path) -> None:
    """Raises AuditError where two parts of one audit are of other models, classes or versions.

    The machine and what people say may differ.
    """
    free = {"machine", "human_flip_rate"}
    got, known = found.model_dump(exclude=free), expected.model_dump(exclude=free)
    for part in ("model", "versions"):
        for facts in (got, known):
            facts |= {f"{part}.{name}": value for name, value in facts.pop(part).items()}
    for name in sorted(got.keys() | known.keys()):
        if got.get(name) != known.get(name):
            raise AuditError(
                f"out: {folder}: {name}: expected {known.get(name)}, as the audit began, got "
                f"{got.get(name)}; name another folder"
            )


def read_facts(folder: Path) -> Facts:
    """Facts of the audit in ``folder``.

    Raises:
        AuditError: there are none, or they are damaged.
    """
    return read_model(folder / FACTS_FILE, Facts, where_missing="run the audit again")

"""One audit, from its options to the signed report.

What `candor audit` does at once and `candor report-worker` as a job.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from torch import nn

from candor.audit.ara_session import held_out
from candor.audit.facts import collect, read_facts, settle_facts
from candor.audit.ledger import Ledger, read_plan
from candor.audit.plan import (
    BUDGETS,
    AuditPlan,
    FittedTemperature,
    Shard,
    code_digest,
    image_order,
    nearest_budget,
)
from candor.audit.real_images import RealImages
from candor.audit.registry import checked_stages
from candor.audit.report.assemble import read_evidence, write_report
from candor.audit.report.schema import Report
from candor.audit.run import Chosen, Progress, run_blocks
from candor.audit.sections import gallery
from candor.audit.sections.attacks import ATTACK_STAGES
from candor.audit.sections.comparison import Other
from candor.audit.stage import Subject
from candor.data.errors import DataMissing
from candor.data.images import Images
from candor.data.registry import load_for_model
from candor.models.folder import LoadedModel, load_model
from candor.robustness.calibration import LOWEST_TEMPERATURE
from candor.robustness.measure import temperature_of
from candor.runtime.preparation import compiled_for, compiling_pays
from candor.search.network import checked


class BadOption(ValueError):
    """An option is out of its range, or what it names is missing, damaged or does not fit.

    Attributes:
        field: of `AuditRequest`, and of the service's request.
    """

    def __init__(self, field: str, description: str) -> None:
        super().__init__(f"{field}: {description}")
        self.field = field
        self.description = description


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRequest:
    """Options that decide the numbers.

    Attributes:
        model, independent, undefended: model folders.
        attacks: by name; empty for all.
        has_extras: whether masking panel, certificates and explanations are part of it.
        steps: of the solvers; None for those of the budget.
        budget: its name, of `candor.audit.plan.BUDGETS`.
        counts: those that are to differ from the budget's, by the name of its field.
        compiles: whether the solvers step through the compiled network; None where it pays.
    """

    model: Path
    data: str
    data_dir: Path | None
    image_count: int
    attacks: tuple[str, ...]
    has_extras: bool
    seed: int
    steps: int | None
    batch_size: int
    budget: str
    counts: Mapping[str, int]
    compiles: bool | None
    independent: Path | None
    undefended: Path | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedAudit:
    """Models and data in memory, and the plan they make."""

    subject: Subject
    dataset: Images
    plan: AuditPlan


def prepare(
    request: AuditRequest, *, notify: Callable[[str], None] = lambda notice: None
) -> PreparedAudit:
    """Load the models and the data of a request.

    Args:
        notify: called with a line for the user before a long wait.
    Raises:
        BadOption: a model or the data is missing, damaged or does not fit, or an option is out of
            its range.
    """

    def load(field: str, folder: Path) -> LoadedModel:
        with option(field, folder.name):
            return load_model(folder)

    loaded = load("model", request.model)
    given = {"independent": request.independent, "undefended": request.undefended}
    beside = {name: None if path is None else load(name, path) for name, path in given.items()}
    with option("data", request.data):
        dataset = load_for_model(request.data, "test", request.data_dir, loaded.card)
    _check_count(request.image_count, len(dataset))
    steps = {} if request.steps is None else {"steps": request.steps}
    budget = BUDGETS[request.budget].model_copy(update={**request.counts, **steps})
    with option("attacks", ", ".join(request.attacks)):
        attacks = request.attacks or tuple(ATTACK_STAGES)
        stages = checked_stages(attacks, has_extras=request.has_extras)
    searcher = _searcher(loaded, request, budget.steps, notify)
    networks = {name: None if found is None else found.network for name, found in beside.items()}
    is_explained = "explanations" in stages and budget.explanation_images > 0
    real = _real_images(request, loaded, networks["independent"], dataset) if is_explained else None
    temperature = _temperature(loaded, dataset, request) if "calibration" in stages else None
    plan = AuditPlan(
        weights_sha256=loaded.card.identity,
        data=dataset.name,
        data_sha256=dataset.digest(),
        code_sha256=code_digest(),
        image_count=request.image_count,
        seed=request.seed,
        stages=stages,
        batch_size=request.batch_size,
        engine="eager" if searcher is None else "compiled",
        budget=budget,
        independent_sha256=_weights(beside["independent"]),
        undefended_sha256=_weights(beside["undefended"]),
        real_sha256=None if real is None else real.digest(),
        temperature=temperature,
    )
    subject = Subject(
        network=loaded.network,
        card=loaded.card,
        searcher=searcher,
        real=real,
        temperature=1.0 if temperature is None else temperature.value,
        **networks,
    )
    return PreparedAudit(subject=subject, dataset=dataset, plan=plan)


def compute(
    prepared: PreparedAudit,
    out: Path,
    *,
    shard: Shard,
    report: Callable[[Progress], None],
    other: Other | None = None,
) -> int:
    """Run what is unfinished of a shard into the ledger in ``out``; parts left to other shards.

    Args:
        other: a report to compare with, which decides what is in the gallery.
    Raises:
        AuditError: see `candor.audit.run.run_blocks` and `candor.audit.facts.collect`, or ``other``
            is of other images.
    """
    subject, dataset, plan = prepared.subject, prepared.dataset, prepared.plan
    facts = collect(subject.network, subject.card, dataset)
    ledger = Ledger(out, plan)
    settle_facts(out, facts)

    def chosen() -> Chosen:
        evidence = read_evidence(ledger, plan, facts)
        return gallery.blocks(gallery.choose(evidence, plan, other))

    return run_blocks(
        ledger,
        plan,
        subject,
        dataset,
        shard=shard,
        report=report,
        chosen=chosen if gallery.is_wanted(plan) else None,
    )


def finish(out: Path, key: Ed25519PrivateKey, other: Other | None) -> Report:
    """Write and sign the report of the finished ledger in ``out``.

    Raises:
        AuditError: see `candor.audit.report.assemble.write_report`.
    """
    command = _command(read_facts(out).model.name, read_plan(out))
    return write_report(out, key, command=command, other=other)


@contextmanager
def option(field: str, got: str) -> Iterator[None]:
    """Errors within as `BadOption` of ``field``, once."""
    try:
        yield
    except (ValueError, OSError) as err:
        reason = str(err).removeprefix(f"{field}: ")
        is_whole = reason.startswith(("got ", "expected "))
        raise BadOption(field, reason if is_whole else f"got {got!r}; {reason}") from err


def _temperature(loaded: LoadedModel, dataset: Images, request: AuditRequest) -> FittedTemperature:
    """Of least NLL, on images that the audit does not see where there are enough."""
    count = request.image_count
    order = image_order(len(dataset), request.seed)
    others = held_out(order, count)
    rows = order[:count] if others is None else others
    found = temperature_of(
        checked(loaded.network),
        dataset.images(rows),
        dataset.labels[rows],
        batch_size=request.batch_size,
    )
    ends = (found.value, found.low, found.high)
    value, low, high = (max(LOWEST_TEMPERATURE, round(end, 2)) for end in ends)
    return FittedTemperature(
        value=value,
        low=low,
        high=high,
        image_count=found.image_count,
        is_held_out=others is not None,
    )


def _weights(loaded: LoadedModel | None) -> str | None:
    return None if loaded is None else loaded.card.identity


def _searcher(
    loaded: LoadedModel, request: AuditRequest, steps: int, notify: Callable[[str], None]
) -> nn.Module | None:
    """The compiled network; None where it does not pay or cannot be."""
    if not compiling_pays(request.compiles, request.image_count * steps):
        return None
    batch_size = min(request.batch_size, request.image_count)
    compiled = compiled_for(loaded, batch_size, notify=notify)
    return None if compiled is loaded.network else compiled


def _real_images(
    request: AuditRequest, loaded: LoadedModel, independent: nn.Module | None, test: Images
) -> RealImages | None:
    """None without an independent model, and where the data has no training images here."""
    if independent is None:
        return None
    try:
        training = load_for_model(request.data, "train", request.data_dir, loaded.card)
    except DataMissing:
        return None
    return RealImages.of(independent, training, test, request.seed)


def _check_count(count: int, available: int) -> None:
    if count > available:
        raise BadOption("image_count", f"expected [2, {available}], got {count}")


def _command(model_name: str, plan: AuditPlan) -> str:
    """What to type for the same ledger; models by name, for paths say nothing elsewhere."""

    attacks = ",".join(name for name in plan.stages if name in ATTACK_STAGES)
    words = [
        f"candor audit --model {model_name} --data {plan.data.split('/')[0]}",
        f"--images {plan.image_count} --seed {plan.seed} --attacks {attacks}",
        f"--steps {plan.budget.steps} --batch-size {plan.batch_size}",
    ]
    words.append("--compile" if plan.engine == "compiled" else "--no-compile")
    name, counts = nearest_budget(plan.budget)
    words.append(f"--budget {name}")
    words += [f"--{key.replace('_', '-')} {count}" for key, count in counts.items()]
    if "panel" not in plan.stages:
        words.append("--attacks-only")
    if plan.independent_sha256 is not None:
        words.append("--independent MODEL")
    if plan.undefended_sha256 is not None:
        words.append("--undefended MODEL")
    return " ".join(words)

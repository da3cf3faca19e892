"""Runs the unfinished blocks of an audit into its ledger."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from candor.attacks.memory import is_out_of_memory
from candor.audit import registry
from candor.audit.ensemble import combine
from candor.audit.errors import AuditError, BlockFailed, OutOfMemory
from candor.audit.ledger import Block, Ledger
from candor.audit.plan import AuditPlan, Shard
from candor.audit.records import AttackRecord, Row
from candor.audit.sections import gallery
from candor.audit.sections.attacks import ATTACK_STAGES
from candor.audit.stage import Batch, Stage, Subject
from candor.data.images import Images
from candor.robustness.ara import accuracy_robustness_area, naive_accuracy
from candor.terms import Goal

# Blocks of the gallery and the positions of their images.
Chosen = Mapping[Block, Sequence[int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """State of a running audit.

    Attributes:
        done, total: network evaluations of this shard, estimated.
        stage: now running, "" at the end.
        images_done: images that at least one attack was tried on.
        attack_ara: RMSE, of those images; None before there are any.
    """

    done: int
    total: int
    stage: str
    images_done: int
    attack_ara: float | None


class _Part(NamedTuple):
    """A block to compute, and the name that people see of its stage."""

    name: str
    block: Block
    positions: Sequence[int]
    stage: Stage[AttackRecord] | Stage[Row]


def run_blocks(
    ledger: Ledger,
    plan: AuditPlan,
    subject: Subject,
    data: Images,
    *,
    shard: Shard = Shard(),  # noqa: B008 - frozen
    report: Callable[[Progress], None] = lambda progress: None,
    chosen: Callable[[], Chosen] | None = None,
) -> int:
    """Compute what is unfinished of a shard, block by block.

    Args:
        chosen: blocks of the gallery, asked for where all others are finished; None without one.
    Returns:
        Blocks of the whole plan still missing in this ledger: those of other shards.
    Raises:
        AuditError: more images than there are, or another process has this shard.
        BlockFailed, OutOfMemory, DiskFull: a block could not be computed or written; what was
            finished stays.
    """
    if plan.image_count > len(data):
        raise AuditError(f"image_count: expected [2, {len(data)}], got {plan.image_count}")
    everything = registry.blocks(plan)
    own = everything[shard.index :: shard.count]
    indices = plan.image_indices(len(data))
    total = sum(_cost(block, plan) for block in own)
    total += 0 if chosen is None else gallery.estimated_steps(plan)
    with ledger.locked(shard):
        area = _RunningArea(naive_accuracy(data.labels.numpy(), len(data.class_names)))
        for block in filter(ledger.has, everything):
            if block.stage in ATTACK_STAGES:
                area.add(ledger.records(block))
        done = sum(_cost(block, plan) for block in own if ledger.has(block))
        for part in _unfinished(ledger, own, everything, chosen):
            report(area.progress(done, total, part.name))
            started = time.monotonic()
            entries = _run_part(part, plan, subject, data, indices)
            ledger.write(part.block, entries, time.monotonic() - started)
            area.add(entry for entry in entries if isinstance(entry, AttackRecord))
            done = min(total, done + part.stage.steps(plan.budget) * len(part.positions))
        report(area.progress(total, total, ""))
    return sum(not ledger.has(block) for block in everything)


@contextmanager
def stoppable(subject: Subject, check: Callable[[], None]) -> Iterator[None]:
    """Call ``check`` before every evaluation of the network; what it raises ends the audit.

    A block may take minutes, an evaluation fractions of a second.  ``check`` raises `AuditStopped`.
    """
    networks = filter(None, (subject.network, subject.searcher))
    hooks = [each.register_forward_pre_hook(lambda module, inputs: check()) for each in networks]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _unfinished(
    ledger: Ledger,
    own: Sequence[Block],
    everything: Sequence[Block],
    chosen: Callable[[], Chosen] | None,
) -> Iterator[_Part]:
    """The next part to compute, as long as there is one; each is finished when it goes on."""
    for block in own:
        if not ledger.has(block):
            positions = range(block.start, block.stop)
            yield _Part(block.stage, block, positions, registry.STAGES[block.stage])
    if chosen is not None and all(map(ledger.has, everything)):
        for block, selected in chosen().items():
            if not ledger.has(block):
                yield _Part(gallery.FOLDER, block, selected, gallery.STAGE)


def _run_part(
    part: _Part, plan: AuditPlan, subject: Subject, data: Images, indices: Sequence[int]
) -> Sequence[AttackRecord] | Sequence[Row]:
    rows = [indices[position] for position in part.positions]
    batch = Batch(
        positions=part.positions,
        indices=rows,
        identifiers=[data.identifiers[index] for index in rows],
        images=data.images(torch.tensor(rows)),
        labels=data.labels[torch.tensor(rows)],
        seed=plan.seed,
        size=plan.batch_size,
    )
    try:
        return part.stage.run(subject, batch, plan.budget)
    except Exception as err:  # whatever a stage or a library meets ends as one readable reason
        place = f"{part.name} on images {part.positions[0]} to {part.positions[-1]}"
        if is_out_of_memory(err):
            raise OutOfMemory(
                f"batch_size: expected as many as memory holds, got {plan.batch_size}; "
                f"it ran out at {place}"
            ) from err
        raise BlockFailed(place, err) from err


def _cost(block: Block, plan: AuditPlan) -> int:
    steps = registry.STAGES[block.stage].steps(plan.budget)
    return steps * (block.stop - block.start)


class _RunningArea:
    """Attack ARA of the images seen so far, the estimate a person watches."""

    def __init__(self, naive: float) -> None:
        self._naive = naive
        self._records: list[AttackRecord] = []

    def add(self, records: Iterable[AttackRecord]) -> None:
        self._records += [
            record for record in records if record.goal is Goal.ATTACK and record.is_tried
        ]

    def progress(self, done: int, total: int, stage: str) -> Progress:
        positions = sorted({record.position for record in self._records})
        return Progress(
            done=done,
            total=total,
            stage=stage,
            images_done=len(positions),
            attack_ara=self._value(positions) if positions else None,
        )

    def _value(self, positions: Sequence[int]) -> float:
        return accuracy_robustness_area(
            combine(self._records, "attack", positions).values,
            naive=self._naive,
            generator=np.random.default_rng(0),
            resample_count=1,
        ).value

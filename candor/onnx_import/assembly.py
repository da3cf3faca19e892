"""Module of a graph for any batch, and the proof that images do not change each other's logits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from candor.onnx_import.batch import Repair
from candor.onnx_import.build import Built, NodeError, build
from candor.onnx_import.classifier import ImageInput, cam_step, class_count
from candor.onnx_import.graph import Graph
from candor.onnx_import.limits import OnnxImportError, OnnxLimits
from candor.onnx_import.module import OnnxModule, Values

BATCHES = (2, 3, 5)  # sizes that a straight line through two of them is checked with
_TOLERANCE = 1e-4  # of the largest logit: float32 summed in another order
_MOST_ATTEMPTS = 64


@dataclass(frozen=True, slots=True)
class Draft:
    """A graph as a classifier, before a module is made of it."""

    graph: Graph
    image: ImageInput
    logits: str
    activation: str
    limits: OnnxLimits


@dataclass(frozen=True, slots=True)
class Plan:
    """How a graph takes any batch.

    Attributes:
        own: the exporter's batch, which every Reshape is mended for; None: the graph as it is.
        choices: pairs of the place of a Reshape and its possibility, see `Repair`.
        chunk: images of one run where nothing else works; None for any number.
    """

    own: int | None = None
    choices: tuple[tuple[int, int], ...] = ()
    chunk: int | None = None


@dataclass(frozen=True, slots=True)
class Assembled:
    module: OnnxModule
    classes: int
    cam_layer: str | None


def best_plan(draft: Draft) -> tuple[Plan, Assembled]:
    """The first way whose logits of an image do not depend on the others of its batch.

    Raises:
        OnnxImportError: the graph cannot be computed in any way.
    """
    own = draft.image.batch or 1
    for plan in _plans(draft, own):
        try:
            assembled = assemble(draft, plan)
        except OnnxImportError:
            continue
        if is_independent(assembled.module, draft.image.shape):
            return plan, assembled
    plan = Plan(chunk=own)
    return plan, assemble(draft, plan)


def _plans(draft: Draft, own: int) -> Iterator[Plan]:
    yield Plan()
    choices = _fitting_choices(draft, own)
    if choices is not None:
        yield Plan(own=own, choices=choices)


def assemble(draft: Draft, plan: Plan) -> Assembled:
    """
    Raises:
        OnnxImportError: a node cannot be computed this way.
    """
    if plan.chunk:
        built = _built(draft, (plan.chunk,))
    elif plan.own:
        built = _built(draft, _multiples(plan.own), _repair(draft, plan.own, dict(plan.choices)))
    else:
        built = _built(draft, BATCHES)
    place = cam_step(built.steps, built.values)
    module = OnnxModule(
        built.steps,
        _weights(draft.graph, built),
        input_name=draft.image.name,
        output_name=draft.logits,
        channels_last=draft.image.channels_last,
        chunk=plan.chunk,
    )
    classes = class_count(draft.logits, built.values[draft.logits])
    return Assembled(module.eval(), classes, None if place is None else f"nodes.{place}")


def _multiples(own: int) -> tuple[int, ...]:
    return tuple(own * count for count in BATCHES)


def _built(draft: Draft, batches: tuple[int, ...], repair: Repair | None = None) -> Built:
    inputs = shapes_of(draft.image, batches)
    return build(draft.graph, inputs, batches, [draft.logits], draft.limits, repair)


def shapes_of(image: ImageInput, batches: Sequence[int]) -> dict[str, list[Tensor]]:
    """Images without numbers, one tensor for each size of the batch, by the name of the input."""
    return {image.name: [torch.empty(image.sizes(batch), device="meta") for batch in batches]}


def _repair(draft: Draft, own: int, choices: dict[int, int]) -> Repair:
    values = _built(draft, (own,)).values
    shapes = {name: value.shapes[0] for name, value in values.items()}
    return Repair(shapes, own, _multiples(own), choices)


def _fitting_choices(draft: Draft, own: int) -> tuple[tuple[int, int], ...] | None:
    """Possibilities with which every node fits; the latest one is changed first.

    Raises:
        OnnxImportError: a node cannot be computed even for the exporter's own batch.
    """
    choices: dict[int, int] = {}
    template = _repair(draft, own, choices)
    for _ in range(_MOST_ATTEMPTS):
        repair = template.again(choices)
        try:
            _built(draft, _multiples(own), repair)
        except NodeError:
            changed = _next(choices, repair.counts)
            if changed is None:
                return None
            choices = changed
        else:
            return tuple(sorted(choices.items()))
    return None


def _next(choices: dict[int, int], counts: dict[int, int]) -> dict[int, int] | None:
    """The choices after these, as digits of which the last counts up; None after the last."""
    for place in sorted(counts, reverse=True):
        if choices.get(place, 0) + 1 < counts[place]:
            earlier = {key: choice for key, choice in choices.items() if key < place}
            return earlier | {place: choices.get(place, 0) + 1}
    return None


def _weights(graph: Graph, built: Built) -> Values:
    values = Values()
    names = {name: None for step in built.steps for _, name in step.values if name in graph.initial}
    for name in names:
        tensor, is_kept = graph.initial[name], name in graph.kept
        values.add(name, tensor.clone(), learned=name in graph.learned, kept=is_kept)
    for name, tensor in built.constants.items():
        if name not in names:
            values.add(name, tensor, learned=False, kept=False)
    return values


def is_independent(module: OnnxModule, shape: tuple[int, int, int]) -> bool:
    """Whether an image has the same logits alone and among others (evaluation mode)."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(3, *shape, generator=generator)
    with torch.no_grad():
        try:
            together = module(images)
            alone = torch.cat([module(image[None]) for image in images])
        except (RuntimeError, ValueError):
            return False
    return together.shape == alone.shape and _agree(together, alone)


def _agree(a: Tensor, b: Tensor) -> bool:
    most = float(a.abs().max())
    return bool(((a - b).abs() <= _TOLERANCE * max(most, 1e-30)).all())

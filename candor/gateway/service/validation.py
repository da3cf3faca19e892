"""Checks a request against the contract; all bad fields are reported at once.

A request is a plain mapping, the same from both transports.  Here, and nowhere later on its way, an
image is decoded and its pixel range is checked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from candor import terms
from candor.contracts import limits
from candor.contracts.api import ClassRef, ImageInput, ModelDetails, PredictRequest, Region
from candor.contracts.card import Preprocessing
from candor.contracts.errors import ErrorCode, FieldViolation, ServiceError, invalid_input
from candor.contracts.names import UnknownClass, class_index
from candor.contracts.reports import ReportState
from candor.contracts.violations import shown, violations_of
from candor.gateway.pools import IMAGES, PREDICTED_IMAGES
from candor.gateway.workers.codec import Arrays
from candor.images.decode import BadImage, decode
from candor.images.pixels import Pixels
from candor.images.region import Mask, region_mask

RequestT = TypeVar("RequestT", bound=BaseModel)
PartT = TypeVar("PartT", bound=BaseModel)

_MAX_VIOLATIONS = 64  # in one response; a hostile request could hold a million
_MAX_VALUES = 1000  # keys and entries of one request; the largest useful one has about 200
_EXPECTED = {
    "allow_partial": "true or false",
    "attacks_only": "true or false",
    "away_from": "an object with index or name",
    "box": "an object with x, y, width and height",
    "batch_size": f"a whole number in [1, {limits.MAX_REPORT_BATCH}]",
    "budget": ", ".join(limits.BUDGETS),
    "direction": "for or against",
    "goals": "attack or btr",
    "height": "a whole number of pixels, 1 or more",
    "idempotency_key": f"at most {limits.MAX_KEY_CHARS} printable ASCII characters",
    "image": "an object with encoded or tensor",
    "image_count": f"a whole number in [{limits.MIN_REPORT_IMAGES}, {limits.MAX_REPORT_IMAGES}]",
    "include_tensor": "true or false",
    "index": "a class index, 0 or more",
    "label": "an object with index or name",
    "mask": "a PNG as base64",
    "no_cache": "true or false",
    "norm": ", ".join(terms.Norm),
    "outside": "true or false",
    "page_size": f"a whole number in [1, {limits.MAX_PAGE_SIZE}]",
    "quick": "true or false",
    "region": "an object with mask or box",
    "rho": "a size in (0, 1]",
    "rhos": "a size in (0, 1]",
    "seed": f"a whole number in [0, {limits.MAX_SEED}]",
    "state": ", ".join(ReportState),
    "steps": f"a whole number in [1, {limits.MAX_STEPS}]",
    "target": "an object with index or name",
    "targets": "an object with index or name",
    "timeout_seconds": f"seconds, a number in (0, {limits.MAX_TIMEOUT_SECONDS:g}]",
    "top_k": f"a whole number in [1, {limits.MAX_TOP_K}]",
    "width": "a whole number of pixels, 1 or more",
    "x": "a whole number of pixels, 0 or more",
    "y": "a whole number of pixels, 0 or more",
}
_OVERSIZED = FieldViolation("request", f"expected at most {_MAX_VALUES} values, got more")


@dataclass(frozen=True, slots=True)
class Checked(Generic[RequestT]):
    """A request without violations, and what was read from it.

    Attributes:
        image: the decoded image, (C, H, W) float32 in [0, 1].
        classes: index of every class the request names, by dotted path.
        mask: how far every pixel may change, (H, W) float32 in [0, 1]; None without a region.
    """

    request: RequestT
    image: Pixels
    classes: Mapping[str, int]
    mask: Mask | None = None

    @property
    def arrays(self) -> Arrays:
        """Those of the request's search items."""
        given = {"image": self.image}
        return given if self.mask is None else given | {"mask": self.mask}


def requested_model(payload: Any) -> str:
    """The model that a request names, empty for the default (also where the field is bad)."""
    name = payload.get("model", "") if isinstance(payload, Mapping) else ""
    return name if isinstance(name, str) else ""


def sent_image(payload: Any) -> bytes:
    """The image of a request as it was sent, not decoded; empty where it is bad."""
    if not isinstance(payload, Mapping) or is_oversized(payload):
        return b""
    image = _part(ImageInput, payload.get("image"))
    if image is None:
        return b""
    if image.tensor is not None:
        return repr(image.tensor.shape).encode() + image.tensor.data
    return image.encoded or b""


def unknown_model(
    name: str, available: tuple[str, ...], payload: Any = None, kind: type[BaseModel] | None = None
) -> ServiceError:
    """MODEL_NOT_FOUND, with all other violations that can be found without a model.

    Args:
        kind: model of the request; None to look for no other violation.
    """
    description = f"expected one of {', '.join(available)}, got {shown(name)}"
    violations = [FieldViolation("model", description)]
    if kind is not None and not is_oversized(payload):
        violations += _parse(kind, payload)[1]
    return ServiceError(
        ErrorCode.MODEL_NOT_FOUND, f"model: {description}", violations=violations[:_MAX_VIOLATIONS]
    )


def parsed(kind: type[RequestT], payload: Any) -> RequestT:
    """The request, checked without a model, or every violation at once.

    Raises:
        ServiceError: INVALID_INPUT.
    """
    if is_oversized(payload):
        raise invalid_input([_OVERSIZED])
    return parsed_loosely(kind, payload)


def parsed_loosely(kind: type[PartT], payload: Any) -> PartT:
    """The same for a part that may have many values, such as a tensor."""
    request, violations = _parse(kind, payload)
    if request is None:
        raise invalid_input(violations[:_MAX_VIOLATIONS])
    return request


async def check(
    kind: type[RequestT], payload: Any, model: ModelDetails, preprocessing: Preprocessing
) -> Checked[RequestT]:
    """The request with its image and classes, or every violation at once.

    Args:
        model: whose input and classes decide what is valid.
        preprocessing: how an encoded image becomes an input of the model.

    Raises:
        ServiceError: INVALID_INPUT.
    """
    # In a thread: base64 of megabytes, and a large image takes longer to decode than a whole chunk
    # of searches.
    pool = PREDICTED_IMAGES if kind is PredictRequest else IMAGES
    return await pool.run(_checked, kind, payload, model, preprocessing)


def _checked(
    kind: type[RequestT], payload: Any, model: ModelDetails, preprocessing: Preprocessing
) -> Checked[RequestT]:
    if is_oversized(payload):
        raise invalid_input([_OVERSIZED])
    request, violations = _parse(kind, payload)
    fields = payload if isinstance(payload, Mapping) else {}
    classes, unknown = _resolve_classes(fields, model)
    violations += unknown + list(_pair_violations(fields)) + list(_solver_violations(fields, model))
    violations += _contrast_violations(classes, model)
    # The parsed image where there is one: base64 of megabytes is decoded once.
    source = fields.get("image") if request is None else getattr(request, "image", None)
    image, bad_image = _image(source, model, preprocessing)
    violations += bad_image
    mask = None
    if image is not None:
        region = fields.get("region") if request is None else getattr(request, "region", None)
        mask, bad_region = _mask(region, source, model, preprocessing)
        violations += bad_region
    if violations or request is None or image is None:
        raise invalid_input(_without_repeats(violations)[:_MAX_VIOLATIONS])
    return Checked(request, image, classes, mask)


def _without_repeats(violations: list[FieldViolation]) -> list[FieldViolation]:
    return list(dict.fromkeys(violations))


def _parse(kind: type[RequestT], payload: Any) -> tuple[RequestT | None, list[FieldViolation]]:
    if not isinstance(payload, Mapping):
        return None, [FieldViolation("request", f"expected an object, got {shown(payload)}")]
    try:
        return kind.model_validate(payload), []
    except ValidationError as err:
        return None, violations_of(err, _EXPECTED)


def is_oversized(payload: Any) -> bool:
    """Whether there are more keys and entries than any request needs.

    Each of them could become an error of its own.
    """
    pending, count = [payload], 0
    while pending and count <= _MAX_VALUES:
        value = pending.pop()
        if isinstance(value, Mapping):
            value = list(value.values())
        if isinstance(value, list | tuple):
            count += len(value)
            pending.extend(value[:_MAX_VALUES])
    return count > _MAX_VALUES


def _part(kind: type[PartT], value: Any) -> PartT | None:
    """One part of a request; None where `_parse` reports it."""
    try:
        return kind.model_validate(value)
    except ValidationError:
        return None


def _class_fields(fields: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    targets = fields.get("targets")
    if isinstance(targets, list | tuple):
        for position, value in enumerate(targets[: limits.MAX_TARGETS]):
            yield f"targets.{position}", value
    for name in ("label", "target", "away_from"):
        if fields.get(name) is not None:
            yield name, fields[name]


def _resolve_classes(
    fields: Mapping[str, Any], model: ModelDetails
) -> tuple[dict[str, int], list[FieldViolation]]:
    classes, violations = {}, []
    for path, value in _class_fields(fields):
        reference = _part(ClassRef, value)
        if reference is None:
            continue
        try:
            classes[path] = _class_index(reference, model)
        except UnknownClass as err:
            field = "name" if reference.index is None else "index"
            violations.append(FieldViolation(f"{path}.{field}", str(err)))
    return classes, violations


def class_violations(fields: Mapping[str, Any], model: ModelDetails) -> list[FieldViolation]:
    """The fields of a request that name no class of the model."""
    return _resolve_classes(fields, model)[1]


def _class_index(reference: ClassRef, model: ModelDetails) -> int:
    if reference.index is None:
        return class_index(reference.name or "", model.classes)
    if reference.index >= len(model.classes):
        expected = f"[0, {len(model.classes) - 1}]"
        raise UnknownClass(f"expected {expected}, got {shown(reference.index)}")
    return reference.index


def _contrast_violations(
    classes: Mapping[str, int], model: ModelDetails
) -> Iterator[FieldViolation]:
    """A class cannot be set against itself, however the request spells it."""
    away_from = classes.get("away_from")
    for path, index in classes.items():
        if path != "away_from" and index == away_from:
            got = f"{shown(model.classes[index])}, which is {path}, too"
            yield FieldViolation("away_from", f"expected another class than the targets, got {got}")


def _pair_violations(fields: Mapping[str, Any]) -> Iterator[FieldViolation]:
    targets, rhos = fields.get("targets"), fields.get("rhos") or ()
    if not isinstance(targets, list | tuple) or not isinstance(rhos, list | tuple):
        return
    pairs = len(targets) * max(1, len(rhos))
    if pairs > limits.MAX_EXPLANATIONS:
        yield FieldViolation(
            "rhos",
            f"expected at most {limits.MAX_EXPLANATIONS} explanations, "
            f"got {len(targets)} targets x {len(rhos)} rhos = {pairs}",
        )


def _solver_violations(fields: Mapping[str, Any], model: ModelDetails) -> Iterator[FieldViolation]:
    solver = fields.get("solver", terms.DEFAULT_SOLVER)
    if isinstance(solver, str) and solver not in model.solvers:
        yield FieldViolation(
            "solver", f"expected one of {', '.join(model.solvers)}, got {shown(solver)}"
        )


def _image(
    value: Any, model: ModelDetails, preprocessing: Preprocessing
) -> tuple[Pixels | None, list[FieldViolation]]:
    image = _part(ImageInput, value)
    if image is None:
        return None, []
    try:
        return decode(image, model.input, preprocessing), []
    except BadImage as err:
        return None, [err.violation]


def _mask(
    region: Any, image: Any, model: ModelDetails, preprocessing: Preprocessing
) -> tuple[Mask | None, list[FieldViolation]]:
    wanted, source = _part(Region, region), _part(ImageInput, image)
    if wanted is None or source is None:
        return None, []
    try:
        return region_mask(wanted, source, model.input, preprocessing), []
    except BadImage as err:
        return None, [err.violation]

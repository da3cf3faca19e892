"""Responses of the service from what workers found.

Everything here computes, for the most part it encodes PNGs: call it from a thread, never on the
event loop.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candor import terms
from candor.contracts import api
from candor.contracts.radius import radius_note, value_of
from candor.contracts.worker import CompareItem, CompareMissing, SearchItem
from candor.gateway.service import validation
from candor.gateway.service.search_pool import PoolResult, Snapshot
from candor.gateway.workers.codec import SaliencyPair, SearchOutcome
from candor.images import encode
from candor.images.pixels import Pixels
from candor.terms import Goal

_DIRECTIONS = {
    Goal.EXPLAIN_FOR: api.Direction.FOR,
    Goal.EXPLAIN_AGAINST: api.Direction.AGAINST,
}
# Fields of an end of a search and of an explanation: its size, measured in several ways.
_SIZES = {"rmse", "rho_1", "rho_1_5", "rho_inf", "rmse_inside", "sparsity"}
_PREVIEW_EDGE = 96  # pixels, the longer side of a preview at most


def explain_response(
    checked: validation.Checked[api.ExplainRequest],
    items: Sequence[SearchItem],
    results: Sequence[PoolResult],
    model: api.ModelDetails,
    request_id: str,
) -> api.ExplainResponse:
    """The explanations of ``items``, in order."""
    before = results[0].outcome.logits_before
    request = checked.request
    explanations = [
        _explanation(checked.image, item, one, model, request.top_k, request.include_tensor)
        for item, one in zip(items, results, strict=True)
    ]
    return api.ExplainResponse(
        explanations=tuple(explanations),
        predictions_before=strongest(before, model, checked.request.top_k),
        input_png=encode.encode_png(checked.image),
        model=model.model,
        request_id=request_id,
        median_radius=model.median_radius,
    )


def _explanation(
    image: Pixels,
    item: SearchItem,
    result: PoolResult,
    model: api.ModelDetails,
    top_k: int,
    includes_tensor: bool = False,
) -> api.Explanation:
    outcome = result.outcome
    before, after = softmax(outcome.logits_before), softmax(outcome.logits_after)
    return api.Explanation(
        target=_class_confidence(item.target, after, model),
        direction=_DIRECTIONS[item.goal],
        rho=item.rho,
        confidence_before=float(before[item.target]),
        confidence_after=float(after[item.target]),
        predicted_before=strongest(outcome.logits_before, model, 1)[0],
        predicted_after=strongest(outcome.logits_after, model, 1)[0],
        predictions_after=strongest(outcome.logits_after, model, top_k),
        steps=outcome.end.steps,
        status=outcome.end.status,
        solver=outcome.end.solver,
        image_png=encode.encode_png_toward(outcome.image, image),
        image_tensor=_tensor(outcome.image) if includes_tensor else None,
        is_partial=outcome.is_partial,
        from_cache=result.from_cache,
        flips=_flips(item, outcome),
        norm=item.norm,
        away_from=None
        if item.away_from is None
        else _class_confidence(item.away_from, after, model),
        radius_note=_radius_note(model, outcome.end.rmse),
        **outcome.end.model_dump(include=_SIZES),
    )


def _radius_note(model: api.ModelDetails, rmse: float) -> str:
    """Of an explanation; a smaller one than is recommended shows less of the same."""
    radius = value_of(model.median_radius)
    return radius_note(radius, max(rmse, model.recommended_rho))


def _flips(item: SearchItem, outcome: SearchOutcome) -> bool:
    """Whether the target became, or no longer is, the most probable class, as requested."""
    was, now = (
        int(logits.argmax()) == item.target
        for logits in (outcome.logits_before, outcome.logits_after)
    )
    return now and not was if item.goal is Goal.EXPLAIN_FOR else was and not now


def _tensor(image: NDArray[np.float32]) -> api.TensorInput:
    return api.TensorInput(shape=image.shape, data=image.astype("<f4").tobytes())


def progress_event(index: int, snapshot: Snapshot) -> api.ExplainStreamResponse:
    """The progress of one pair while its search runs."""
    image = snapshot.image
    progress = api.ExplainProgress(
        index=index,
        step=snapshot.step,
        step_count=snapshot.step_count,
        best_confidence=snapshot.best_confidence,
        best_rmse=snapshot.best_rmse,
        queue_position=snapshot.queue_position,
        preview_png=b"" if image is None else encode.encode_preview(image, _PREVIEW_EDGE),
    )
    return api.ExplainStreamResponse(progress=progress)


def probe_response(
    checked: validation.Checked[api.ProbeRequest],
    label: int,
    logits: NDArray[np.float32],
    results: Sequence[PoolResult],
    model: api.ModelDetails,
    request_id: str,
) -> api.ProbeResponse:
    """The probes of the request's goals, in order, for class ``label``; ``logits`` (V,)."""
    probed = [
        _probe_result(goal, label, one, checked.image, model)
        for goal, one in zip(checked.request.goals, results, strict=True)
    ]
    return api.ProbeResponse(
        results=tuple(probed),
        label=_class_confidence(label, softmax(logits), model),
        predictions_before=strongest(logits, model, checked.request.top_k),
        model=model.model,
        request_id=request_id,
    )


def _probe_result(
    goal: api.ProbeGoal,
    label: int,
    result: PoolResult,
    image: Pixels,
    model: api.ModelDetails,
) -> api.ProbeResult:
    outcome, end = result.outcome, result.outcome.end
    is_found = end.status is terms.SearchStatus.FOUND
    is_unresolved = end.status is terms.SearchStatus.UNRESOLVED
    return api.ProbeResult(
        goal=goal,
        status=end.status,
        radius=end.rmse if is_found else None if is_unresolved else 0.0,
        lower_bound=end.lower_bound if is_unresolved else None,
        falls_to=strongest(outcome.logits_after, model, 1)[0],
        label_confidence_after=float(softmax(outcome.logits_after)[label]),
        steps=end.steps,
        solver=end.solver,
        image_png=encode.encode_png_toward(outcome.image, image) if is_found else b"",
        is_partial=outcome.is_partial,
        from_cache=result.from_cache,
        rmse_inside=end.rmse_inside if is_found else None,
    )


def compare_response(
    checked: validation.Checked[api.CompareRequest],
    item: SearchItem,
    results: tuple[PoolResult, PoolResult],
    saliencies: Sequence[tuple[CompareItem, SaliencyPair | CompareMissing]],
    model: api.ModelDetails,
    request_id: str,
) -> api.CompareResponse:
    """Of the explanation that ``item`` stands for, the perturbation, and all saliencies.

    Args:
        results: the explanation and the perturbation.
    """
    explained, perturbed = results
    top_k = checked.request.top_k
    pairs = [(item.method, one) for item, one in saliencies if isinstance(one, SaliencyPair)]
    return api.CompareResponse(
        explanation=_explanation(checked.image, item, explained, model, top_k),
        perturbation=_perturbation(checked.image, item.target, perturbed.outcome, model),
        methods=tuple(
            _method_result(method, pair, checked.image, perturbed.outcome.image)
            for method, pair in pairs
        ),
        top_share=pairs[0][1].scores.top_share,
        predictions_before=strongest(explained.outcome.logits_before, model, top_k),
        input_png=encode.encode_png(checked.image),
        model=model.model,
        request_id=request_id,
        missing=tuple(
            api.MissingMethod(method=item.method, reason=one.reason)
            for item, one in saliencies
            if isinstance(one, CompareMissing)
        ),
    )


def _perturbation(
    image: Pixels, target: int, outcome: SearchOutcome, model: api.ModelDetails
) -> api.Perturbation:
    return api.Perturbation(
        rmse=outcome.end.rmse,
        confidence_before=float(softmax(outcome.logits_before)[target]),
        confidence_after=float(softmax(outcome.logits_after)[target]),
        predicted_after=strongest(outcome.logits_after, model, 1)[0],
        image_png=encode.encode_png_toward(outcome.image, image),
    )


def _method_result(
    method: api.Method, pair: SaliencyPair, image: Pixels, perturbed: Pixels
) -> api.MethodResult:
    height, width = pair.saliency.shape
    scores = pair.scores.model_dump(include={"energy_share", "rank_correlation", "cosine"})
    return api.MethodResult(
        method=method,
        saliency=api.SaliencyMap(
            height=height, width=width, data=pair.saliency.astype("<f4").tobytes()
        ),
        overlay_png=encode.encode_overlay(image, pair.saliency),
        perturbed_overlay_png=encode.encode_overlay(perturbed, pair.perturbed_saliency),
        **scores,
    )


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    """Confidences (V,) of logits (V,)."""
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(shifted / shifted.sum())


def strongest(
    logits: NDArray[Any], model: api.ModelDetails, count: int
) -> tuple[api.ClassConfidence, ...]:
    """The ``count`` strongest classes; of equals the lower index first."""
    confidences = softmax(logits)
    order = np.argsort(-confidences, kind="stable")[:count]
    return tuple(_class_confidence(int(index), confidences, model) for index in order)


def _class_confidence(
    index: int, confidences: NDArray[np.float64], model: api.ModelDetails
) -> api.ClassConfidence:
    return api.ClassConfidence(
        index=index, name=model.classes[index], confidence=float(confidences[index])
    )

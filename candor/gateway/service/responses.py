"""Answers of the service from what workers found.

Everything here computes, PNGs for the most part: call it from a thread, never on the event loop.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from candor import terms
from candor.contracts import api
from candor.contracts.worker import CompareItem, SearchItem
from candor.gateway.scheduling.jobs import Compared, SearchResult
from candor.gateway.service import validation
from candor.gateway.service.search_pool import Found, Snapshot
from candor.images import pixels
from candor.terms import Goal

_DIRECTIONS = {
    Goal.EXPLAIN_FOR: api.Direction.FOR,
    Goal.EXPLAIN_AGAINST: api.Direction.AGAINST,
}
_PREVIEW_EDGE = 96  # pixels, the longer side of a preview at most


def explain_response(
    checked: validation.Checked[api.ExplainRequest],
    items: Sequence[SearchItem],
    found: Sequence[Found],
    model: api.ModelDetails,
    request_id: str,
) -> api.ExplainResponse:
    before = found[0].result.logits_before
    request = checked.request
    explanations = [
        _explanation(checked.image, item, one, model, request.top_k, request.include_tensor)
        for item, one in zip(items, found, strict=True)
    ]
    return api.ExplainResponse(
        explanations=tuple(explanations),
        predictions_before=strongest(before, model, checked.request.top_k),
        input_png=pixels.encode_png(checked.image),
        model=model.model,
        request_id=request_id,
    )


def _explanation(
    image: pixels.Pixels,
    item: SearchItem,
    found: Found,
    model: api.ModelDetails,
    top_k: int,
    includes_tensor: bool = False,
) -> api.Explanation:
    result = found.result
    before, after = softmax(result.logits_before), softmax(result.logits_after)
    return api.Explanation(
        target=_class_confidence(item.target, after, model),
        direction=_DIRECTIONS[item.goal],
        rho=item.rho,
        rmse=result.end.rmse,
        confidence_before=float(before[item.target]),
        confidence_after=float(after[item.target]),
        predicted_before=strongest(result.logits_before, model, 1)[0],
        predicted_after=strongest(result.logits_after, model, 1)[0],
        predictions_after=strongest(result.logits_after, model, top_k),
        steps=result.end.steps,
        status=result.end.status,
        solver=result.end.solver,
        image_png=pixels.encode_png_toward(result.image, image),
        image_tensor=_tensor(result.image) if includes_tensor else None,
        is_partial=result.is_partial,
        from_cache=found.from_cache,
    )


def _tensor(image: NDArray[np.float32]) -> api.TensorInput:
    return api.TensorInput(shape=image.shape, data=image.astype("<f4").tobytes())


def progress_event(place: int, snapshot: Snapshot) -> api.ExplainStreamResponse:
    """What is told of one pair while its search runs."""
    image = snapshot.image
    progress = api.ExplainProgress(
        index=place,
        step=snapshot.step,
        step_count=snapshot.step_count,
        best_confidence=snapshot.best_confidence,
        best_rmse=snapshot.best_rmse,
        queue_position=snapshot.queue_position,
        preview_png=b"" if image is None else pixels.encode_preview(image, _PREVIEW_EDGE),
    )
    return api.ExplainStreamResponse(progress=progress)


def probe_response(
    checked: validation.Checked[api.ProbeRequest],
    label: int,
    logits: NDArray[np.float32],
    found: Sequence[Found],
    model: api.ModelDetails,
    request_id: str,
) -> api.ProbeResponse:
    probed = [
        _probe_result(goal, label, one, checked.image, model)
        for goal, one in zip(checked.request.goals, found, strict=True)
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
    found: Found,
    image: pixels.Pixels,
    model: api.ModelDetails,
) -> api.ProbeResult:
    result, end = found.result, found.result.end
    is_found = end.status is terms.SearchStatus.FOUND
    is_unresolved = end.status is terms.SearchStatus.UNRESOLVED
    return api.ProbeResult(
        goal=goal,
        status=end.status,
        radius=end.rmse if is_found else None if is_unresolved else 0.0,
        lower_bound=end.lower_bound if is_unresolved else None,
        falls_to=strongest(result.logits_after, model, 1)[0],
        label_confidence_after=float(softmax(result.logits_after)[label]),
        steps=end.steps,
        solver=end.solver,
        image_png=pixels.encode_png_toward(result.image, image) if is_found else b"",
        is_partial=result.is_partial,
        from_cache=found.from_cache,
    )


def compare_response(
    checked: validation.Checked[api.CompareRequest],
    item: SearchItem,
    found: tuple[Found, Found],
    compared: Sequence[tuple[CompareItem, Compared]],
    model: api.ModelDetails,
    request_id: str,
) -> api.CompareResponse:
    """``found``: the explanation that ``item`` asked for, and the perturbation."""
    explained, perturbed = found
    top_k = checked.request.top_k
    return api.CompareResponse(
        explanation=_explanation(checked.image, item, explained, model, top_k),
        perturbation=_perturbation(checked.image, item.target, perturbed.result, model),
        methods=tuple(
            _method_result(asked.method, one, checked.image, perturbed.result.image)
            for asked, one in compared
        ),
        top_share=compared[0][1].scores.top_share,
        predictions_before=strongest(explained.result.logits_before, model, top_k),
        input_png=pixels.encode_png(checked.image),
        model=model.model,
        request_id=request_id,
    )


def _perturbation(
    image: pixels.Pixels, target: int, result: SearchResult, model: api.ModelDetails
) -> api.Perturbation:
    return api.Perturbation(
        rmse=result.end.rmse,
        confidence_before=float(softmax(result.logits_before)[target]),
        confidence_after=float(softmax(result.logits_after)[target]),
        predicted_after=strongest(result.logits_after, model, 1)[0],
        image_png=pixels.encode_png_toward(result.image, image),
    )


def _method_result(
    method: api.Method, compared: Compared, image: pixels.Pixels, perturbed: pixels.Pixels
) -> api.MethodResult:
    height, width = compared.saliency.shape
    scores = compared.scores.model_dump(include={"energy_share", "rank_correlation", "cosine"})
    return api.MethodResult(
        method=method,
        saliency=api.SaliencyMap(
            height=height, width=width, data=compared.saliency.astype("<f4").tobytes()
        ),
        overlay_png=pixels.encode_overlay(image, compared.saliency),
        perturbed_overlay_png=pixels.encode_overlay(perturbed, compared.perturbed_saliency),
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

"""Probe: the smallest perturbations that change a prediction, or make it unconfident."""

import time
from typing import Any

from candor.contracts import api
from candor.contracts.worker import SearchItem
from candor.gateway.access.request_context import Priority
from candor.gateway.pools import PICTURES
from candor.gateway.service import responses, validation
from candor.gateway.service.admission import AdmittedRequest
from candor.gateway.service.items import item_maker
from candor.gateway.service.shadow import AnsweredRequest, Shadows
from candor.terms import Goal

_GOALS = {api.ProbeGoal.ATTACK: Goal.ATTACK, api.ProbeGoal.BTR: Goal.BTR}


async def respond(payload: Any, admitted: AdmittedRequest, shadows: Shadows) -> api.ProbeResponse:
    """Raises: ServiceError: INVALID_INPUT, OVERLOADED, TIMEOUT, or that of a search."""
    model = admitted.model
    checked = await validation.check(api.ProbeRequest, payload, model.details, model.preprocessing)
    logits = await model.logits(checked.image)
    label = checked.classes.get("label", int(logits.argmax()))
    items = _items(checked.request, label)
    options = admitted.search_options(checked.request, Priority.PROBE, len(items))
    async with admitted.searches(items, checked.arrays, options) as group:
        results = await group.results()
    started = time.monotonic()
    # In a thread: PNGs are encoded.
    response = await PICTURES.run(
        responses.probe_response,
        checked,
        label,
        logits,
        results,
        model.details,
        admitted.context.request_id,
    )
    model.answer_times.record(len(items), time.monotonic() - started)
    shadows.after_probe(AnsweredRequest.of(admitted, checked.arrays), items, results)
    return response


def _items(request: api.ProbeRequest, label: int) -> list[SearchItem]:
    make = item_maker(request)
    return [make(goal=_GOALS[goal], target=label) for goal in request.goals]

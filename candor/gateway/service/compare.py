"""Compare: how steady the explanations of several methods are under an imperceptible change."""

from dataclasses import dataclass
from typing import Any

from candor import terms
from candor.contracts import api
from candor.contracts.worker import CompareItem, SearchItem
from candor.gateway.access.request_context import Priority
from candor.gateway.pools import PICTURES
from candor.gateway.service import responses, validation
from candor.gateway.service.admission import AdmittedRequest
from candor.gateway.service.items import item_maker
from candor.gateway.service.search_pool import PoolResult, SearchOptions
from candor.gateway.workers.codec import Arrays
from candor.images.pixels import Pixels
from candor.terms import Goal


@dataclass(frozen=True, slots=True)
class _Searched:
    """The results of the searches of a comparison.

    Attributes:
        again: the explanation of the perturbed image.
    """

    explained: PoolResult
    perturbed: PoolResult
    again: PoolResult

    def arrays(self, image: Pixels) -> Arrays:
        """Those of a compare item; ``image`` is (C, H, W) float32."""
        return {
            "image": image,
            "perturbed": self.perturbed.outcome.image,
            "explanation": self.explained.outcome.image,
            "perturbed_explanation": self.again.outcome.image,
        }


async def respond(payload: Any, admitted: AdmittedRequest) -> api.CompareResponse:
    """Searches first, each needing the one before it; then every method's saliency.

    Raises:
        ServiceError: INVALID_INPUT, OVERLOADED, TIMEOUT, or that of a search or a saliency job.
    """
    details = admitted.model.details
    checked = await validation.check(
        api.CompareRequest, payload, details, admitted.model.preprocessing
    )
    target = await _target(checked, admitted)
    options = admitted.search_options(checked.request, Priority.EXPLAIN, count=len(api.Method))
    explain, perturb = _search_items(checked.request, target, details)
    searched = await _search(explain, perturb, checked.image, admitted, options)
    items = _compare_items(checked.request, target)
    saliencies = await admitted.model.search_pool.saliencies(
        items, searched.arrays(checked.image), options, admitted.slot
    )
    # In a thread: PNGs are encoded.
    return await PICTURES.run(
        responses.compare_response,
        checked,
        explain,
        (searched.explained, searched.perturbed),
        list(zip(items, saliencies, strict=True)),
        details,
        admitted.context.request_id,
    )


async def _target(
    checked: validation.Checked[api.CompareRequest], admitted: AdmittedRequest
) -> int:
    """The class that the request names, else the one predicted."""
    target = checked.classes.get("target")
    if target is not None:
        return target
    return int((await admitted.model.logits(checked.image)).argmax())


async def _search(
    explain: SearchItem,
    perturb: SearchItem,
    image: Pixels,
    admitted: AdmittedRequest,
    options: SearchOptions,
) -> _Searched:
    async with admitted.searches([explain, perturb], {"image": image}, options) as group:
        explained, perturbed = await group.results()
    moved = {"image": perturbed.outcome.image}
    async with admitted.searches([explain], moved, options) as group:
        (again,) = await group.results()
    return _Searched(explained, perturbed, again)


def _search_items(
    request: api.CompareRequest, target: int, model: api.ModelDetails
) -> tuple[SearchItem, SearchItem]:
    """The explanation, and the imperceptible perturbation."""
    make = item_maker(request)
    return (
        make(goal=Goal.EXPLAIN_FOR, target=target, rho=request.rho or model.recommended_rho),
        make(goal=Goal.EXPLAIN_AGAINST, target=target, rho=terms.IMPERCEPTIBLE_RMSE),
    )


def _compare_items(request: api.CompareRequest, target: int) -> list[CompareItem]:
    return [CompareItem(method=method, target=target, seed=request.seed) for method in api.Method]

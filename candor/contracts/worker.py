"""What the gateway asks of a worker and what it answers.

One call carries a list (`wire.pack_list`) of items and returns as many answers in the same order.
Every item and every answer is one `wire.pack` message whose ``meta`` is one of the models below;
an item that cannot be read is answered by an `ItemError` and harms no other.  The calls are::

    predict call   item: PredictItem + array image (C, H, W) float32
                   answer: PredictAnswer + array logits (V,) float32
    describe call  item: DescribeItem; answer: DescribeAnswer (any worker answers it)
    search call    item: SearchItem + array image (C, H, W) float32, and for a search that goes on
                   exactly the arrays of the last SearchProgress
                   answer while it runs: SearchProgress + what changes of the state, opaque to the
                   gateway but for best (C, H, W) float32, the best so far, which it may show
                   answer when it ends: SearchEnd + arrays image (C, H, W) float32,
                   logits_before and logits_after (V,) float32
    compare call   item: CompareItem + arrays image, perturbed, explanation and
                   perturbed_explanation (C, H, W) float32, the explanations of the first two
                   answer: CompareAnswer + arrays saliency and perturbed_saliency (H, W)
                   float32
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from candor import terms
from candor.contracts import limits
from candor.contracts.api import Correlation, Method, Probability, Rho, Seed, Steps
from candor.contracts.card import ModelCard
from candor.terms import Goal, SearchStatus


class _Meta(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PredictItem(_Meta):
    kind: Literal["predict"] = "predict"


class DescribeItem(_Meta):
    kind: Literal["describe"] = "describe"


class SearchItem(_Meta):
    """One search and how far to take it in this call.

    Attributes:
        target: class index: the label (attack, BTR, confident) or the class explained.
        rho: RMSE an explanation may reach; ignored by the other goals.
        step_count: steps of the whole search.
        step: steps done so far; 0 begins the search.
        chunk_steps: steps to take now; fewer if the search ends first.  0 ends the search where it
            is, with the best it has, verified like any other end.
    """

    kind: Literal["search"] = "search"
    goal: Goal
    target: Annotated[int, Field(ge=0)]
    rho: Rho = 1.0
    step_count: Steps = terms.DEFAULT_STEPS
    seed: Seed = 0
    solver: str = terms.DEFAULT_SOLVER
    step: Annotated[int, Field(ge=0)] = 0
    chunk_steps: Annotated[int, Field(ge=0, le=limits.MAX_STEPS)]


COMPARED_ARRAYS = ("image", "perturbed", "explanation", "perturbed_explanation")


class CompareItem(_Meta):
    """One method's saliency of an image and of its perturbed twin, held against explanations.

    Attributes:
        target: class index the saliency is of.
        seed: of what the method draws.
    """

    kind: Literal["compare"] = "compare"
    method: Method
    target: Annotated[int, Field(ge=0)]
    seed: Seed = 0


class PredictAnswer(_Meta):
    kind: Literal["predict_answer"] = "predict_answer"


class DescribeAnswer(_Meta):
    kind: Literal["describe_answer"] = "describe_answer"
    card: ModelCard


class SearchProgress(_Meta):
    """A running search: ``step`` done so far, and the best of it.

    Attributes:
        best_rmse: of the best perturbation so far; None before there is one.
        best_confidence: the target's confidence there.
    """

    kind: Literal["search_progress"] = "search_progress"
    step: int
    best_rmse: float | None
    best_confidence: float | None


class SearchEnd(_Meta):
    """A finished search, verified in float32.

    Attributes:
        rmse: of array ``image``; at most rho for an explanation, 0 when already wrong.
        lower_bound: only when unresolved, the largest RMSE visited without reaching the goal.
    """

    kind: Literal["search_end"] = "search_end"
    status: SearchStatus
    rmse: float
    lower_bound: float | None
    steps: int
    solver: str


class CompareAnswer(_Meta):
    """What is said of a saliency; see `candor.explainers.overlap`.

    Attributes:
        energy_share: of the explanation's squared change, inside the top ``top_share`` pixels.
        rank_correlation, cosine: between the two saliencies.
    """

    kind: Literal["compare_answer"] = "compare_answer"
    top_share: Probability
    energy_share: Probability
    rank_correlation: Correlation
    cosine: Correlation


class ItemError(_Meta):
    """Item that could not be served; ``message`` says what ``field`` got and what is allowed."""

    kind: Literal["error"] = "error"
    field: str
    message: str
    is_internal: bool = False


Item = Annotated[PredictItem | DescribeItem | SearchItem | CompareItem, Field(discriminator="kind")]
Answer = Annotated[
    PredictAnswer | DescribeAnswer | SearchProgress | SearchEnd | CompareAnswer | ItemError,
    Field(discriminator="kind"),
]
ITEM_ADAPTER: TypeAdapter[Item] = TypeAdapter(Item)
ANSWER_ADAPTER: TypeAdapter[Answer] = TypeAdapter(Answer)

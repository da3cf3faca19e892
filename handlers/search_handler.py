"""TorchServe handler of `{model}-search`: the next chunk of every search, and saliencies.

TorchServe wants exactly one class in this module.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from candor.contracts.worker import (
    COMPARED_ARRAYS,
    PARTIAL,
    CompareAnswer,
    CompareItem,
    CompareMissing,
    CompareProgress,
    DescribeAnswer,
    ItemError,
    SearchItem,
)
from candor.models.folder import LoadedModel
from candor.runtime.chunks import advance_items, check_image, check_item, check_target
from candor.runtime.engine import SearchEngine
from candor.tracing import Tracing
from handlers.envelopes import Task, answer_rows, seal, wrong_kind
from handlers.loading import load_worker_model, search_engine
from handlers.spans import batch_span, start_worker_tracing


class SearchHandler:
    """Holds the model and no state of any request: the state of a search travels with its item."""

    _model: LoadedModel
    _engine: SearchEngine
    _tracing: Tracing

    def initialize(self, context: Any) -> None:
        self._model = load_worker_model(context)
        self._engine = search_engine(self._model, context)
        self._tracing = start_worker_tracing()

    def handle(self, data: Sequence[Mapping[str, Any]], context: Any) -> list[bytes]:
        with batch_span(self._tracing, "search", data):
            return answer_rows(data, self._description(), self._check, self._compute)

    def _description(self) -> DescribeAnswer:
        now = self._engine.now
        return DescribeAnswer(
            card=self._model.card, engine=now.engine, precision=now.precision, note=now.note
        )

    def _check(self, task: Task) -> ItemError | None:
        card, item = self._model.card, task.item
        if isinstance(item, SearchItem):
            return check_item(card, item, task.arrays)
        if not isinstance(item, CompareItem):
            return wrong_kind(item, "search, compare")
        if (item.part > 0) != (PARTIAL in task.arrays):
            return ItemError(field=PARTIAL, message="expected from the second call on")
        problems = (check_image(card, task.arrays, name) for name in COMPARED_ARRAYS)
        return check_target(card, item.target) or next(filter(None, problems), None)

    def _compute(self, tasks: Sequence[Task]) -> list[bytes]:
        pairs = [(task.item, task.arrays) for task in tasks if isinstance(task.item, SearchItem)]
        networks = self._engine.now.networks  # of the whole chunk
        advanced = iter(advance_items(networks.verifier, pairs, searcher=networks.searcher))
        return [
            seal(*self._compared(task.item, task.arrays))
            if isinstance(task.item, CompareItem)
            else seal(*next(advanced))
            for task in tasks
        ]

    def _compared(
        self, item: CompareItem, arrays: Mapping[str, Any]
    ) -> tuple[CompareAnswer | CompareProgress | CompareMissing, Any]:
        # Imported for the first such item: captum adds about two seconds to a worker's start.
        from candor.explainers.compare import compare_item

        return compare_item(self._model.network, item, arrays)

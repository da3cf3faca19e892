"""OpenAPI, as a gateway with a store serves it, describes every field of the contract."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contracts.test_contract import ANNOTATION_MODELS
from tests.gateway.servers import opened
from tools.contract_drift import public_models


@pytest.fixture(scope="module")
def schema(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    address = str(tmp_path_factory.mktemp("store") / "store.sqlite")
    for servers in opened(store_url=address):
        described: dict[str, Any] = servers.rest.get("/openapi.json").json()
    return described


def objects(node: Any) -> Iterator[dict[str, Any]]:
    """Every schema with a title and properties, wherever it stands."""
    if isinstance(node, dict):
        if "title" in node and isinstance(node.get("properties"), dict):
            yield node
        node = list(node.values())
    if isinstance(node, list):
        for value in node:
            yield from objects(value)


def test_every_field_of_requests_and_responses_is_described(schema: dict[str, Any]) -> None:
    expected = {model.__name__ for model in (*public_models().values(), *ANNOTATION_MODELS)}
    # Only gRPC has the stream's message, only the query has a list's request, and the path of
    # one model describes it together with what KServe asks for.
    expected -= {"ExplainStreamResponse", "ModelDetails"}
    expected -= {"ListReportsRequest", "ListExplanationJobsRequest"}
    found = {item["title"]: item for item in objects(schema) if item["title"] in expected}
    assert found.keys() == expected
    for title, item in found.items():
        assert item.get("description"), title
        for name, field in item["properties"].items():
            assert field.get("description"), f"{title}.{name}"

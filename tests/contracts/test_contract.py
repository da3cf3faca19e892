"""Proto, descriptions and pydantic models agree, and drift of every kind is named."""

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from candor.contracts import annotations, api, reports
from candor.contracts.messages import Message
from tools import generate_pb
from tools.contract_drift import (
    ENUMS,
    WITHOUT_MODEL,
    Contract,
    differences,
    public_models,
    read_contract,
    stated_limits,
)

ANNOTATION_MODELS = [
    annotations.AnnotatorRequest,
    annotations.AnswerRequest,
    annotations.AnnotationTask,
    annotations.AnnotationState,
    annotations.FlipAnswerRequest,
    annotations.FlipTask,
    annotations.FlipState,
]
# Each changes one line of the contract, as a forgotten edit of the models would leave it.
EDITS = {
    "a field that only the proto has": (
        "  ClassRef away_from = 16;",
        "  ClassRef away_from = 16;\n  // Priority.\n  string priority = 17;",
        "ExplainRequest: priority is only in proto/",
    ),
    "a field that only the model has": (
        "  bool include_tensor = 10;",
        "  reserved 10;",
        "ExplainRequest: include_tensor is only in candor.contracts",
    ),
    "a value that only the proto has": (
        "  GOAL_BTR = 2;",
        "  GOAL_BTR = 2;\n  // Confident.\n  GOAL_CONFIDENT = 3;",
        "Goal: confident is only in proto/",
    ),
    "a range": (
        '// Search steps, [1, 2000]; default: 52 with "fast", 450',
        '// Search steps, [1, 3000]; default: 52 with "fast", 450',
        "ProbeRequest.steps: its comment says '[1, 3000]', which is not enforced",
    ),
    "a length": (
        "// Classes to explain, 1 to 32 entries.",
        "// Classes to explain.",
        "ExplainRequest.targets: '1 to 32 entries' is enforced and not in its comment",
    ),
    "a default": (
        "// Number of classes to return before and after, [1, 1000]; default: 5.",
        "// Number of classes to return before and after, [1, 1000]; default: 10.",
        "ExplainRequest.top_k: its comment says default ['10'], enforced is ['5']",
    ),
    "a name of a solver": (
        '// Solver of the search, "paper" or "fast"; default: "fast".',
        '// Solver of the search, "fast"; default: "fast".',
        "ExplainRequest.solver: values: paper is only in candor.contracts",
    ),
    "a limit that no schema holds": (
        "of at most 8 MiB",
        "of at most 4 MiB",
        "Image.encoded: '8 MiB' is enforced and not in its comment",
    ),
    "a missing comment": (
        "  // Softmax probability, [0, 1].\n",
        "",
        "ClassConfidence.confidence: has no comment in proto/",
    ),
    "a message without a model": (
        "message ListModelsRequest {}",
        "message ListModelsRequest {}\n// New.\nmessage Audit {}",
        "messages: Audit is only in proto/",
    ),
}


def compared(contract: Contract) -> list[str]:
    return differences(contract, public_models(), ENUMS)


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[str, str], Path]:
    """Copies `proto/` with one text replaced where it first stands."""

    def edit(old: str, new: str) -> Path:
        for path in generate_pb.PROTO_DIR.rglob("candor/**/*.proto"):
            copy = tmp_path / path.relative_to(generate_pb.PROTO_DIR)
            copy.parent.mkdir(parents=True, exist_ok=True)
            text = path.read_text()
            copy.write_text(text.replace(old, new, 1) if path.name == "candor.proto" else text)
        return tmp_path

    return edit


def test_proto_and_models_agree() -> None:
    assert compared(read_contract(generate_pb.read_protos())) == []


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_drift_of_every_kind_is_named(
    edited: Callable[[str, str], Path], edit: tuple[str, str, str]
) -> None:
    old, new, expected = edit
    assert old in (generate_pb.PROTO_DIR / "candor" / "v1" / "candor.proto").read_text()
    found = compared(read_contract(generate_pb.read_protos(edited(old, new))))
    assert expected in found


def test_limit_and_value_of_a_model_alone_are_named() -> None:
    class Found(StrEnum):
        FOUND = "found"

    class Item(Message):
        count: Annotated[int, Field(ge=1, le=7)]

    contract = Contract(
        messages={"Item": ("count",)},
        enums={"Found": ("FOUND_UNSPECIFIED",)},
        comments=dict.fromkeys(("Item", "Item.count", "Found", "Found.FOUND_UNSPECIFIED"), "Text."),
    )
    assert differences(contract, {"Item": Item}, {"Found": Found}) == [
        "Found: found is only in candor.contracts",
        "Item.count: '[1, 7]' is enforced and not in its comment",
    ]


def test_limits_are_read_from_comments() -> None:
    text = (
        "Rhos, (0, 1], at most 32 entries; (C, H, W); index in [0, class_count); at most 64 pairs."
    )
    assert stated_limits(text) == {"(0, 1]", "at most 32 entries", "at least 0"}


def test_stale_stubs_and_descriptions_are_named(tmp_path: Path) -> None:
    assert generate_pb.stale_files() == []
    stale = generate_pb.stale_files(descriptions=tmp_path / "descriptions.py")
    assert stale == ["descriptions.py"]
    assert "candor/v1/candor_pb2.py" in generate_pb.stale_files(stubs=tmp_path)


def test_messages_without_a_model_exist() -> None:
    assert read_contract(generate_pb.read_protos()).messages.keys() > WITHOUT_MODEL


@pytest.mark.parametrize(
    "model", [*public_models().values(), *ANNOTATION_MODELS], ids=lambda model: model.__name__
)
def test_every_public_model_and_field_has_a_description(model: type[Message]) -> None:
    schema = model.model_json_schema()
    assert model.__doc__
    assert schema["description"] == " ".join(model.__doc__.split())
    for name, field in schema["properties"].items():
        assert field.get("description"), f"{model.__name__}.{name}"
        assert model.model_fields[name].description == field["description"]


def test_descriptions_are_the_comments_of_the_proto() -> None:
    texts = generate_pb.comments(generate_pb.read_protos())
    schema = api.ExplainRequest.model_json_schema()
    assert schema["properties"]["rhos"]["description"] == texts["ExplainRequest.rhos"]
    assert schema["description"] == texts["ExplainRequest"]
    goal = api.ProbeRequest.model_json_schema()["$defs"]["ProbeGoal"]["description"]
    assert goal.startswith(texts["Goal"])
    assert f"btr: {texts['Goal.GOAL_BTR']}" in goal
    assert reports.ReportState.__doc__.startswith(texts["ReportState"])


def test_model_keeps_the_descriptions_of_its_own() -> None:
    class Served(api.ModelDetails):
        """Another text."""

        ready: Annotated[bool, Field(description="Whether it is ready.")]

    schema = Served.model_json_schema()
    assert schema["description"] == "Another text."
    assert schema["properties"]["ready"]["description"] == "Whether it is ready."
    assert schema["properties"]["classes"]["description"].startswith("Names of the classes")

"""The importer against the node tests of the ``onnx`` package: passed, refused, of how many.

``python -m tools.onnx_nodes`` prints the table, with ``--write`` also into docs/bring-your-own.md,
with ``--refused`` every reason.  A result that differs from the expected one is a failure, and the
command ends with an error.
"""

import sys
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from torch import Tensor

from candor.onnx_import.branches import without_branches
from candor.onnx_import.build import build
from candor.onnx_import.convert import graph_of, inlined, tensor_of
from candor.onnx_import.graph import Graph
from candor.onnx_import.limits import OnnxImportError, OnnxLimits
from candor.onnx_import.module import OnnxModule, Values
from candor.onnx_import.operators.dtypes import torch_dtype
from tools.sections import with_section, write_section

PAGE = Path(__file__).resolve().parents[1] / "docs" / "bring-your-own.md"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one node test.

    Attributes:
        status: "passed", "refused" or "failed".
        reason: why it was refused or failed.
    """

    name: str
    operator: str
    status: str
    reason: str = ""


def node_tests() -> list[Any]:
    """The node tests of the onnx package, which computes their data here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        return collect_testcases(None)


def outcome_of(case: Any) -> Outcome:
    """Import the one model of a node test and compare what it computes with its data."""
    operator = case.name.removeprefix("test_")
    nodes = case.model.graph.node
    operator = nodes[0].op_type if len(nodes) == 1 else operator
    try:
        for inputs, expected in case.data_sets:
            complaint = _difference(computed(case.model, inputs), expected, case)
            if complaint:
                return Outcome(case.name, operator, "failed", complaint)
    except OnnxImportError as err:
        return Outcome(case.name, operator, "refused", str(err))
    except Exception as err:  # anything else would reach a user as a crash
        return Outcome(case.name, operator, "failed", f"{type(err).__name__}: {err}"[:300])
    return Outcome(case.name, operator, "passed")


def computed(model: onnx.ModelProto, inputs: Sequence[Any]) -> list[Tensor]:
    """Outputs of a model of one node; inputs that its operator wants known are constants."""
    module, tensors = module_of(model, inputs)
    with torch.no_grad():
        values = module.run(tensors, 1)
    return [values[output.name] for output in model.graph.output]


def module_of(
    model: onnx.ModelProto, inputs: Sequence[Any]
) -> tuple[OnnxModule, dict[str, Tensor]]:
    """A module, and the tensors to run it with.

    Raises:
        OnnxImportError: an operator, a type or an attribute is not supported.
    """
    graph = graph_of(inlined(model))
    given = _tensors(graph, inputs)
    live, steps = dict(given), None
    while steps is None:
        try:
            steps = _built(graph, given, live)
        except OnnxImportError as err:
            # What decides a shape is a constant in a real network, and an input in these tests.
            known = [name for name in live if f"({name!r}) depends on the pixels" in str(err)]
            known = known or _last_integer(live, err)
            if not known:
                raise
            del live[known[0]]
    values = Values()
    for name, tensor in (graph.initial | given | steps.constants).items():
        if name not in live:
            values.add(name, tensor, learned=False, kept=False)
    outputs = [output.name for output in model.graph.output]
    module = OnnxModule(steps.steps, values, input_name="", output_name=outputs[0])
    return module.eval(), live


def _last_integer(live: dict[str, Tensor], err: OnnxImportError) -> list[str]:
    """Shapes reach some operators by way of others; integers are tried as constants one by one."""
    if "depends on the pixels" not in str(err):
        return []
    return [name for name, tensor in live.items() if not tensor.is_floating_point()][-1:]


def _built(graph: Graph, given: dict[str, Tensor], live: dict[str, Tensor]):  # type: ignore[no-untyped-def]
    known = {name: tensor for name, tensor in given.items() if name not in live}
    whole = Graph(graph.nodes, graph.initial | known, graph.inputs, graph.outputs, graph.opset)
    metas = {name: [tensor.to("meta")] for name, tensor in live.items()}
    metas = metas or {"": [torch.empty(0)]}
    whole = without_branches(whole, metas, (1,), OnnxLimits())
    return build(whole, metas, (1,), graph.outputs, OnnxLimits())


def _tensors(graph: Graph, inputs: Sequence[Any]) -> dict[str, Tensor]:
    tensors = {}
    for value, array in zip(graph.inputs, inputs, strict=True):
        if isinstance(array, onnx.TensorProto):
            tensors[value.name] = tensor_of(array)
            continue
        if not isinstance(array, np.ndarray | np.generic):
            raise OnnxImportError(f"input {value.name!r}: expected a tensor")
        try:
            torch_dtype(value.element_type)
            tensors[value.name] = torch.from_numpy(np.array(array))
        except (TypeError, ValueError) as err:
            raise OnnxImportError(f"input {value.name!r}: {err}") from err
    return tensors


def _difference(results: Sequence[Tensor], expected: Sequence[Any], case: Any) -> str:
    for result, wanted in zip(results, expected, strict=True):
        is_proto = isinstance(wanted, onnx.TensorProto)
        wanted = tensor_of(wanted) if is_proto else torch.from_numpy(np.array(wanted))
        if result.dtype != wanted.dtype:
            return f"expected {wanted.dtype}, got {result.dtype}"
        if result.shape != wanted.shape:
            return f"expected shape {tuple(wanted.shape)}, got {tuple(result.shape)}"
        rtol = max(case.rtol, _two_roundings(wanted))
        atol = max(case.atol, 1e-7)
        near = torch.isclose(result.double(), wanted.double(), rtol, atol, equal_nan=True)
        if not near.all():
            gap = (result.double() - wanted.double()).abs().max()
            return f"differs by {float(gap):.3g}"
    return ""


def _two_roundings(wanted: Tensor) -> float:
    return 2 * torch.finfo(wanted.dtype).eps if wanted.is_floating_point() else 0.0


def outcomes() -> Iterator[Outcome]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from map(outcome_of, node_tests())


def section(results: Sequence[Outcome]) -> str:
    """The table in Markdown, with the operators that are refused."""
    counts = _counts(results)
    total = Counter(result.status for result in results)
    rows = [
        f"| {name} | {row['passed']} | {row['refused']} |"
        for name, row in sorted(counts.items())
        if row["passed"]
    ]
    refused = sorted(
        name for name, row in counts.items() if not row["passed"] and name[0].isupper()
    )
    lines = [
        f"Of {len(results)} node tests of onnx {onnx.__version__}, {total['passed']} pass, "
        f"{total['refused']} are refused with a message that names the node, and "
        f"{total['failed']} fail.",
        "",
        "| operator | passed | refused |",
        "|---|---|---|",
        *rows,
        "",
        *textwrap.wrap(f"Refused whatever their attributes: {', '.join(refused)}.", 110),
    ]
    return "\n".join(lines) + "\n"


def page(results: Sequence[Outcome]) -> str:
    """The page of the documentation as it should be."""
    return with_section(PAGE.read_text(), "operators", section(results).rstrip("\n"))


def _counts(results: Sequence[Outcome]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for result in results:
        is_one = result.operator[0].isupper()
        name = result.operator if is_one else "functions of several nodes"
        counts.setdefault(name, Counter())[result.status] += 1
    return counts


def main() -> int:
    results = list(outcomes())
    if "--write" in sys.argv:
        write_section(PAGE, "operators", section(results).rstrip("\n"))
    for result in results:
        if result.status == "failed" or ("--refused" in sys.argv and result.status == "refused"):
            print(f"{result.status} {result.name}: {result.reason}")
    print(section(results))
    return int(any(result.status == "failed" for result in results))


if __name__ == "__main__":
    sys.exit(main())

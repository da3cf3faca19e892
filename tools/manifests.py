"""``python -m tools.manifests`` builds every manifest under k8s/, validates and checks it.

Objects of Kubernetes itself are validated against the schemas of three of its versions; of foreign
kinds only the pods inside.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import kubernetes_validate
import yaml
from rich.console import Console
from rich.table import Table

from tools.invariants import INVARIANTS, Manifest, Pod, name_of, pods

REPOSITORY = Path(__file__).resolve().parents[1]
K8S_DIR = REPOSITORY / "k8s"
VERSIONS = ("1.35", "1.36", "1.37")
# Their operators define these; their schemas are not Kubernetes' own.
FOREIGN_KINDS = (
    "PodMonitor",
    "PrometheusRule",
    "ScaledObject",
    "PyTorchJob",
    "ServingRuntime",
    "InferenceService",
)


class ManifestError(Exception):
    """A manifest cannot be built; the message is kubectl's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was found in one folder of manifests.

    Attributes:
        object_count: objects it builds, of them ``validated_count`` against every schema.
        problems: one line each; empty where all is well.
    """

    target: str
    object_count: int
    validated_count: int
    problems: tuple[str, ...]


def main() -> int:
    """Exit code 0 where every manifest is sound, else 1; a table either way."""
    try:
        reports = [check(target) for target in targets()]
    except ManifestError as err:
        print(f"manifests: {err}", file=sys.stderr)
        return 1
    _print_table(reports)
    return int(any(report.problems for report in reports))


def targets() -> list[Path]:
    """Folders that are applied as they are; components are part of them."""
    folders = (path.parent for path in K8S_DIR.rglob("kustomization.yaml"))
    return sorted(path for path in folders if "components" not in path.parts)


def check(target: Path) -> Report:
    """Raises: ManifestError: it cannot be built."""
    objects = build(target)
    own = [item for item in objects if item["kind"] not in FOREIGN_KINDS]
    inside = [_as_pod(pod) for pod in pods(objects)]
    problems = [*_schema_problems([*own, *inside])]
    for invariant in INVARIANTS:
        problems += invariant(objects)
    return Report(
        target=str(target.relative_to(K8S_DIR)),
        object_count=len(objects),
        validated_count=len(own),
        problems=tuple(problems),
    )


def build(target: Path) -> list[Manifest]:
    """The objects of a folder with a kustomization.

    Raises:
        ManifestError: kubectl is missing or reports an error.
    """
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        raise ManifestError("kubectl 1.27 or newer is needed on the path")
    done = subprocess.run([kubectl, "kustomize", str(target)], capture_output=True, text=True)
    if done.returncode != 0:
        raise ManifestError(f"{target.name}: {done.stderr.strip()}")
    return [item for item in yaml.safe_load_all(done.stdout) if item]


def _as_pod(pod: Pod) -> Manifest:
    metadata = {"name": pod.owner, "labels": pod.labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod.spec}


def _schema_problems(objects: Sequence[Manifest]) -> Iterator[str]:
    for version in VERSIONS:
        for item in objects:
            try:
                kubernetes_validate.validate(item, version, strict=True)
            except kubernetes_validate.ValidationError as err:
                place = ".".join(map(str, err.path))
                yield f"{name_of(item)}: Kubernetes {version}: {place}: {err.message[:200]}"
            except kubernetes_validate.SchemaNotFoundError as err:
                yield f"{name_of(item)}: {err.message}"


def _print_table(reports: Sequence[Report]) -> None:
    console = Console()
    table = Table("manifests", "objects", "validated", "invariants", "problems")
    for report in reports:
        counts = (report.object_count, report.validated_count, len(INVARIANTS))
        table.add_row(report.target, *map(str, counts), str(len(report.problems)))
    console.print(table)
    console.print(
        f"validated: strictly, against the schemas of Kubernetes {', '.join(VERSIONS)}; of "
        f"{', '.join(FOREIGN_KINDS)} only the pods inside, and no cluster has seen any of it."
    )
    for report in reports:
        for problem in report.problems:
            console.print(f"{report.target}: {problem}", style="red", markup=False)


if __name__ == "__main__":
    sys.exit(main())

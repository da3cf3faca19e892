"""Every manifest builds, fits the schemas of three Kubernetes versions and keeps the invariants."""

import copy
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml

from candor.cli.main import build_app
from candor.gateway import main
from candor.gateway.config.settings import Settings
from candor.gateway.observability.metrics import Metrics
from candor.stack import supervisor
from candor.stack.archives import MODELS_DIR
from candor.stack.torchserve import STANDARD_PORTS
from tools import invariants, manifests
from tools.invariants import INVARIANTS, Manifest, pods

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="no kubectl here")
TARGETS = [str(path.relative_to(manifests.K8S_DIR)) for path in manifests.targets()]
# Read by `candor candidates` and by the store, not by candor.gateway.config.settings.
STORE_SETTING = "CANDOR_STORE_URL"
DATA_SETTING = "CANDOR_DATA"


@pytest.fixture(scope="module")
def built() -> dict[str, list[Manifest]]:
    """What every folder builds, by its name."""
    return {target: manifests.build(manifests.K8S_DIR / target) for target in TARGETS}


@needs_kubectl
@pytest.mark.parametrize("target", TARGETS)
def test_manifests_are_sound(target: str) -> None:
    report = manifests.check(manifests.K8S_DIR / target)
    assert report.problems == ()
    assert report.validated_count > 0


def test_every_component_is_part_of_something_that_is_checked() -> None:
    texts = [(manifests.K8S_DIR / target / "kustomization.yaml").read_text() for target in TARGETS]
    used = {
        Path(line).name for text in texts for line in yaml.safe_load(text).get("components", ())
    }
    assert used == {path.name for path in (manifests.K8S_DIR / "components").iterdir()}


def find(objects: list[Manifest], kind: str) -> Manifest:
    return next(item for item in objects if item["kind"] == kind)


def pod_spec(objects: list[Manifest]) -> Manifest:
    return find(objects, "Deployment")["spec"]["template"]["spec"]


def worker_of(objects: list[Manifest]) -> Manifest:
    return pod_spec(objects)["initContainers"][0]


def gateway_of(objects: list[Manifest]) -> Manifest:
    return pod_spec(objects)["containers"][0]


def drop_policies(objects: list[Manifest]) -> None:
    objects[:] = [item for item in objects if item["kind"] != "NetworkPolicy"]


# What breaks a sound set of manifests, and what must then be said.
BREAKS: list[tuple[Callable[[list[Manifest]], object], str]] = [
    (lambda o: pod_spec(o)["securityContext"].update(runAsUser=0), "may run as root"),
    (lambda o: pod_spec(o)["securityContext"].pop("runAsNonRoot"), "may run as root"),
    (lambda o: pod_spec(o)["securityContext"].pop("seccompProfile"), "no seccomp profile"),
    (lambda o: pod_spec(o).pop("automountServiceAccountToken"), "token of the cluster"),
    (lambda o: worker_of(o)["securityContext"].update(privileged=True), "privileged"),
    (lambda o: worker_of(o)["securityContext"].pop("capabilities"), "securityContext"),
    (lambda o: gateway_of(o).pop("securityContext"), "securityContext"),
    (lambda o: pod_spec(o).update(hostNetwork=True), "hostNetwork"),
    (
        lambda o: pod_spec(o)["volumes"].append({"name": "root", "hostPath": {"path": "/"}}),
        "hostPath root",
    ),
    (lambda o: gateway_of(o)["ports"][0].update(hostPort=8500), "hostPort"),
    (lambda o: worker_of(o)["resources"]["limits"].pop("memory"), "no limits of memory"),
    (lambda o: gateway_of(o).pop("resources"), "no requests of cpu"),
    (lambda o: pod_spec(o)["volumes"][0].update(emptyDir={}), "has no limit"),
    (lambda o: gateway_of(o).update(volumeMounts=[]), "/tmp is no emptyDir"),
    (lambda o: gateway_of(o).update(image="candor-gateway:latest"), "image: expected"),
    (lambda o: gateway_of(o).update(image="candor-gateway"), "image: expected"),
    (lambda o: gateway_of(o).pop("startupProbe"), "no startupProbe"),
    (
        lambda o: worker_of(o)["readinessProbe"].update(exec={"command": ["true"]}),
        "makes no prediction",
    ),
    (lambda o: find(o, "Service")["spec"]["ports"][0].update(targetPort=7070), "leads to 7070"),
    (
        lambda o: find(o, "NetworkPolicy")["spec"]["ingress"].append({}),
        "a rule without ports",
    ),
    (
        lambda o: find(o, "NetworkPolicy")["spec"]["ingress"][0]["ports"].append({"port": 8080}),
        "opens ['8080'",
    ),
    (drop_policies, "no policy for Ingress"),
    (
        lambda o: find(o, "Service")["spec"]["selector"].update(
            {"app.kubernetes.io/component": "gate"}
        ),
        "selects no pod",
    ),
    (
        lambda o: find(o, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].update(
            {"app.kubernetes.io/version": "0.1.0"}
        ),
        "selects by",
    ),
    (lambda o: find(o, "Service")["metadata"].pop("labels"), "no label name"),
    (lambda o: o.append({"kind": "Secret", "metadata": {"name": "key"}}), "a secret in a manifest"),
    (lambda o: pod_spec(o).update(serviceAccountName="admin"), "no ServiceAccount admin"),
    (
        lambda o: gateway_of(o)["envFrom"][0]["configMapRef"].update(name="other"),
        "no ConfigMap other",
    ),
    (lambda o: gateway_of(o).update(ports=[]), "no container has a port named grpc"),
    (lambda o: pod_spec(o).update(terminationGracePeriodSeconds=30), "got 30"),
    (lambda o: find(o, "Deployment")["spec"].update(replicas=3), "sets replicas too"),
    (
        lambda o: find(o, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"].update(name="x"),
        "no Deployment x",
    ),
    (lambda o: find(o, "Service")["spec"].pop("ipFamilyPolicy"), "expected PreferDualStack"),
    (
        lambda o: find(o, "ConfigMap")["data"].update(CANDOR_HOST="0.0.0.0"),
        "CANDOR_HOST: expected ::, got 0.0.0.0",
    ),
    (
        lambda o: worker_of(o).update(args=["worker", "--metrics-host", "0.0.0.0"]),
        "expected the address ::",
    ),
    (lambda o: find(o, "Namespace")["metadata"].update(labels={}), "restricted profile"),
]


@needs_kubectl
@pytest.mark.parametrize(("break_it", "expected"), BREAKS, ids=[text for _, text in BREAKS])
def test_what_breaks_an_invariant_is_reported(
    built: dict[str, list[Manifest]],
    break_it: Callable[[list[Manifest]], object],
    expected: str,
) -> None:
    objects = copy.deepcopy(built["overlays/prod-cpu"])
    break_it(objects)
    with pytest.MonkeyPatch.context() as patched:
        # A removed setting must not hide the problem looked for behind an error of another check.
        patched.setattr(invariants, "_drain_seconds", lambda *_: 30.0)
        problems = [problem for invariant in INVARIANTS for problem in invariant(objects)]
    assert any(expected in problem for problem in problems), problems


@needs_kubectl
@pytest.mark.parametrize(
    ("target", "kind", "break_it", "expected"),
    [
        (
            "jobs/train",
            "PyTorchJob",
            lambda spec: spec["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][
                0
            ].update(name="train"),
            "expected pytorch",
        ),
        (
            "kserve",
            "ServingRuntime",
            lambda spec: spec["containers"].reverse(),
            "must be kserve-container",
        ),
        (
            "kserve",
            "ServingRuntime",
            lambda spec: spec["containers"][1].pop("lifecycle"),
            "before the gateway has drained",
        ),
        (
            "kserve",
            "InferenceService",
            lambda spec: spec["predictor"]["model"].update(runtime="other"),
            "no such ServingRuntime",
        ),
        (
            "overlays/prod-gpu",
            "ScaledObject",
            lambda spec: spec["triggers"][0]["metadata"].pop("query"),
            "trigger: expected",
        ),
    ],
)
def test_what_an_operator_requires_is_checked(
    built: dict[str, list[Manifest]],
    target: str,
    kind: str,
    break_it: Callable[[Manifest], object],
    expected: str,
) -> None:
    objects = copy.deepcopy(built[target])
    assert [p for invariant in INVARIANTS for p in invariant(objects)] == []
    break_it(find(objects, kind)["spec"])
    relevant = (invariants.foreign_kinds_are_whole, invariants.grace_covers_the_drain)
    checks = relevant[:1] if "drained" not in expected else relevant[1:]
    assert any(expected in problem for check in checks for problem in check(objects))


@needs_kubectl
@pytest.mark.parametrize("version", manifests.VERSIONS)
def test_a_misspelt_field_does_not_pass_the_schema(
    built: dict[str, list[Manifest]], version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = copy.deepcopy(built["base"])
    gateway_of(objects)["readinesProbe"] = {}
    monkeypatch.setattr(manifests, "VERSIONS", (version,))
    (problem,) = manifests._schema_problems(objects)
    assert "readinesProbe" in problem
    assert version in problem


def test_the_drain_is_as_long_as_gateway_and_stack_say() -> None:
    assert invariants._LAST_RESPONSES_SECONDS == 2 * main._LAST_RESPONSES_SECONDS
    assert invariants._JVM_STOP_SECONDS == supervisor._JVM_STOP_SECONDS


@needs_kubectl
def test_every_setting_in_a_manifest_is_one_of_the_gateway(
    built: dict[str, list[Manifest]],
) -> None:
    known = {f"CANDOR_{name.upper()}" for name in Settings.model_fields}
    text = json.dumps(built)
    named = set(re.findall(r"CANDOR_[A-Z_]+", text)) - {STORE_SETTING, DATA_SETTING}
    assert named <= known
    assert "CANDOR_MODELS" in named


@needs_kubectl
@pytest.mark.parametrize("target", ["base", "overlays/prod-cpu", "overlays/prod-gpu", "kserve"])
def test_whoever_is_reached_from_elsewhere_asks_for_keys(
    target: str, built: dict[str, list[Manifest]]
) -> None:
    text = json.dumps(built[target])
    assert "CANDOR_ALLOW_ANONYMOUS" not in text
    (pod,) = [pod for pod in pods(built[target]) if "worker" in json.dumps(pod.spec)]
    mounts = {m["name"]: m["mountPath"] for c in pod.containers for m in c["volumeMounts"]}
    assert f"{mounts['keys']}/keys" in text
    assert ("CANDOR_TLS_CERT" in text) == target.startswith("overlays/prod")


@needs_kubectl
def test_ports_are_those_the_servers_listen_on(built: dict[str, list[Manifest]]) -> None:
    fields = Settings.model_fields
    ports = {
        port["name"]: port["containerPort"]
        for pod in pods(built["overlays/prod-cpu"])
        for container in pod.containers
        for port in container["ports"]
    }
    assert ports == {
        "grpc": fields["grpc_port"].default,
        "rest": fields["rest_port"].default,
        "metrics": 8502,
        "ts-metrics": STANDARD_PORTS.metrics,
        "health": 8503,
    }
    address = fields["torchserve_address"].get_default(call_default_factory=True)
    assert address.endswith(f":{STANDARD_PORTS.grpc_inference}")


@needs_kubectl
def test_served_models_are_shipped(built: dict[str, list[Manifest]]) -> None:
    (config,) = [
        item
        for item in built["overlays/prod-cpu"]
        if item["kind"] == "ConfigMap" and item["metadata"]["name"].startswith("candor-gateway")
    ]
    for name in json.loads(config["data"]["CANDOR_MODELS"]):
        assert (MODELS_DIR / name / "card.json").is_file()


@needs_kubectl
@pytest.mark.parametrize(
    "target", [target for target in TARGETS if target.startswith(("jobs/", "report-worker"))]
)
def test_jobs_run_commands_there_are(target: str, built: dict[str, list[Manifest]]) -> None:
    (pod,) = pods(built[target])
    name, *arguments = pod.spec["containers"][0]["args"]
    commands = typer.main.get_command(build_app()).commands
    if name not in commands:
        pytest.skip(f"no command `candor {name}` in this source")
    given = [text.replace("$(JOB_COMPLETION_INDEX)", "0") for text in arguments]
    commands[name].make_context(name, given)


@needs_kubectl
def test_an_audit_has_as_many_shards_as_completions(built: dict[str, list[Manifest]]) -> None:
    spec = find(built["jobs/audit"], "Job")["spec"]
    shard = spec["template"]["spec"]["containers"][0]["args"][-1]
    assert shard == f"$(JOB_COMPLETION_INDEX)/{spec['completions']}"


@needs_kubectl
def test_scalers_ask_for_measures_there_are(built: dict[str, list[Manifest]]) -> None:
    names = {family.name for family in Metrics(["m"]).registry.collect()}
    hpa = find(built["overlays/prod-cpu"], "HorizontalPodAutoscaler")["spec"]
    keda = find(built["overlays/prod-gpu"], "ScaledObject")["spec"]
    assert hpa["metrics"][0]["pods"]["metric"]["name"] in names
    (queried,) = re.findall(r"candor_\w+", keda["triggers"][0]["metadata"]["query"])
    assert queried in names


def test_without_kubectl_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(manifests.ManifestError, match="kubectl"):
        manifests.build(manifests.K8S_DIR / "base")

"""What must hold of every set of manifests, beyond the schemas.

An invariant takes the built objects and yields one line for everything that breaks it.
"""

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

Manifest = dict[str, Any]
Problems = Iterator[str]

_LABELS = ("name", "component", "part-of", "version", "managed-by")
_SELECTED_BY = frozenset(f"app.kubernetes.io/{key}" for key in ("name", "component", "part-of"))
_DOORS = frozenset({"grpc", "rest"})
_METRICS = frozenset({"metrics", "ts-metrics"})
_SERVING = ("Deployment", "ServingRuntime")
_SCALERS = ("HorizontalPodAutoscaler", "ScaledObject")
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
_TRIGGER = {"serverAddress", "query", "threshold"}
_WORKER_PROBE = ["python", "-m", "candor.stack.probe"]
# Of the gateway after its drain (its `main` stops both servers, one after the other), and of the
# JVM.
_LAST_RESPONSES_SECONDS = 10
_JVM_STOP_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that one of the objects makes.

    Attributes:
        kind, owner: of the object.
        labels: of the pod.
        spec: its specification, as in kind Pod.
    """

    kind: str
    owner: str
    labels: Mapping[str, str]
    spec: Manifest

    @property
    def containers(self) -> list[Manifest]:
        """All of them, sidecars first."""
        return [*self.spec.get("initContainers", ()), *self.spec["containers"]]

    @property
    def serves(self) -> bool:
        """Whether it has clients: it stays and has a port."""
        return self.kind in _SERVING and any(item.get("ports") for item in self.containers)

    def named(self) -> Iterator[tuple[str, Manifest]]:
        """Every container under a name for messages."""
        for container in self.containers:
            yield f"{self.kind} {self.owner}/{container['name']}", container


def name_of(item: Manifest) -> str:
    return f"{item['kind']} {item['metadata']['name']}"


def pods(objects: Sequence[Manifest]) -> list[Pod]:
    """The pods that these objects make."""
    return [pod for item in objects for pod in _pods_of(item, objects)]


def pods_are_restricted(objects: Sequence[Manifest]) -> Problems:
    """No container runs as root or holds a token of the cluster."""
    for pod in pods(objects):
        context = pod.spec.get("securityContext", {})
        where = f"{pod.kind} {pod.owner}"
        if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
            yield f"{where}: may run as root"
        if context.get("seccompProfile") != {"type": "RuntimeDefault"}:
            yield f"{where}: no seccomp profile"
        if pod.spec.get("automountServiceAccountToken") is not False:
            yield f"{where}: mounts a token of the cluster"


def containers_are_restricted(objects: Sequence[Manifest]) -> Problems:
    """Read-only root, no capability, no way to more rights."""
    wanted = {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    for pod in pods(objects):
        for where, container in pod.named():
            context = container.get("securityContext", {})
            if context != wanted:
                yield f"{where}: securityContext: expected {wanted}, got {context}"


def nothing_of_the_host(objects: Sequence[Manifest]) -> Problems:
    for pod in pods(objects):
        for key in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.spec.get(key):
                yield f"{pod.kind} {pod.owner}: {key}"
        for volume in pod.spec.get("volumes", ()):
            if "hostPath" in volume:
                yield f"{pod.kind} {pod.owner}: hostPath {volume['name']}"
        for where, container in pod.named():
            if any("hostPort" in port for port in container.get("ports", ())):
                yield f"{where}: hostPort"


def resources_are_bounded(objects: Sequence[Manifest]) -> Problems:
    for pod in pods(objects):
        for where, container in pod.named():
            for bound in ("requests", "limits"):
                given = container.get("resources", {}).get(bound, {})
                for resource in sorted({"cpu", "memory"} - given.keys()):
                    yield f"{where}: no {bound} of {resource}"


def temporary_folders_are_bounded(objects: Sequence[Manifest]) -> Problems:
    """With a read-only root, /tmp is a volume; without a limit it could fill the machine's disk."""
    for pod in pods(objects):
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes", ())}
        for volume in volumes.values():
            if "emptyDir" in volume and "sizeLimit" not in (volume["emptyDir"] or {}):
                yield f"{pod.kind} {pod.owner}: emptyDir {volume['name']} has no limit"
        for where, container in pod.named():
            mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
            if "emptyDir" not in volumes.get(mounts.get("/tmp", ""), {}):
                yield f"{where}: /tmp is no emptyDir"


def images_have_a_version(objects: Sequence[Manifest]) -> Problems:
    """A digest, or the tag of this very version."""
    for pod in pods(objects):
        for where, container in pod.named():
            name, _, tag = container["image"].rpartition(":")
            is_pinned = "@sha256" in name
            if not is_pinned and tag.partition("-")[0] != project_version():
                yield f"{where}: image: expected :{project_version()}, got {container['image']}"


def servers_are_probed(objects: Sequence[Manifest]) -> Problems:
    """Started and ready mean a real prediction, for the gateway and for TorchServe."""
    for pod in pods(objects):
        if not pod.serves:
            continue
        for where, container in pod.named():
            for probe in _PROBES:
                if probe not in container:
                    yield f"{where}: no {probe}"
                elif not _predicts(container[probe]) and probe != "livenessProbe":
                    yield f"{where}: {probe} makes no prediction"
                elif container[probe].get("timeoutSeconds", 1) < 2:
                    yield f"{where}: {probe}: got less than 2 seconds"


def only_the_doors_are_reached(objects: Sequence[Manifest]) -> Problems:
    """TorchServe has no defences: no Service and no policy may lead to it."""
    for item in objects:
        if item["kind"] == "Service":
            for port in item["spec"]["ports"]:
                if port.get("targetPort") not in _DOORS:
                    yield f"{name_of(item)}: leads to {port.get('targetPort', port['port'])}"
        if item["kind"] == "NetworkPolicy":
            yield from (f"{name_of(item)}: {text}" for text in _open_rules(item))


def every_pod_has_a_policy(objects: Sequence[Manifest]) -> Problems:
    """What no policy names is open: of each pod one must restrict both directions."""
    policies = [item["spec"] for item in objects if item["kind"] == "NetworkPolicy"]
    for pod in pods(objects):
        directions = {
            direction
            for policy in policies
            if _selects(policy["podSelector"], pod)
            for direction in policy["policyTypes"]
        }
        for missing in sorted({"Ingress", "Egress"} - directions):
            yield f"{pod.kind} {pod.owner}: no policy for {missing}"


def selectors_find_their_pods(objects: Sequence[Manifest]) -> Problems:
    """By name, component and part-of: a version in a selector would strand the pods before it."""
    for item, selector in _selectors(objects):
        if selector.keys() != _SELECTED_BY:
            yield f"{name_of(item)}: selects by {sorted(selector)}"
        if not any(selector.items() <= pod.labels.items() for pod in pods(objects)):
            yield f"{name_of(item)}: selects no pod"


def objects_are_labelled(objects: Sequence[Manifest]) -> Problems:
    for item in objects:
        if item["kind"] in ("Namespace", "ConfigMap"):
            continue
        labels = item["metadata"].get("labels", {})
        for key in _LABELS:
            if f"app.kubernetes.io/{key}" not in labels:
                yield f"{name_of(item)}: no label {key}"
        if labels.get("app.kubernetes.io/version") not in (None, project_version()):
            yield f"{name_of(item)}: expected version {project_version()}, got another"


def references_resolve(objects: Sequence[Manifest]) -> Problems:
    """Names of ports, configuration and accounts lead somewhere; secrets come from elsewhere."""
    names = {(item["kind"], item["metadata"]["name"]) for item in objects}
    for item in objects:
        if item["kind"] == "Secret":
            yield f"{name_of(item)}: a secret in a manifest"
    for pod in pods(objects):
        account = pod.spec.get("serviceAccountName")
        if account and ("ServiceAccount", account) not in names:
            yield f"{pod.kind} {pod.owner}: no ServiceAccount {account}"
        for where, container in pod.named():
            for source in container.get("envFrom", ()):
                reference = source.get("configMapRef", {}).get("name")
                if ("ConfigMap", reference) not in names:
                    yield f"{where}: no ConfigMap {reference}"
    yield from _missing_ports(objects)


def grace_covers_the_drain(objects: Sequence[Manifest]) -> Problems:
    """A pod loses requests when it is killed while it drains, or when its worker stops first."""
    for pod in pods(objects):
        if not pod.serves:
            continue
        gateway, worker = pod.spec["containers"][0], pod.containers[0]
        is_sidecar = worker.get("restartPolicy") == "Always"
        drained = _pre_stop(gateway) + _drain_seconds(gateway, objects) + _LAST_RESPONSES_SECONDS
        grace = pod.spec.get("terminationGracePeriodSeconds", 30)
        if grace < drained + _JVM_STOP_SECONDS:
            yield f"{pod.kind} {pod.owner}: grace: expected {drained:g} + 15 or more, got {grace}"
        if not is_sidecar and any(_pre_stop(other) < drained for other in pod.containers[1:]):
            yield f"{pod.kind} {pod.owner}: the worker stops before the gateway has drained"


def scaling_has_one_owner(objects: Sequence[Manifest]) -> Problems:
    scalers = [
        item for item in objects if item["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")
    ]
    deployments = {i["metadata"]["name"]: i for i in objects if i["kind"] == "Deployment"}
    for scaler in scalers:
        target = scaler["spec"]["scaleTargetRef"]["name"]
        if target not in deployments:
            yield f"{name_of(scaler)}: no Deployment {target}"
        elif "replicas" in deployments[target]["spec"]:
            yield f"{name_of(scaler)}: the Deployment sets replicas too"
    if len(scalers) > 1:
        yield f"{name_of(scalers[1])}: a second scaler"


def foreign_kinds_are_whole(objects: Sequence[Manifest]) -> Problems:
    """What their operators require, as far as no schema here says it."""
    runtimes = {item["metadata"]["name"] for item in objects if item["kind"] == "ServingRuntime"}
    for item in objects:
        spec = item.get("spec", {})
        match item["kind"]:
            case "PyTorchJob":
                containers = [pod.spec["containers"][0]["name"] for pod in pods([item])]
                if set(containers) != {"pytorch"}:
                    yield f"{name_of(item)}: containers: expected pytorch, got {containers}"
            case "ServingRuntime":
                if spec["containers"][0]["name"] != "kserve-container":
                    yield f"{name_of(item)}: its first container must be kserve-container"
            case "InferenceService":
                if spec["predictor"]["model"]["runtime"] not in runtimes:
                    yield f"{name_of(item)}: no such ServingRuntime"
            case "ScaledObject":
                for trigger in spec["triggers"]:
                    if trigger["type"] != "prometheus" or trigger["metadata"].keys() != _TRIGGER:
                        yield f"{name_of(item)}: trigger: expected one of prometheus, got {trigger}"


def namespaces_are_restricted(objects: Sequence[Manifest]) -> Problems:
    for item in objects:
        labels = item["metadata"].get("labels", {})
        if item["kind"] == "Namespace" and (
            labels.get("pod-security.kubernetes.io/enforce") != "restricted"
        ):
            yield f"{name_of(item)}: does not enforce the restricted profile"


def both_families_are_served(objects: Sequence[Manifest]) -> Problems:
    """A cluster may have IPv4, IPv6 or both: a server that listens on one misses the other."""
    for item in objects:
        spec = item.get("spec", {})
        if item["kind"] == "Service" and spec.get("ipFamilyPolicy") != "PreferDualStack":
            yield f"{name_of(item)}: ipFamilyPolicy: expected PreferDualStack"
        if item["kind"] == "ConfigMap" and item.get("data", {}).get("CANDOR_HOST", "::") != "::":
            yield f"{name_of(item)}: CANDOR_HOST: expected ::, got {item['data']['CANDOR_HOST']}"
    for pod in pods(objects):
        for where, container in pod.named():
            arguments = container.get("args", [])
            if "0.0.0.0" in arguments or "::1" in arguments:
                yield f"{where}: args: expected the address ::, got {arguments}"


INVARIANTS: tuple[Callable[[Sequence[Manifest]], Problems], ...] = (
    pods_are_restricted,
    containers_are_restricted,
    nothing_of_the_host,
    resources_are_bounded,
    temporary_folders_are_bounded,
    images_have_a_version,
    servers_are_probed,
    only_the_doors_are_reached,
    every_pod_has_a_policy,
    selectors_find_their_pods,
    objects_are_labelled,
    references_resolve,
    grace_covers_the_drain,
    scaling_has_one_owner,
    foreign_kinds_are_whole,
    namespaces_are_restricted,
    both_families_are_served,
)


@cache
def project_version() -> str:
    path = Path(__file__).resolve().parents[1] / "pyproject.toml"
    return str(tomllib.loads(path.read_text())["project"]["version"])


def _pods_of(item: Manifest, objects: Sequence[Manifest]) -> Iterator[Pod]:
    kind, name, spec = item["kind"], item["metadata"]["name"], item.get("spec", {})
    if kind in ("Deployment", "Job"):
        yield _from_template(kind, name, spec["template"])
    elif kind == "PyTorchJob":
        for role, replica in spec["pytorchReplicaSpecs"].items():
            yield _from_template(kind, f"{name}-{role.lower()}", replica["template"])
    elif kind == "ServingRuntime":
        yield Pod(kind, name, spec["labels"], _served_spec(name, spec, objects))


def _from_template(kind: str, owner: str, template: Manifest) -> Pod:
    return Pod(kind, owner, template["metadata"]["labels"], template["spec"])


def _served_spec(runtime: str, spec: Manifest, objects: Sequence[Manifest]) -> Manifest:
    """KServe makes the pod of both: the runtime's containers, all else of its InferenceService."""
    predictors = [i["spec"]["predictor"] for i in objects if i["kind"] == "InferenceService"]
    served: Manifest = next((p for p in predictors if p["model"]["runtime"] == runtime), {})
    own = ("model", "minReplicas", "maxReplicas")
    pod_spec = {key: value for key, value in served.items() if key not in own}
    return {**pod_spec, "containers": spec["containers"], "volumes": spec.get("volumes", [])}


def _predicts(probe: Manifest) -> bool:
    path = probe.get("httpGet", {}).get("path")
    command = probe.get("exec", {}).get("command")
    return bool(path == "/healthz/ready" or command == _WORKER_PROBE)


def _open_rules(policy: Manifest) -> Problems:
    for rule in policy["spec"].get("ingress", ()):
        ports = {port["port"] for port in rule.get("ports", ())}
        if not ports:
            yield "a rule without ports opens every port"
        if not ports <= _DOORS and not (ports <= _METRICS and rule.get("from")):
            yield f"opens {sorted(map(str, ports))}"


def _selects(selector: Manifest, pod: Pod) -> bool:
    wanted: Mapping[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= pod.labels.items()


def _selectors(objects: Sequence[Manifest]) -> Iterator[tuple[Manifest, Mapping[str, str]]]:
    for item in objects:
        spec = item.get("spec", {})
        if item["kind"] == "Service":
            yield item, spec["selector"]
        elif item["kind"] == "NetworkPolicy":
            yield item, spec["podSelector"]["matchLabels"]
        elif item["kind"] in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
            yield item, spec["selector"]["matchLabels"]


def _missing_ports(objects: Sequence[Manifest]) -> Problems:
    known = {
        port["name"]
        for pod in pods(objects)
        for container in pod.containers
        for port in container.get("ports", ())
    }
    for item, port in _named_ports(objects):
        if isinstance(port, str) and port not in known:
            yield f"{name_of(item)}: no container has a port named {port}"


def _named_ports(objects: Sequence[Manifest]) -> Iterator[tuple[Manifest, str | int]]:
    for item in objects:
        spec = item.get("spec", {})
        if item["kind"] == "Service":
            yield from ((item, port["targetPort"]) for port in spec["ports"])
        elif item["kind"] == "NetworkPolicy":
            for rule in spec.get("ingress", ()):
                yield from ((item, port["port"]) for port in rule.get("ports", ()))
        elif item["kind"] == "PodMonitor":
            yield from ((item, endpoint["port"]) for endpoint in spec["podMetricsEndpoints"])


def _pre_stop(container: Manifest) -> float:
    sleep = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {})
    return float(sleep.get("seconds", 0))


def _drain_seconds(gateway: Manifest, objects: Sequence[Manifest]) -> float:
    """As its environment says, from the pod itself or from the configuration it reads."""
    settings = {entry["name"]: entry.get("value") for entry in gateway.get("env", ())}
    for source in gateway.get("envFrom", ()):
        reference = source["configMapRef"]["name"]
        for item in objects:
            if item["kind"] == "ConfigMap" and item["metadata"]["name"] == reference:
                settings |= item["data"]
    return float(settings["CANDOR_DRAIN_SECONDS"])

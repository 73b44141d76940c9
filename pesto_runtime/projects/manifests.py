"""Write a deployment as manifests of Kubernetes, or as a file of Compose."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime.projects.containerfile import HEALTH, PORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import JsonValue

    from pesto_runtime.projects.deploying import DeployedService, DeploymentOptions

_SECRETS = "/run/secrets"
_TOKENS = "tokens"
_STARTING_S, _PERIOD_S = 300, 5
_CALLS_PER_REPLICA = "1"
_CPU_PERCENT = 70


def kubernetes(service: DeployedService, options: DeploymentOptions) -> list[dict[str, JsonValue]]:
    """Return the manifests of a service: Deployment, Service, and how it is scaled."""
    metadata: dict[str, JsonValue] = {"name": service.name, "labels": {"app": service.name}}
    selector: dict[str, JsonValue] = {"matchLabels": {"app": service.name}}
    pod: JsonValue = {"metadata": {"labels": {"app": service.name}}, "spec": _pod(service, options)}
    is_scaled = service.most > service.least
    replicas: dict[str, JsonValue] = {} if is_scaled else {"replicas": service.least}
    affinity: dict[str, JsonValue] = {"sessionAffinity": "ClientIP"} if service.keeps_jobs else {}
    documents: list[dict[str, JsonValue]] = [
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
         "spec": {**replicas, "selector": selector, "template": pod}},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata,
         "spec": {"selector": {"app": service.name}, "ports": [{"port": PORT}], **affinity}},
    ]  # fmt: skip
    return [*documents, _scaling(service)] if is_scaled else documents


def compose(
    name: str, services: Sequence[DeployedService], options: DeploymentOptions
) -> dict[str, JsonValue]:
    """Return the content of `compose.yaml`.

    Secrets are files beside it: `NAME.env` with variables, and `NAME` with the tokens of callers.
    """
    port = options.published_port
    found: dict[str, JsonValue] = {}
    for each in services:
        found[each.name] = _compose_service(each, options, port)
        port = None if port is None else port + each.least
    document: dict[str, JsonValue] = {"name": name.lower(), "services": found}
    if options.token_secret:
        file = f"./{options.token_secret}"
        document["secrets"] = {options.token_secret: {"file": file}}
    return document


def as_yaml(*documents: JsonValue) -> str:
    """Write documents as YAML, in blocks and without anchors."""
    import yaml

    class _Plain(yaml.SafeDumper):
        def ignore_aliases(self, _data: object) -> bool:
            return True

    return yaml.dump_all(documents, Dumper=_Plain, sort_keys=False, width=100)


def _pod(service: DeployedService, options: DeploymentOptions) -> dict[str, JsonValue]:
    health: JsonValue = {"path": HEALTH, "port": PORT}
    container: dict[str, JsonValue] = {
        "name": "service",
        "image": service.image,
        "ports": [{"containerPort": PORT}],
        "resources": _kubernetes_resources(service),
        # A model may load for minutes: only then do the other probes begin.
        "startupProbe": {"httpGet": health, "periodSeconds": _PERIOD_S,
                         "failureThreshold": _STARTING_S // _PERIOD_S},
        "readinessProbe": {"httpGet": health, "periodSeconds": _PERIOD_S, "timeoutSeconds": 5},
        "livenessProbe": {"httpGet": health, "periodSeconds": 30, "timeoutSeconds": 10},
        "volumeMounts": [{"name": "scratch", "mountPath": "/tmp"}],  # noqa: S108
    }  # fmt: skip
    volumes: list[JsonValue] = [{"name": "scratch", "emptyDir": {}}]
    pod: dict[str, JsonValue] = {"terminationGracePeriodSeconds": 60}
    if options.secrets:
        container["envFrom"] = [{"secretRef": {"name": each}} for each in options.secrets]
    if not service.is_plain:
        folder = f"{_SECRETS}/{options.token_secret}"
        arguments = service.arguments(options, f"{folder}/{_TOKENS}")
        container["args"] = [*arguments]
        container["securityContext"] = {"allowPrivilegeEscalation": False, "runAsNonRoot": True,
                                        "capabilities": {"drop": ["ALL"]}}  # fmt: skip
        if options.token_secret:
            mount: JsonValue = {"name": _TOKENS, "mountPath": folder, "readOnly": True}
            container["volumeMounts"] = [
                {"name": "scratch", "mountPath": "/tmp"}, mount,  # noqa: S108
            ]  # fmt: skip
            volumes.append({"name": _TOKENS, "secret": {"secretName": options.token_secret}})
    if service.gpus:
        pod["tolerations"] = [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
        ]
        pod |= {"nodeSelector": dict(options.gpu_nodes)} if options.gpu_nodes else {}
    return {**pod, "containers": [container], "volumes": volumes}


def _kubernetes_resources(service: DeployedService) -> dict[str, JsonValue]:
    requests: dict[str, JsonValue] = {"cpu": f"{service.resources.cpu or 1:g}"}
    limits: dict[str, JsonValue] = {}
    if service.resources.ram:
        requests["memory"] = limits["memory"] = f"{round(service.resources.ram * 1024)}Mi"
    if service.gpus:
        limits["nvidia.com/gpu"] = str(service.gpus)
    return {"requests": requests, **({"limits": limits} if limits else {})}


def _scaling(service: DeployedService) -> dict[str, JsonValue]:
    """Return the autoscaler: by CPU, or by calls for GPUs, whose work no CPU shows."""
    cpu: JsonValue = {"type": "Utilization", "averageUtilization": _CPU_PERCENT}
    calls: JsonValue = {"type": "AverageValue", "averageValue": _CALLS_PER_REPLICA}
    metric: JsonValue = (
        {"type": "Pods", "pods": {"metric": {"name": "pesto_calls"}, "target": calls}}
        if service.gpus
        else {"type": "Resource", "resource": {"name": "cpu", "target": cpu}}
    )
    return {
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": service.name, "labels": {"app": service.name}},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment",
                               "name": service.name},
            "minReplicas": service.least, "maxReplicas": service.most, "metrics": [metric],
        },
    }  # fmt: skip


def _compose_service(
    service: DeployedService, options: DeploymentOptions, port: int | None
) -> dict[str, JsonValue]:
    limits: dict[str, JsonValue] = {"cpus": f"{service.resources.cpu or 1:g}"}
    if service.resources.ram:
        limits["memory"] = f"{round(service.resources.ram * 1024)}M"
    resources: dict[str, JsonValue] = {"limits": limits}
    if service.gpus:
        device: JsonValue = {"driver": "nvidia", "count": service.gpus, "capabilities": ["gpu"]}
        resources["reservations"] = {"devices": [device]}
    document: dict[str, JsonValue] = {
        "image": service.image,
        "restart": "unless-stopped",
        "stop_grace_period": "60s",
        "deploy": {"replicas": service.least, "resources": resources},
    }
    if options.secrets:
        document["env_file"] = [f"{each}.env" for each in options.secrets]
    if not service.is_plain:
        tokens = f"{_SECRETS}/{options.token_secret}"
        document["command"] = [*service.arguments(options, tokens)]
        document |= {"secrets": [options.token_secret]} if options.token_secret else {}
    if port is not None:
        last = port + service.least - 1
        ports = str(port) if last == port else f"{port}-{last}"
        document["ports"] = [f"127.0.0.1:{ports}:{PORT}"]
    return document


def written(
    target: str, name: str, services: Sequence[DeployedService], options: DeploymentOptions
) -> Iterator[tuple[str, str]]:
    """Yield the files of a deployment: name and text.

    Args:
        target: `kubernetes` or `compose`.
        name: Of the pipeline.
        services: Its services.
        options: How they are deployed.
    """
    if target == "compose":
        yield "compose.yaml", as_yaml(compose(name, services, options))
        return
    for each in services:
        yield f"kubernetes/{each.name}.yaml", as_yaml(*kubernetes(each, options))

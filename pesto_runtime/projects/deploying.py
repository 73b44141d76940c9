"""Decide how the services of a pipeline are deployed, from their descriptions alone.

`manifests.py` writes the decisions for Kubernetes and for Compose. No service is contacted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import ceil
from typing import TYPE_CHECKING

from pesto_runtime.contract.pipeline import PROFILES
from pesto_runtime.errors import BadField, InvalidInput
from pesto_runtime.projects.containerfile import PORT

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract.description import Resources
    from pesto_runtime.run.services import Discovered, Services

_REPLICAS = re.compile(r"(?P<least>[1-9]\d*)(?:-(?P<most>[1-9]\d*))?")
_LONGEST_NAME = 63


@dataclass(frozen=True)
class DeploymentOptions:
    """How services are deployed, beyond their descriptions.

    Attributes:
        registry: Prefix of images, as `registry.example/eo`; empty for none.
        images: Process -> image, instead of `REGISTRY/NAME:VERSION[-PROFILES]`.
        replicas: Process -> `N`, or `MIN-MAX` for automatic scaling.
        secrets: Names of secrets whose keys are environment variables of all services.
        token_secret: Name of the secret with the tokens of callers; empty to serve anybody.
        allow: Prefixes of hrefs that the services may read.
        gpu_nodes: Labels of nodes with GPUs.
        published_port: First port of the machine for replicas in Compose; None for none.
    """

    registry: str = ""
    images: Mapping[str, str] = field(default_factory=dict)
    replicas: Mapping[str, str] = field(default_factory=dict)
    secrets: Sequence[str] = ()
    token_secret: str = ""
    allow: Sequence[str] = ()
    gpu_nodes: Mapping[str, str] = field(default_factory=dict)
    published_port: int | None = None


@dataclass(frozen=True)
class DeployedService:
    """One service of a deployment.

    Attributes:
        process: Its name in the pipeline.
        name: Its name in the network: letters, digits and hyphens.
        image: Its image, which listens on port 8080.
        resources: What one replica needs.
        least: Replicas.
        most: Replicas at most; equal to `least` if their number is fixed.
        is_plain: Whether it is a PESTO 1.7.2 service, whose image takes no options.
        keeps_jobs: Whether all requests of a caller must reach one replica, which has its jobs.
        overlay: Merge patch that a catalog has for its description.
    """

    process: str
    name: str
    image: str
    resources: Resources
    least: int
    most: int
    is_plain: bool
    keeps_jobs: bool
    overlay: Mapping[str, JsonValue] | None

    @property
    def gpus(self) -> int:
        """Whole GPUs of one replica."""
        return ceil(self.resources.gpu or 0)

    @property
    def url(self) -> str:
        """Its URL in the network of the deployment."""
        return f"http://{self.name}:{PORT}"

    def arguments(self, options: DeploymentOptions, token_file: str) -> list[str]:
        """Return the options of `pesto serve`, after those of the image's entry point.

        A replica computes one call at a time: `resources` are those of one call.
        """
        if self.is_plain:
            return []
        allowed = [word for each in options.allow for word in ("--allow", each)]
        callers = ["--token-file", token_file] if options.token_secret else ["--insecure"]
        return ["--workers", "1", "--log-format", "json", *allowed, *callers]


def deployed_services(
    services: Services, options: DeploymentOptions
) -> tuple[tuple[DeployedService, ...], tuple[str, ...]]:
    """Return the services of a pipeline, and remarks for their user.

    Raises:
        InvalidInput: an option names no process, or a number of replicas is wrong; lists all.
    """
    faults = list(_option_faults(services, options))
    if faults:
        raise InvalidInput.of("deployment", faults)
    found = tuple(
        _service(process, each, options) for process, each in sorted(services.found.items())
    )
    return found, tuple(_remarks(found, options))


def catalog_of(
    services: Sequence[DeployedService], options: DeploymentOptions
) -> dict[str, JsonValue]:
    """Return the catalog of the deployed services, for `--services`."""
    ports = iter(range(options.published_port or 0, 65536))
    document: dict[str, JsonValue] = {}
    for each in services:
        url: JsonValue = each.url
        if options.published_port is not None:
            urls: list[JsonValue] = [f"http://127.0.0.1:{next(ports)}" for _ in range(each.least)]
            url = urls[0] if len(urls) == 1 else urls
        document[each.process] = (
            {"url": url, "overlay": dict(each.overlay)} if each.overlay else url
        )
    return document


def _service(process: str, found: Discovered, options: DeploymentOptions) -> DeployedService:
    known = found.said.known
    profiles = found.service.targets[0].partition(PROFILES)[2].split(",")
    tag = "-".join([known.version, *filter(None, profiles)]).replace("+", "_")
    image = f"{_label(known.name)}:{tag}"
    given = _REPLICAS.fullmatch(options.replicas.get(process, "1"))
    least = int(given["least"]) if given else 1
    return DeployedService(
        process=process,
        name=_label(process),
        image=options.images.get(process) or "/".join(filter(None, [options.registry, image])),
        resources=known.resources,
        least=least,
        most=int(given["most"] or least) if given else least,
        is_plain=found.is_plain,
        keeps_jobs=known.asynchronous,
        overlay=found.overlay,
    )


def _option_faults(services: Services, options: DeploymentOptions) -> Iterator[BadField]:
    names = ", ".join(sorted(services.found))
    for option, given in (("--image", options.images), ("--replicas", options.replicas)):
        for name in given.keys() - services.found.keys():
            yield BadField(f"{option} {name}", f"is no process of the pipeline; it has {names}")
    for name, text in options.replicas.items():
        found = _REPLICAS.fullmatch(text)
        if found is None or int(found["most"] or found["least"]) < int(found["least"]):
            detail = f"{text!r} is neither a number of replicas nor MIN-MAX, as 2-8"
            yield BadField(f"--replicas {name}", detail)
    labels: dict[str, str] = {}
    for process in sorted(services.found):
        other = labels.setdefault(_label(process), process)
        if other != process:
            detail = f"has the name {_label(process)} in the network, as {other}; rename one"
            yield BadField(process, detail)


def _remarks(services: Sequence[DeployedService], options: DeploymentOptions) -> Iterator[str]:
    for each in services:
        if each.resources.cpu is None:
            yield f"{each.process} declares no resources.cpu: it gets one core"
        if each.resources.ram is None:
            yield f"{each.process} declares no resources.ram: its memory has no limit"
        if each.keeps_jobs and each.most > 1:
            yield f"{each.process} is asynchronous: a replica that ends loses its jobs"
    if not options.token_secret:
        yield "anybody in the network of the services may call them; --token-secret NAME"


def _label(process: str) -> str:
    """Return a name as DNS allows it.

    >>> _label("Cloud_Mask@1.2")
    'cloud-mask-1-2'
    """
    name = re.sub(r"[^a-z0-9]+", "-", process.lower()).strip("-")
    return (name if name[:1].isalpha() else f"p-{name}")[:_LONGEST_NAME].rstrip("-")

"""Describe a pipeline as a process: its inputs and outputs are those of the process.

How a call runs the pipeline is in `pipeline_execution`.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pesto_runtime.contract import Description, Pipeline, RasterContract, parse_binding
from pesto_runtime.errors import InvalidInput, ProcessChanged
from pesto_runtime.pipeline import (
    RasterType,
    completed,
    fed_ports,
    input_defaults,
    input_schema,
)
from pesto_runtime.processor.description_builder import DEFINITIONS, object_schema
from pesto_runtime.run.builds import load_planned
from pesto_runtime.run.planning import check_pipeline
from pesto_runtime.run.services import resolve_services
from pesto_runtime.run.targets import pipeline_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.pipeline import Checked, FedPort, ValueType
    from pesto_runtime.run.services import Services

    Document = dict[str, JsonValue]

_IMAGE: dict[str, JsonValue] = {"$ref": "#/definitions/Image"}


@dataclass(frozen=True)
class PipelineProcess:
    """A pipeline with its services, as a process.

    Attributes:
        pipeline: The pipeline.
        base: Directory to which its targets are relative.
        services: The services of its processes, as found when it was loaded.
        description: Its contract: it takes whole scenes.
        build: `sha256:…` of the pipeline and the builds of its services.
    """

    pipeline: Pipeline
    base: Path
    services: Services
    description: Description
    build: str

    @classmethod
    def load(cls, target: str, profiles: Sequence[str] = ()) -> Self:
        """Load a pipeline, its functions and the descriptions of its services.

        Args:
            target: Its JSON file, or the href of one.
            profiles: None: a pipeline names those of its projects.

        Raises:
            InvalidInput: the file is not JSON, or there are profiles.
            InvalidPipeline: it does not check; with every error.
            PestoError: a target cannot be loaded, or a service does not respond.
        """
        if profiles:
            raise InvalidInput(
                f"{target}: a pipeline has no option -p; it names profiles of its projects itself"
            )
        source = pipeline_of(target)
        services = resolve_services(source.pipeline, base=source.base)
        description = Description.parse(_document(source.pipeline, services))
        build = _build(source.pipeline, services)
        return cls(source.pipeline, source.base, services, description, build)

    @property
    def version_document(self) -> Mapping[str, JsonValue]:
        """Versions of its processes."""
        found = self.services.descriptions.items()
        return {"processes": {name: each.version for name, each in found}}

    def setup(self) -> None:
        """Run the set-up of its functions once; raises as they do."""
        for each in self.services.services.values():
            if not each.is_remote:
                load_planned(each).setup()

    def require_same(self) -> None:
        """Do nothing if the code of its processes is still that of the build.

        Raises:
            ProcessChanged: it is not.
            PestoError: a target cannot be loaded, or a service does not respond.
        """
        build = _build(self.pipeline, resolve_services(self.pipeline, base=self.base))
        if build != self.build:
            raise ProcessChanged(
                f"a process of {self.pipeline.name} was changed while the service runs: build "
                f"{build}, served {self.build}; restart the service"
            )


def _build(pipeline: Pipeline, services: Services) -> str:
    builds = {name: each.build for name, each in services.services.items()}
    text = json.dumps([pipeline.to_json(), builds], sort_keys=True)
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def _document(pipeline: Pipeline, services: Services) -> Document:
    """Return the description; `version` changes with the pipeline and its processes."""
    checked = check_pipeline(pipeline, services)
    checked.require(pipeline.name)
    facts = [pipeline.to_json(), {n: d.version for n, d in services.descriptions.items()}]
    facts_hash = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    name = pipeline.name
    return {
        "title": name.replace("-", " ").capitalize(),
        "name": name,
        "version": f"0.0.0+{facts_hash[:8]}",
        "description": pipeline.description,
        "resources": {},
        "asynchronous": False,
        "tileable": "whole",
        "x-pipeline": {"stages": {stage.id: stage.process for stage in pipeline.stages}},
        "input": _inputs(pipeline, services),
        "output": _outputs(pipeline, services, checked),
    }


def _inputs(pipeline: Pipeline, services: Services) -> Document:
    descriptions = services.descriptions
    typed, fed = completed(pipeline, descriptions), fed_ports(pipeline, descriptions)
    defaults = input_defaults(pipeline, descriptions)
    properties: Document = {}
    required = []
    for name, kind in typed.inputs.items():
        ports = fed[name]
        schema = _image_input(ports) if kind == "image" else _value_input(kind, ports)
        properties[name] = {**schema, **({"default": defaults[name]} if name in defaults else {})}
        needs = any(each.port.required or each.port.has_default for each in ports)
        if name not in defaults and (needs or not ports):
            required.append(name)
    sides = [each.description.known.input for ports in fed.values() for each in ports]
    return object_schema(
        properties, required=required, definitions=_definitions(sides),
        title=f"{pipeline.name} input",
    )  # fmt: skip


def _image_input(ports: Sequence[FedPort]) -> Document:
    """Return the schema of an image; its bands and dtype if one port takes it."""
    texts = [str(each.port.schema["description"]) for each in ports
             if "description" in each.port.schema]  # fmt: skip
    schema = {**_IMAGE, **({"description": texts[0]} if texts else {})}
    raster = ports[0].port.raster if len(ports) == 1 else None
    if raster is None:
        return schema
    facts = raster.model_dump(mode="json", include={"bands", "dtype"}, exclude_defaults=True)
    return {**schema, "x-raster": facts}


def _value_input(kind: str, ports: Sequence[FedPort]) -> Document:
    if kind == "inherit" and ports:
        return {key: each for key, each in ports[0].port.schema.items() if key != "default"}
    return input_schema(kind, ports)


def _outputs(pipeline: Pipeline, services: Services, checked: Checked) -> Document:
    properties: Document = {}
    sides = []
    for name, reference in pipeline.outputs.items():
        bound = parse_binding(reference)
        stage = pipeline.stage(bound.owner) if bound else None
        description = services.descriptions[stage.process] if stage else None
        port = description.output(bound.port) if description and bound else None
        if isinstance(checked.types.get(reference), RasterType):
            properties[name] = {**_IMAGE, "x-raster": _image_output(checked.types[reference])}
        elif port is not None and description is not None:
            # Features of a run are in the scene's system of coordinates, not in pixels.
            properties[name] = {key: each for key, each in port.schema.items() if key != "x-vector"}
            sides.append(description.known.output)
        else:
            properties[name] = {}
    return object_schema(
        properties, definitions=_definitions(sides), title=f"{pipeline.name} output"
    )


def _image_output(found: ValueType) -> Document:
    if not isinstance(found, RasterType):
        return {}
    facts: Document = {}
    if found.bands and None not in found.bands and len({*found.bands}) == len(found.bands):
        facts["bands"] = [str(each) for each in found.bands]
    elif found.bands:
        facts["bands"] = len(found.bands)
    if len(found.dtype) == 1:
        facts["dtype"] = found.dtype[0]
        if found.nodata is not None and math.isfinite(found.nodata):
            facts["nodata"] = found.nodata
    return RasterContract.model_validate(facts).model_dump(mode="json", exclude_unset=True)


def _definitions(sides: Iterable[Mapping[str, JsonValue]]) -> Document:
    """Return the types that the ports of several processes refer to.

    Raises:
        InvalidInput: two processes have different types of one name.
    """
    found: Document = {}
    for side in sides:
        own = side.get("definitions")
        for name, schema in own.items() if isinstance(own, dict) else ():
            if name not in DEFINITIONS and found.setdefault(name, schema) != schema:
                raise InvalidInput(
                    f"two processes of the pipeline have different types {name!r}, so that it "
                    "cannot be served as one process; rename a class"
                )
    return found

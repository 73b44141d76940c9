"""What is known of a pipeline before anything is read: whether it checks, and its shape.

Imports neither pixels nor network: an orchestrator asks for a shape at every parse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import InvalidPipeline
from pesto_runtime.pipeline import KnownFacts, check, phases_of, read_later
from pesto_runtime.run.services import read_document

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Literal

    from pydantic import JsonValue

    from pesto_runtime.contract import Scene
    from pesto_runtime.pipeline import Checked
    from pesto_runtime.run.services import Services


@dataclass(frozen=True)
class PipelineInputs:
    """What a pipeline is run on.

    Attributes:
        scenes: Image input -> facts of its raster.
        parameters: Other input -> value.
    """

    scenes: Mapping[str, Scene]
    parameters: Mapping[str, JsonValue]


@dataclass(frozen=True)
class PhaseShape:
    """A phase as an orchestrator draws it.

    Attributes:
        number: Its place in the plan.
        kind: `map`, `whole` or `call`.
        stages: Ids of its map stages in order, or of the one whole or call stage.
        reduces: Ids of the reduces that read its blocks.
        rasters: Rasters (`$stage.port`) that a later phase reads: mosaicked before it begins.
    """

    number: int
    kind: Literal["map", "whole", "call"]
    stages: tuple[str, ...]
    reduces: tuple[str, ...]
    rasters: tuple[str, ...]

    @property
    def fans_out(self) -> bool:
        """Whether it has chunks."""
        return self.kind != "call"


def load_pipeline(path: Path) -> Pipeline:
    """Read a pipeline's file.

    Raises:
        InvalidInput: it is not there, or not JSON.
        InvalidPipeline: it does not fit the schema; with every wrong field.
    """
    document = read_document(path)
    try:
        return Pipeline.parse(document)
    except InvalidPipeline as error:
        raise InvalidPipeline.of(str(path), error.fields) from error


def check_pipeline(
    pipeline: Pipeline, services: Services, *, inputs: PipelineInputs | None = None
) -> Checked:
    """Type-check a pipeline against what its services say, and against inputs where given."""
    return check(
        pipeline,
        KnownFacts(
            descriptions=services.descriptions,
            digests=services.digests,
            plain=services.plain,
            scenes=inputs.scenes if inputs else {},
            parameters=inputs.parameters if inputs else None,
            offered=services.offered,
        ),
    )


def shape(pipeline: Pipeline, services: Services) -> tuple[PhaseShape, ...]:
    """The phases that a pipeline will have, whatever the scene.

    Raises:
        InvalidPipeline: the pipeline does not check; with every error.
    """
    checked = check_pipeline(pipeline, services)
    checked.require(pipeline.name)
    phases = phases_of(checked.stages, pipeline.outputs.values())
    return tuple(
        PhaseShape(
            number=number,
            kind=phase.kind,
            stages=tuple(stage.id for stage in phase.stages),
            reduces=tuple(stage.id for stage in phase.reduces),
            rasters=read_later(phases, number),
        )
        for number, phase in enumerate(phases)
    )

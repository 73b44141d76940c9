"""Run a fused chain inside one tile: depth-first, intermediates let go after their last reader."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from pesto_runtime.errors import PestoError
from pesto_runtime.pipeline import BoundStage, RasterType, VectorType
from pesto_runtime.run.callers import caller_for
from pesto_runtime.run.features import Feature, read_features
from pesto_runtime.run.inputs import (
    padding_of,
    placement_of,
    stage_array,
    stage_reference,
    tile_info,
    trimmed,
    typed,
    written,
)
from pesto_runtime.tiling import StepWindows, scaled_window, whole

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np

    from pesto_runtime.contract import Scale, Window
    from pesto_runtime.run.callers import Caller
    from pesto_runtime.run.context import RunContext
    from pesto_runtime.run.inputs import Pixels, Sources
    from pesto_runtime.run.records import CostMeter
    from pesto_runtime.tiling import Chain, Size


Made: TypeAlias = "np.ndarray | tuple[Feature, ...]"
"""What a tile makes: an array (band, row, col) of a raster, or features of a vector."""


class StageFailed(Exception):  # an event on its way to a hole or out of the run
    """A stage could not make its part of a tile.

    Attributes:
        stage: Its id.
        error: Why.
    """

    def __init__(self, stage: str, error: PestoError) -> None:
        super().__init__(f"stage {stage!r}: {error}")
        self.stage = stage
        self.error = error


def in_stage(error: PestoError, stage: str, window: Window | None = None) -> PestoError:
    """The same error, with the stage and the tile named in it."""
    where = f"stage {stage!r}" + (f", tile {list(window)}" if window else "")
    told = error.prefixed(where)
    told.__cause__ = error
    return told


@dataclass
class TileRunner:
    """Runs the stages of a phase on one tile after another; belongs to one thread.

    Attributes:
        context: Of the run.
        chain: Geometry of the phase.
        stages: Map stages, or the one whole stage, in order.
        sources: Where pixels come from.
        parameters: Stage id -> its JSON inputs.
        meter: Of the chunk.
    """

    context: RunContext
    chain: Chain
    stages: tuple[BoundStage, ...]
    sources: Sources
    parameters: Mapping[str, Mapping[str, object]]
    meter: CostMeter
    _callers: dict[str, Caller] = field(default_factory=dict)

    def run(self, wanted: Mapping[str, Window]) -> tuple[dict[str, Made], dict[str, object]]:
        """Make the wanted windows of rasters and vectors.

        Returns:
            Raster -> array (band, row, col) of its wanted window, vector -> the features found,
            those in the margin too; and `$stage.port` -> value of every JSON output, of which only
            a whole stage's mean anything.

        Raises:
            StageFailed: a stage failed.
            RasterUnreadable: a source cannot be read.
        """
        windows = self.chain.windows(wanted)
        live = [stage for stage in self.stages if stage.id in windows.steps]
        to_read = Counter(str(each) for stage in live for each in stage.rasters.values())
        held: dict[str, Pixels] = {}
        made: dict[str, Made] = {}
        values: dict[str, object] = {}
        for stage in live:
            outputs = self._perform(stage, windows.steps[stage.id], held, windows.sources)
            made |= self._features(stage, windows.steps[stage.id], outputs)
            values |= self._keep(stage, windows.steps[stage.id], outputs, held)
            for reference in stage.rasters.values():
                to_read[str(reference)] -= 1
                if not to_read[str(reference)] and str(reference) not in wanted:
                    held.pop(str(reference), None)
        made |= {
            name: self._held(name, held, windows.sources).crop(window).array
            for name, window in wanted.items()
            if window.pixels and name not in made
        }
        return made, values

    def run_whole(self) -> tuple[dict[str, Made], dict[str, object]]:
        """Run the one stage of a whole phase on its whole rasters; answers as `run` does.

        Raises:
            StageFailed: the stage failed.
            RasterUnreadable: a source cannot be read.
        """
        (stage,) = self.stages
        read = whole(self._grid(stage))
        makes = scaled_window(read, self._scale(stage))
        windows = StepWindows(read, makes, makes)
        outputs = self._perform(stage, windows, {}, dict.fromkeys(self.chain.sizes, read))
        held: dict[str, Pixels] = {}
        made: dict[str, Made] = dict(self._features(stage, windows, outputs))
        values = self._keep(stage, windows, outputs, held)
        return made | {name: pixels.array for name, pixels in held.items()}, values

    def _held(self, name: str, held: dict[str, Pixels], sources: Mapping[str, Window]) -> Pixels:
        if name not in held:
            held[name] = self.sources.read(name, sources[name])
        return held[name]

    def _perform(
        self,
        stage: BoundStage,
        windows: StepWindows,
        held: dict[str, Pixels],
        sources: Mapping[str, Window],
    ) -> dict[str, object]:
        caller = self._caller(stage)
        pad = padding_of(stage, windows, self._grid(stage))
        inputs: dict[str, object] = dict(self.parameters[stage.id])
        for port, reference in stage.rasters.items():
            image = (
                stage_reference(self.context, stage, port, windows.read)
                if caller.takes_references and pad.is_none
                else None
            )
            if image is not None:
                inputs[port] = image
                self.sources.count_reference(str(reference), image)
            else:
                pixels = self._held(str(reference), held, sources).crop(windows.read)
                inputs[port] = stage_array(self.context, stage, port, pixels, pad)
        write = written(windows, self._scale(stage))
        tile = tile_info(self.context, stage, windows.read, write)
        try:
            with self.meter.call(stage.id):
                return caller.run(inputs, tile=tile)
        except PestoError as error:
            raise StageFailed(stage.id, error) from error

    def _keep(
        self,
        stage: BoundStage,
        windows: StepWindows,
        outputs: Mapping[str, object],
        held: dict[str, Pixels],
    ) -> dict[str, object]:
        """Trim the rasters that a stage made into `held`; answer its JSON values."""
        pad = padding_of(stage, windows, self._grid(stage))
        values: dict[str, object] = {}
        for port, made in stage.makes.items():
            name = stage.reference(port)
            if isinstance(made, VectorType):
                continue
            if not isinstance(made, RasterType):
                values[name] = outputs.get(port)
                continue
            try:
                array = typed(outputs.get(port), made, name=name)
                scale = self._scale(stage)
                held[name] = trimmed(array, windows, pad, scale=scale, name=name)
            except PestoError as error:
                raise StageFailed(stage.id, error) from error
        return values

    def _features(
        self, stage: BoundStage, windows: StepWindows, outputs: Mapping[str, object]
    ) -> dict[str, Made]:
        """The features of every vector that a stage made, in their place in the scene's grid."""
        scale = self._scale(stage)
        pad = padding_of(stage, windows, self._grid(stage))
        found: dict[str, Made] = {}
        for port in stage.description.outputs:
            name = stage.reference(port.name)
            if not isinstance(stage.makes[port.name], VectorType):
                continue
            size = self.context.sizes[name]
            place = placement_of(stage, windows, pad, scale=scale, size=size)
            geometries = port.vector.geometry if port.vector else ()
            try:
                found[name] = read_features(
                    outputs.get(port.name), place, geometries=geometries, name=name
                )
            except PestoError as error:
                raise StageFailed(stage.id, error) from error
        return found

    def _caller(self, stage: BoundStage) -> Caller:
        """What performs a stage; looked up once, as the chunk of a tile outlives no `close`."""
        if stage.id not in self._callers:
            self._callers[stage.id] = caller_for(self.context.plan.services[stage.stage.process])
        return self._callers[stage.id]

    def _scale(self, stage: BoundStage) -> Scale:
        return next(step.scale for step in self.chain.steps if step.name == stage.id)

    def _grid(self, stage: BoundStage) -> Size:
        return self.chain.sizes[str(next(iter(stage.rasters.values())))]

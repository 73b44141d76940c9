"""Choose the size of tiles and the number of chunks, from memory, margin and cost.

The choice never changes the bytes of a result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

from pesto_runtime.contract import BLOCK, Window
from pesto_runtime.errors import InvalidInput
from pesto_runtime.pipeline.types import JsonType, RasterType
from pesto_runtime.tiling import Chain, Size, scaled_window, tile_quantum, whole

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pesto_runtime.contract import Memory, Scale
    from pesto_runtime.pipeline.phases import PhaseStages
    from pesto_runtime.pipeline.types import BoundStage, ValueType

MOST_TASKS = 256
_SIDES = (1024, 1536, 2048, 3072, 4096)
_SMALL_SIDES = (768, 512, 384, 256, 128, 64)
_MOST_OVERHEAD = 1.5  # pixels read per pixel written
_UNDECLARED_FACTOR = 8  # times the bytes of inputs and outputs, for the process's own arrays
_UNKNOWN_BYTES = 8  # per pixel and band; the largest real dtypes
# Nominal rates. An error by a factor of three changes the number of chunks, and nothing else.
STAGE_SECONDS_PER_PIXEL = 100e-9
HTTP_SECONDS_PER_PIXEL = 60e-9


@dataclass(frozen=True, slots=True)
class Sizing:
    """Limits that decide how a run is divided into chunks and tiles.

    Attributes:
        workers: Chunks that run at the same time.
        max_tasks: Maximum number of chunks of a phase; never above 256.
        tile: Side of a tile, pixels; None to choose it by memory.
        memory_bytes: Memory for the tiles of all workers together.
        task_cost_s: Time that the engine adds to each task, seconds.

    Raises:
        InvalidInput: a value is outside its range.
    """

    workers: int = 2
    max_tasks: int = 64
    tile: int | None = None
    memory_bytes: int = 4 << 30
    task_cost_s: float = 0.02

    def __post_init__(self) -> None:
        for name in ("workers", "max_tasks", "memory_bytes"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"{name} {getattr(self, name)} must be 1 or more")
        if self.max_tasks > MOST_TASKS:
            raise InvalidInput(f"max_tasks {self.max_tasks} must be {MOST_TASKS} or less")
        if self.tile is not None and self.tile < 1:
            raise InvalidInput(f"tile {self.tile} must be 1 pixel or more")

    def chunk_count(self, seconds: float) -> int:
        """Return the maximum number of chunks for a phase of so much work.

        Four chunks per worker level out the ends of workers; more are allowed as long as a chunk
        takes ten times the engine's cost of a task.
        """
        return min(self.max_tasks, max(4 * self.workers, int(seconds / (10 * self.task_cost_s))))


@dataclass(frozen=True)
class PhaseCost:
    """Estimated memory and time of a phase; the time is right within a factor of three.

    Attributes:
        pixel_bytes: Bytes in memory per pixel of a tile, margin included.
        fixed_bytes: Bytes per tile, independent of its size.
        seconds: Time of one worker for the whole scene.
    """

    pixel_bytes: float
    fixed_bytes: float
    seconds: float


def phase_cost(
    stages: PhaseStages, types: Mapping[str, ValueType], size: Size, *, remote: set[str]
) -> PhaseCost:
    """Estimate a phase: declared memory if every stage declares it, else 8 x (in + out bytes)."""
    members = [*stages.stages, *stages.reduces]
    touched = {*stages.sources, *(ref for stage in stages.stages for ref in _made(stage))}
    array_bytes = sum(_pixel_bytes(types[name]) for name in touched)
    by_stage = [_memories(stage) for stage in members]
    declared = [memory for memories in by_stage for memory in memories]
    declared_bytes = sum(memory.input_pixel + memory.output_pixel for memory in declared)
    rates = [
        STAGE_SECONDS_PER_PIXEL + HTTP_SECONDS_PER_PIXEL * (stage.stage.process in remote)
        for stage in members
    ]
    return PhaseCost(
        pixel_bytes=array_bytes + declared_bytes
        if all(by_stage)
        else _UNDECLARED_FACTOR * array_bytes,
        fixed_bytes=sum(memory.fixed for memory in declared),
        seconds=size[0] * size[1] * sum(rates),
    )


def tile_size(
    stages: PhaseStages,
    chain: Chain,
    cost: PhaseCost,
    chunks: Sequence[Window],
    *,
    types: Mapping[str, ValueType],
    sizing: Sizing,
) -> Size:
    """Width and height of a phase's tiles, in pixels of the scenes.

    The smallest side from 1024 upwards whose margins add at most half to the pixels read, if it
    fits into the memory of one worker and the tile limits of the stages; else the largest that
    fits. With a fixed size of windows, the largest that leaves room for the margins.

    Raises:
        InvalidInput: not even 64 x 64 pixels fit, or the wanted tile does not fit.
    """
    scales = [each.scale for each in types.values() if not isinstance(each, JsonType)]
    quantum = tile_quantum(scales, [step.align for step in chain.steps])
    if sizing.tile is not None:
        tile = _rounded(sizing.tile, quantum)
        _require_fit(chain, tile, chunks, types=types)
        return tile
    budget = sizing.memory_bytes / sizing.workers
    is_fixed = any(step.is_fixed for step in chain.steps)
    fits = []
    for side in _fixed_sides(chain, quantum, scales) if is_fixed else _sides(stages):
        tile = _rounded(side, quantum)
        read = _read_size(chain, tile, chunks, types=types)
        needs = read[0] * read[1] * cost.pixel_bytes + cost.fixed_bytes
        if needs <= budget and _fits(chain, tile, chunks, types=types):
            fits.append((tile, read[0] * read[1] / (tile[0] * tile[1])))
    if not fits:
        raise InvalidInput(
            f"a tile of {_SMALL_SIDES[-1]} pixels needs more than the {budget / 2**20:.0f} MiB of "
            f"a worker, or than its stages accept ({_accepted(chain)}, margin included): "
            f"{cost.pixel_bytes:.0f} bytes per pixel and {cost.fixed_bytes / 2**20:.0f} MiB fixed "
            "are declared; run fewer workers, or correct `memory` or `tile` in the contract"
        )
    good = [tile for tile, overhead in fits if overhead <= _MOST_OVERHEAD and tile[0] >= _SIDES[0]]
    return min(good) if good and not is_fixed else max(tile for tile, _ in fits)


def block_tiles(stages: PhaseStages, sizing: Sizing) -> Sizing:
    """Return the sizing of a phase with values that are folded over tiles: a tile is a block.

    Raises:
        InvalidInput: tiles of another size are wanted.
    """
    if sizing.tile not in (None, BLOCK):
        names = ", ".join(repr(stage.id) for stage in stages.folded)
        raise InvalidInput(
            f"tiles of {sizing.tile} pixels: the values of stage {names} are folded over tiles of "
            f"{BLOCK} pixels, so that they do not depend on their size; leave the size out"
        )
    return replace(sizing, tile=BLOCK)


def raster_bytes(value: ValueType, size: Size) -> int:
    """Return the uncompressed bytes of a raster over scenes of this width and height."""
    if not isinstance(value, RasterType):
        return 0
    return int(_pixel_bytes(value) / float(value.scale.x * value.scale.y)) * size[0] * size[1]


def _sides(stages: PhaseStages) -> tuple[int, ...]:
    preferred = [
        port.raster.tile.preferred
        for stage in stages.stages
        for port in stage.description.image_inputs
        if port.raster is not None and port.raster.tile is not None and port.raster.tile.preferred
    ]
    return (min(preferred),) if preferred else (*_SMALL_SIDES, *_SIDES)


def _fixed_sides(chain: Chain, quantum: Size, scales: Sequence[Scale]) -> range:
    """Return the sides of tiles that can fit into windows of one size, in pixels of the scenes."""
    most = min(step.most for step in chain.steps if step.most is not None)
    coarsest = min([Fraction(1), *(min(scale.x, scale.y) for scale in scales)])
    step = max(quantum)
    return range(step, max(step, int(most / coarsest)) + 1, step)


def _require_fit(
    chain: Chain, tile: Size, chunks: Sequence[Window], *, types: Mapping[str, ValueType]
) -> None:
    if not _fits(chain, tile, chunks, types=types):
        raise InvalidInput(
            f"tiles of {tile[0]} x {tile[1]} pixels are larger than the stages accept "
            f"({_accepted(chain)}, margin included): choose a smaller tile, or none"
        )


def _accepted(chain: Chain) -> str:
    limits = [f"{s.name} at most {s.most} pixels a side" for s in chain.steps if s.most is not None]
    return ", ".join(limits) or "any size"


def _fits(
    chain: Chain, tile: Size, chunks: Sequence[Window], *, types: Mapping[str, ValueType]
) -> bool:
    """Whether every tile of the chunks gives each step a window of a size that it accepts."""
    if all(step.most is None for step in chain.steps):
        return True
    return all(chain.fits(_made_of(chain, window, types)) for window in _diagonal(chunks, tile))


def _diagonal(chunks: Sequence[Window], tile: Size) -> Iterator[Window]:
    """Yield windows that have the columns and the rows of every tile; axes are independent."""
    columns = sorted({(chunk.col_off, chunk.col_stop) for chunk in chunks})
    rows = sorted({(chunk.row_off, chunk.row_stop) for chunk in chunks})
    across, down = (
        [(at, min(at + side, stop)) for start, stop in spans for at in range(start, stop, side)]
        for spans, side in ((columns, tile[0]), (rows, tile[1]))
    )
    for n in range(max(len(across), len(down))):
        (left, right), (top, bottom) = across[n % len(across)], down[n % len(down)]
        yield Window.spanning(left, top, right, bottom)


def _read_size(
    chain: Chain, tile: Size, chunks: Sequence[Window], *, types: Mapping[str, ValueType]
) -> Size:
    """Return the largest window that a stage receives for a tile in the middle of the scene."""
    last = chunks[-1]
    size = (last.col_stop, last.row_stop)
    middle = (max(size[0] - tile[0], 0) // 2, max(size[1] - tile[1], 0) // 2)
    window = Window(*middle, *tile).intersection(whole(size))
    windows = chain.windows(_made_of(chain, window, types))
    reads = [*windows.sources.values(), *(step.read for step in windows.steps.values())]
    return (max(read.width for read in reads), max(read.height for read in reads))


def _made_of(chain: Chain, window: Window, types: Mapping[str, ValueType]) -> dict[str, Window]:
    """Return the window of each raster and vector of a chain, for a window of the scenes."""
    return {
        name: scaled_window(window, each.scale)
        for name, each in types.items()
        if not isinstance(each, JsonType) and name in chain.sizes
    }


def _rounded(side: int, quantum: Size) -> Size:
    return (-(-side // quantum[0]) * quantum[0], -(-side // quantum[1]) * quantum[1])


def _made(stage: BoundStage) -> Iterable[str]:
    return (
        stage.reference(port) for port, each in stage.makes.items() if isinstance(each, RasterType)
    )


def _memories(stage: BoundStage) -> list[Memory]:
    ports = (*stage.description.inputs, *stage.description.outputs)
    return [port.raster.memory for port in ports if port.raster and port.raster.memory]


def _pixel_bytes(value: ValueType) -> float:
    if not isinstance(value, RasterType):
        return 0
    bands = len(value.bands) if value.bands else 1
    width = max((_itemsize(name) for name in value.dtype), default=_UNKNOWN_BYTES)
    return float(bands * width * value.scale.x * value.scale.y)


def _itemsize(dtype: str) -> int:
    return int("".join(character for character in dtype if character.isdigit())) // 8

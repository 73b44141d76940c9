"""What becomes of tiles: told while a chunk runs, kept in its manifest, read back by the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.contract import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import JsonValue

    from pesto_runtime.activities.context import RunContext


@dataclass(frozen=True, slots=True)
class TileRecord:
    """What became of a tile.

    Attributes:
        window: In the grid of the scenes, pixels.
        seconds: That it took; 0 for one that was reused.
        state: `done`, `reused` (all its blocks were there) or `hole`.
    """

    window: Window
    seconds: float
    state: str


@dataclass(frozen=True)
class TileObserver:
    """Who looks on while a chunk runs.

    Attributes:
        on_tile: Told of every tile when it is done.
        should_stop: Asked before every tile; True ends the chunk, what is whole being kept.
    """

    on_tile: Callable[[TileRecord], None] = lambda _record: None
    should_stop: Callable[[], bool] = lambda: False


def manifests_of(context: RunContext) -> Iterator[dict[str, JsonValue]]:
    """Every manifest that the chunks of a run, and its single calls, left."""
    for name in sorted(context.store.names(f"manifests/{context.plan.run}")):
        document = context.store.get_json(name)
        if isinstance(document, dict):
            yield dict(document)


def tile_records(context: RunContext) -> Iterator[TileRecord]:
    """What became of every tile of a run, phase after phase."""
    for manifest in manifests_of(context):
        tiles = manifest.get("tiles")
        for tile in tiles if isinstance(tiles, list) else []:
            if isinstance(tile, list):
                *window, seconds, state = tile
                numbers = [int(str(number)) for number in window]
                yield TileRecord(Window(*numbers), float(str(seconds)), str(state))

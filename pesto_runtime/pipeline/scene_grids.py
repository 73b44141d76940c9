"""Find the place of every raster of a run: the grids of its scenes, which must agree."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from pesto_runtime.contract import Grid, Reference, Scale
from pesto_runtime.errors import GridMismatch
from pesto_runtime.pipeline.types import GridType, JsonType, RasterType

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pesto_runtime.contract import Scene
    from pesto_runtime.pipeline.types import ValueType
    from pesto_runtime.tiling import Size

_SAME_PIXEL = 1e-3  # pixels

NO_GRID = Grid(width=0, height=0)
"""The grid of a run without scenes."""


class _Placed(NamedTuple):
    """A raster whose pixels on Earth are known.

    Attributes:
        title: For messages.
        grid: Its pixels.
        name: Name of its grid.
        scale: Its pixels per pixel of the grid that its type names.
    """

    title: str
    grid: Grid
    name: str
    scale: Scale


def base_grids(
    scenes: Mapping[str, Scene],
    types: Mapping[str, ValueType],
    grids: Mapping[str, Grid] = {},
) -> dict[str, Grid]:
    """Return the pixels of each grid, from its first scene.

    Args:
        scenes: Image inputs.
        types: Reference -> type; those of the scenes state their grids and scales.
        grids: Image of a warp that states its own grid -> that grid.

    Returns:
        Name of a grid -> its pixels; the empty name is the grid of the first image input, which is
        empty without scenes.

    Raises:
        GridMismatch: two rasters of a grid differ in CRS, or not by their ratio in size and place;
            names both, and the difference.
    """
    found: dict[str, Grid] = {"": NO_GRID}
    firsts: dict[str, _Placed] = {}
    for each in _placed(scenes, types, grids):
        if each.name not in firsts:
            firsts[each.name] = each
            found[each.name] = each.grid.at(Scale() / each.scale)
        _require_same_grid(firsts[each.name], each)
    return found


def place_of(
    value: GridType,
    bases: Mapping[str, Grid],
    scenes: Mapping[str, Scene],
    types: Mapping[str, ValueType],
) -> Grid:
    """Return the pixels on Earth of a raster or a vector.

    Those of the scene that it inherits from, at its scale, if that is on its grid: scenes of one
    grid differ by up to a thousandth of a pixel.
    """
    scene = value.scene if isinstance(value, RasterType) else ""
    own = types.get(f"$inputs.{scene}")
    if isinstance(own, RasterType) and own.grid == value.grid and scene in scenes:
        return scenes[scene].grid.at(value.scale / own.scale)
    return bases.get(value.grid, NO_GRID).at(value.scale)


def raster_sizes(types: Mapping[str, ValueType], bases: Mapping[str, Grid]) -> dict[str, Size]:
    """Return width and height of every raster and vector.

    Args:
        types: Reference -> type.
        bases: Name of a grid -> its pixels.
    """
    placed = {
        name: bases.get(each.grid, NO_GRID).at(each.scale)
        for name, each in types.items()
        if not isinstance(each, JsonType)
    }
    return {name: (grid.width, grid.height) for name, grid in placed.items()}


def _placed(
    scenes: Mapping[str, Scene], types: Mapping[str, ValueType], grids: Mapping[str, Grid]
) -> Iterator[_Placed]:
    for name, scene in scenes.items():
        own = types[str(Reference(owner="inputs", port=name))]
        if isinstance(own, RasterType):
            yield _Placed(f"{name!r} ({scene.href})", scene.grid, own.grid, own.scale)
    for reference, grid in grids.items():
        own = types[reference]
        if isinstance(own, RasterType):
            yield _Placed(f"{reference!r} (warped)", grid, own.grid, own.scale)


def _require_same_grid(first: _Placed, other: _Placed) -> None:
    ratio, grid = other.scale / first.scale, first.grid
    if any(side.denominator > 1 for side in (grid.width * ratio.x, grid.height * ratio.y)):
        raise GridMismatch(
            f"input {first.title} has {grid.width} x {grid.height} pixels, no multiple of "
            f"{(Scale() / ratio).to_json()}, of which one pixel of {other.title} is made: cut it "
            "by a window whose size is one"
        )
    wanted = grid.at(ratio)
    differences = [*_differing_facts(wanted, other.grid), *_differing_places(wanted, other.grid)]
    if not differences:
        return
    needs = ""
    if not ratio.is_one:
        needs = f" ({ratio.to_json()} pixels of the second are needed per pixel of the first)"
    raise GridMismatch(
        f"inputs {first.title} and {other.title} are on different grids{needs}: "
        f"{'; '.join(differences)}; resample one onto the other's grid by a stage of the process "
        "`warp` with `like`"
    )


def _differing_facts(first: Grid, second: Grid) -> list[str]:
    pairs = (
        ("width", first.width, second.width),
        ("height", first.height, second.height),
        ("CRS", first.crs, second.crs),
    )
    return [f"{fact} {a} against {b}" for fact, a, b in pairs if a != b]


def _differing_places(first: Grid, second: Grid) -> list[str]:
    """Return the differences of two affine transforms, in pixels of the first."""
    a, b = first.transform, second.transform
    if a is None or b is None:
        return [] if a == b else ["only one of them has a transform"]
    # A difference in pixel size counts by how far it moves the last pixel of the grid.
    differences = []
    if any(abs(a[i] - b[i]) * max(first.width, first.height) > abs(a[0] or a[1]) * _SAME_PIXEL
           for i in (0, 1, 3, 4)):  # fmt: skip
        differences.append(f"pixels of {a[0]:g} x {a[4]:g} against {b[0]:g} x {b[4]:g}")
    across, down = (b[2] - a[2]) / (a[0] or 1), (b[5] - a[5]) / (a[4] or 1)
    if max(abs(across), abs(down)) > _SAME_PIXEL:
        differences.append(f"origins {across:g} columns and {down:g} rows apart")
    return differences

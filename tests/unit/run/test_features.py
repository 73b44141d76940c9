"""Ownership of features: each exactly once, and the same, however the grid is divided."""

from __future__ import annotations

import json
import math
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.contract import Window
from pesto_runtime.errors import ContractBroken
from pesto_runtime.run.features import (
    Feature,
    FeatureBlocks,
    WindowPlacement,
    decode_block,
    read_features,
)
from pesto_runtime.tiling import blocks_of, whole

if TYPE_CHECKING:
    from pydantic import JsonValue

SIZE = (700, 600)
Point = tuple[Fraction, Fraction]


def collection(*features: JsonValue) -> dict[str, JsonValue]:
    return {"type": "FeatureCollection", "features": list(features)}


def shape(kind: str, coordinates: JsonValue, **more: JsonValue) -> dict[str, JsonValue]:
    geometry: JsonValue = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": {}, **more}


def only(*features: JsonValue, at: tuple[int, int] = (0, 0), mirrored: bool = False) -> Feature:
    found = read_features(collection(*features), WindowPlacement(*at, SIZE, mirrored), name="$s.v")
    assert len(found) == 1
    return found[0]


def found_in(window: Window, points: list[Point]) -> tuple[Feature, ...]:
    """What a process says that sees some exact points of the scene through a window.

    It computes in floats, from the window's first pixel: the only numbers that it knows.
    """
    seen = [
        shape("Point", [float(x - window.col_off), float(y - window.row_off)])
        for x, y in points
        if window.col_off <= x < window.col_stop and window.row_off <= y < window.row_stop
    ]
    place = WindowPlacement(window.col_off, window.row_off, SIZE)
    return read_features(collection(*seen), place, name="$s.v")


def partition(cuts_x: set[int], cuts_y: set[int]) -> list[Window]:
    xs, ys = sorted({0, SIZE[0], *cuts_x}), sorted({0, SIZE[1], *cuts_y})
    return [Window.spanning(x0, y0, x1, y1) for y0, y1 in pairwise(ys) for x0, x1 in pairwise(xs)]


def wider(window: Window, margin: int) -> Window:
    return Window.spanning(
        window.col_off - margin, window.row_off - margin,
        window.col_stop + margin, window.row_stop + margin,
    ).intersection(whole(SIZE))  # fmt: skip


def collected(tiles: list[Window], points: list[Point], margin: int, *, owner: str = "write"
             ) -> list[bytes]:  # fmt: skip
    """Every block of the grid, from tiles; `owner` names the window that owns features."""
    collector = FeatureBlocks("$s.v", SIZE, set(blocks_of(SIZE)))
    blocks = {}
    for write in tiles:
        read = wider(write, margin)
        features = found_in(read, points)
        if owner == "read":  # the planted bug: every tile that sees a feature writes it
            features = tuple(
                Feature(each.point, each.content, (write.row_off, write.col_off))
                for each in features
            )
        blocks.update({block.index: block.encode() for block in collector.add(write, features)})
    assert set(blocks) == set(blocks_of(SIZE))
    return [blocks[index] for index in blocks_of(SIZE)]


def ratio(largest: int) -> st.SearchStrategy[Fraction]:
    """Any ratio inside the grid; whole numbers and halves, on which seams lie, come often."""
    common = st.integers(0, 2 * largest - 1).map(lambda twice: Fraction(twice, 2))
    any_other = st.fractions(0, largest, max_denominator=5000).filter(lambda each: each < largest)
    return st.one_of(common, any_other)


POINTS = st.lists(st.tuples(ratio(SIZE[0]), ratio(SIZE[1])), max_size=40)
CUTS = st.sets(st.integers(1, 599), max_size=6)


@settings(deadline=None, derandomize=True, max_examples=150)
@given(points=POINTS, cuts_x=CUTS, cuts_y=CUTS, margin=st.integers(0, 50))
def test_every_feature_is_there_once_and_the_same_for_every_partition(
    points: list[Point], cuts_x: set[int], cuts_y: set[int], margin: int
) -> None:
    """Bytes of every block equal those of one tile; a point on a seam is of one side."""
    alone = collected([whole(SIZE)], points, 0)
    tiled = collected(partition(cuts_x, cuts_y), points, margin)
    assert tiled == alone
    assert sum(len(decode_block(block)) for block in alone) == len(points)


def test_a_point_just_before_a_seam_is_not_rounded_across_it() -> None:
    """Without a margin the tile behind the seam could not see it: it would be lost."""
    points = [(200 - Fraction(1, 5000), Fraction(7)), (Fraction(9), 100 - Fraction(1, 100_000))]
    alone = collected([whole(SIZE)], points, 0)
    assert collected(partition({200}, {100}), points, 0) == alone
    assert len(decode_block(alone[0])) == 2


def test_ownership_by_what_a_tile_reads_is_seen() -> None:
    """The control: a feature in a margin is then there twice, or more."""
    points = [(Fraction(x), Fraction(y)) for x in range(5, 700, 20) for y in range(5, 600, 20)]
    tiles = partition({200, 400}, {200, 400})
    right, wrong = collected(tiles, points, 20), collected(tiles, points, 20, owner="read")
    count = [sum(len(decode_block(each)) for each in blocks) for blocks in (right, wrong)]
    assert count[0] == len(points) < count[1]


def test_floats_alone_would_move_a_feature_with_its_window() -> None:
    """The control for the rounding: sums of floats differ in their last bits; ours do not."""
    third = Fraction(611, 3)
    apart = {float(third - offset) + offset for offset in range(200)}
    contents = {
        only(shape("Point", [float(third - offset), 1]), at=(offset, 0)).content
        for offset in range(200)
    }
    assert len(apart) > 1
    assert len(contents) == 1


STEPS = st.integers(-(1 << 15), 1 << 22)  # from 8 pixels before the grid


@settings(deadline=None, derandomize=True, max_examples=200)
@given(x=STEPS, y=STEPS, at=st.tuples(st.integers(-50, 600), st.integers(-50, 500)))
def test_coordinates_are_written_in_steps_of_a_1024th_of_a_pixel(
    x: int, y: int, at: tuple[int, int]
) -> None:
    """The nearest step, the upper one of two that are as near; exactly, wherever the window is."""
    feature = only(shape("LineString", [[x / 4096, y / 4096], [0, 0]]), at=at)
    written = json.loads(feature.content)["geometry"]["coordinates"][0]
    expected = [math.floor(Fraction(step, 4096) * 1024 + Fraction(1, 2)) for step in (x, y)]
    assert [Fraction(each) for each in written] == [
        offset + Fraction(step, 1024) for offset, step in zip(at, expected, strict=True)
    ]


@settings(deadline=None, derandomize=True, max_examples=200)
@given(point=st.tuples(ratio(90), ratio(90)), at=st.integers(0, 200), noise=st.integers(-3, 3))
def test_noise_in_the_last_bits_of_a_float_moves_no_feature(
    point: Point, at: int, noise: int
) -> None:
    """A corner at 10 that an algorithm computes as 9.999999999999998 has the owner of 10."""
    exact = [float(each) for each in point]
    noisy: list[JsonValue] = [each + noise * math.ulp(256) for each in exact]
    places: list[JsonValue] = [*exact]
    assert only(shape("Point", noisy), at=(at, at)) == only(shape("Point", places), at=(at, at))


@pytest.mark.parametrize(
    ("xy", "pixel"),
    [
        ([512, 512], (512, 512)),
        ([511.999, 300], (300, 511)),
        ([0, 0], (0, 0)),
        ([700, 600], (599, 699)),
        ([-3.5, 700.25], (599, 0)),
    ],
    ids=["a seam is of what follows", "before a seam", "first", "far edges", "beyond"],
)
def test_a_pixel_holds_its_top_and_left_but_not_its_bottom_and_right(
    xy: list[JsonValue], pixel: tuple[int, int]
) -> None:
    """Half-open; what lies on the far edge, or beyond any, is of the nearest pixel: not lost."""
    assert only(shape("Point", xy)).pixel == pixel


def test_what_lies_in_a_mirror_is_dropped() -> None:
    """It is there a second time, where it really is."""
    seen = collection(shape("Point", [1.5, 8]), shape("Point", [6.5, 8]))
    place = WindowPlacement(-4, 0, SIZE, is_extended=True)
    assert [each.pixel for each in read_features(seen, place, name="v")] == [(8, 2)]


def test_the_point_of_anything_else_is_the_centre_of_its_bounding_box() -> None:
    """Neither the first vertex nor the direction of a ring moves it; a hole in it neither."""
    ring: list[JsonValue] = [[10, 10], [30, 10], [30, 20], [10, 20], [10, 10]]
    turned: list[JsonValue] = [[30, 20], [30, 10], [10, 10], [10, 20], [30, 20]]
    hole: list[JsonValue] = [[11, 11], [12, 11], [12, 12], [11, 11]]
    expected = (15, 20)
    shapes: list[list[JsonValue]] = [[ring], [turned], [ring[::-1], hole]]
    for coordinates in shapes:
        assert only(shape("Polygon", coordinates)).pixel == expected
    assert only(shape("MultiPolygon", [[ring]])).pixel == expected
    assert only(shape("LineString", [[0, 0], [40, 30], [7, 8]])).pixel == expected
    assert only(shape("MultiPoint", [[39, 15], [1, 15]])).pixel == expected


def test_a_feature_keeps_what_its_author_said_but_what_is_of_the_window() -> None:
    """`bbox` and `crs` would lie; height, id, properties and unknown members stay."""
    point: JsonValue = {"type": "Point", "coordinates": [2.25, 3, 99.5], "bbox": [0, 0, 1, 1]}
    document: JsonValue = {
        "type": "Feature", "id": "a", "geometry": point, "bbox": [0, 0, 1, 1],
        "properties": {"score": 0.5}, "mine": [1],
    }  # fmt: skip
    content = json.loads(only(document, at=(100, 200)).content)
    assert content == {
        "type": "Feature", "id": "a", "properties": {"score": 0.5}, "mine": [1],
        "geometry": {"type": "Point", "coordinates": [102.25, 203, 99.5]},
    }  # fmt: skip


def test_features_of_a_block_have_one_order_for_every_order_of_tiles() -> None:
    """Row-major by their points, then by content."""
    features = [
        shape("Point", [x, y], properties={"n": n}) for x, y, n in [(5, 1, 1), (5, 1, 0), (1, 2, 0)]
    ]
    made = []
    for order in (features, features[::-1]):
        collector = FeatureBlocks("$s.v", (9, 9), {(0, 0)})
        found = read_features(collection(*order), WindowPlacement(0, 0, (9, 9)), name="v")
        (block,) = collector.add(whole((9, 9)), found)
        made.append(block.encode())
    assert made[0] == made[1]
    numbers = [each["properties"]["n"] for each in json.loads(made[0])]
    assert numbers == [0, 1, 0]


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (None, "must be a GeoJSON FeatureCollection"),
        ({"type": "Feature"}, "must be a GeoJSON FeatureCollection"),
        (collection("x"), "/features/0 has no geometry"),
        (collection({"type": "Feature", "geometry": None}), "/features/0 has no geometry"),
        (collection(shape("Point", [1, 2]), shape("Circle", [1, 2])), "/features/1/geometry is a"),
        (collection(shape("Polygon", [])), "no coordinates"),
        (collection(shape("Polygon", [[1, 2], [3, 4]])), "is not a list of coordinates"),
        (collection(shape("Point", [1])), "is not a position"),
        (collection(shape("Point", [1, float("nan")])), "is not a position"),
        (collection(shape("Point", [1e30, 1])), "is not a position"),
        (collection(shape("Point", [True, 1])), "is not a position"),
        (collection(shape("Point", [1, 2], properties={"a": float("nan")})), "is not JSON"),
    ],
)
def test_what_is_no_feature_in_a_place_is_refused_by_name(document: object, said: str) -> None:
    """The message names the value and the feature."""
    with pytest.raises(ContractBroken, match=said) as refused:
        read_features(document, WindowPlacement(0, 0, SIZE), name="$s.v")
    assert str(refused.value).startswith("$s.v")


def test_a_geometry_that_the_contract_does_not_name_is_refused() -> None:
    """It says which are named."""
    with pytest.raises(ContractBroken, match="Point'; it must be one of Polygon"):
        read_features(
            collection(shape("Point", [1, 2])),
            WindowPlacement(0, 0, SIZE),
            geometries=("Polygon",),
            name="$s.v",
        )

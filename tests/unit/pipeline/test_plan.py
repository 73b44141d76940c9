"""A plan cuts a scene by memory and margin; how it is cut never changes what it is."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime.contract import BLOCK, Description, Plan, Scene, Service, Window
from pesto_runtime.errors import GridMismatch, InvalidInput, InvalidPipeline
from pesto_runtime.pipeline import MOST_TASKS, RasterType, Sizing, base_grids
from tests.unit.pipeline.building import (
    KNOWN,
    NUMBER,
    image,
    pipeline,
    planned,
    process,
    scene,
    services_of,
)

SCENE = "$inputs.scene"
SMOOTHED = pipeline({"a": ("smooth", {"x": SCENE})}, {"o": "$a.y"})
TWO = pipeline(
    {"j": ("join", {"a": "$inputs.before", "b": "$inputs.after"})},
    {"o": "$j.y"},
    inputs={"before": "image", "after": "image"},
)


def pair(**facts: object) -> dict[str, Scene]:
    return {"before": scene(), "after": scene(href="file:///data/after.tif", **facts)}  # type: ignore[arg-type]  # facts by name


def test_scenes_on_one_grid_have_its_size() -> None:
    """Whatever their bands and dtype; without a scene there is no grid."""
    types = {"$inputs.before": RasterType(), "$inputs.after": RasterType()}
    (base,) = base_grids(pair(bands=("x",), dtype="uint8"), types).values()
    assert (base.width, base.height) == (1000, 800)
    (none,) = base_grids({}, types).values()
    assert (none.width, none.height) == (0, 0)


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"width": 999}, "width 1000 against 999"),
        ({"height": 801}, "height 800 against 801"),
        ({"crs": "EPSG:4326"}, "CRS EPSG:32631 against EPSG:4326"),
        ({"crs": None}, "CRS EPSG:32631 against None"),
        ({"transform": (20.0, 0, 500_000, 0, -20.0, 5_500_000)}, "pixels of 10 x -10 against 20"),
        ({"transform": (10.0, 0, 500_025, 0, -10.0, 5_500_040)},
         "origins 2.5 columns and -4 rows apart"),
        ({"transform": (10.0, 0, 500_000, 0, -10.0, 5_500_040)},
         "origins 0 columns and -4 rows apart"),
        ({"transform": (10.0, 0, 500_000, 0, -10.0, 5_499_999.9)},
         "origins 0 columns and 0.01 rows apart"),
        ({"transform": (10.0, 0, 500_000.1, 0, -10.0, 5_500_000)}, "origins 0.01 columns and"),
        ({"transform": (10.0, 0, 500_000, 0, -10.1, 5_500_000)}, "against 10 x -10.1"),
        ({"transform": (10.0, 0, 500_000, 0.5, -10.0, 5_500_000)}, "pixels of"),
        ({"transform": (10.0, 0.5, 500_000, 0, -10.0, 5_500_000)}, "pixels of"),
        ({"transform": None}, "only one of them has a transform"),
    ],
)  # fmt: skip
def test_scenes_on_different_grids_are_told_apart(facts: dict[str, object], words: str) -> None:
    """Which two, in what, and by how much."""
    with pytest.raises(GridMismatch) as caught:
        planned(TWO, pair(**facts))
    detail = caught.value.detail
    assert words in detail
    assert "'before' (file:///data/scene.tif) and 'after' (file:///data/after.tif)" in detail
    assert "resample one" in detail


@pytest.mark.parametrize("off", [0.0, 0.004, -0.004])
def test_a_hair_s_breadth_is_one_grid(off: float) -> None:
    """Negative control: transforms that differ by rounding are the same."""
    planned(TWO, pair(transform=(10.0, 0, 500_000 + off, 0, -10.0, 5_500_000)))
    planned(TWO, pair(transform=(10.0, 0, 500_000, 0, -10.0, 5_500_000 + off)))


def test_a_pipeline_with_errors_is_not_planned() -> None:
    """The report of the check, not a plan of half of it."""
    with pytest.raises(InvalidPipeline, match="1 error"):
        planned(pipeline({"a": ("smooth", {"x": "$inputs.no"})}, {"o": "$a.y"}))


def test_what_was_dropped_is_not_scaled_up_again() -> None:
    """An odd scene halved and doubled is one short: refused by name, an even one is fine."""
    made = pipeline({"h": ("halve", {"x": SCENE}), "d": ("double", {"x": "$h.y"})}, {"o": "$d.y"})
    planned(made, {"scene": scene(1000, 800)})
    with pytest.raises(GridMismatch, match=r"\$d.y would be 1000 x 800 pixels .* 1001 x 800"):
        planned(made, {"scene": scene(1001, 800)})
    other = pipeline({"d": ("double", {"x": SCENE}), "h": ("halve", {"x": "$d.y"})}, {"o": "$h.y"})
    planned(other, {"scene": scene(1001, 801)})


def chunks_of(plan: Plan) -> list[Window]:
    return [chunk for phase in plan.phases for chunk in phase.chunks]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    size=st.tuples(st.integers(1, 60_000), st.integers(1, 60_000)),
    tile=st.none() | st.integers(1, 5000),
    max_tasks=st.integers(1, MOST_TASKS),
    workers=st.integers(1, 64),
)
def test_chunks_partition_any_scene_into_whole_blocks(
    size: tuple[int, int], tile: int | None, max_tasks: int, workers: int
) -> None:
    """Never above `max_tasks`; a tile is never larger than the widest chunk."""
    sizing = Sizing(workers=workers, max_tasks=max_tasks, tile=tile, memory_bytes=64 << 30)
    (phase,) = planned(SMOOTHED, {"scene": scene(*size)}, sizing=sizing).phases
    assert 1 <= len(phase.chunks) <= max_tasks
    assert sum(chunk.pixels for chunk in phase.chunks) == size[0] * size[1]
    for chunk in phase.chunks:
        assert chunk.col_off % BLOCK == chunk.row_off % BLOCK == 0
        assert chunk.col_stop % BLOCK == 0 or chunk.col_stop == size[0]
        assert chunk.row_stop % BLOCK == 0 or chunk.row_stop == size[1]
    assert phase.tile[0] <= max(chunk.width for chunk in phase.chunks)


def test_ten_thousand_tiles_are_few_tasks() -> None:
    """A task per tile would drown an engine: a scene of 100 x 100 tiles keeps the limit."""
    big = {"scene": scene(102_400, 102_400)}
    (phase,) = planned(SMOOTHED, big, sizing=Sizing(tile=1024, max_tasks=256)).phases
    tiles = math.prod(-(-side // phase.tile[0]) for side in phase.size)
    assert tiles >= 10_000
    assert 128 <= len(phase.chunks) <= 256
    assert len(planned(SMOOTHED, big).phases[0].chunks) <= 64


@pytest.mark.parametrize(
    ("seconds", "count"), [(0, 8), (3.9, 8), (10, 20), (31.9, 63), (32.1, 64), (1e6, 64)]
)
def test_a_chunk_takes_ten_times_what_its_task_costs(seconds: float, count: int) -> None:
    """One chunk per 0.5 s of work at 0.05 s a task; at least four per worker, at most 64."""
    sizing = Sizing(workers=2, max_tasks=64, task_cost_s=0.05)
    assert sizing.chunk_count(seconds) == count


@pytest.mark.parametrize(
    "wrong",
    [{"max_tasks": 257}, {"max_tasks": 0}, {"workers": 0}, {"tile": 0}, {"memory_bytes": 0}],
)
def test_sizing_that_makes_no_sense_is_refused(wrong: dict[str, int]) -> None:
    """By name."""
    with pytest.raises(InvalidInput, match=next(iter(wrong))):
        Sizing(**wrong)


def side(memory_mib: int, *, workers: int = 1) -> int:
    sizing = Sizing(workers=workers, memory_bytes=memory_mib << 20)
    return planned(SMOOTHED, {"scene": scene(20_000, 20_000)}, sizing=sizing).phases[0].tile[0]


def test_tiles_fit_the_memory_of_a_worker() -> None:
    """Less memory or more workers, smaller tiles; more than a good size buys nothing."""
    assert [side(m) for m in (2, 8, 64, 4096, 65_536)] == sorted(
        side(m) for m in (2, 8, 64, 4096, 65_536)
    )
    assert side(64, workers=8) == side(8)
    assert side(4096) == side(65_536) == 1024
    assert side(2) < 1024


def test_a_wide_margin_makes_tiles_larger() -> None:
    """So that reading the margin again costs less than half of the tile."""
    wide = process("wide", {"x": image(margin=200)}, {"y": image()})
    services = services_of(wide=services_of()["smooth"].model_copy(
        update={"description": wide.to_json()}))  # fmt: skip
    made = pipeline({"a": ("wide", {"x": SCENE})}, {"o": "$a.y"})
    sizing = Sizing(workers=1, memory_bytes=64 << 30)
    plan = planned(made, {"scene": scene(20_000, 20_000)}, services=services, sizing=sizing)
    tile = plan.phases[0].tile[0]
    assert tile > 1024
    assert (tile + 400) ** 2 <= 1.5 * tile**2


def tile_of(*stages: Description, memory_bytes: int = 64 << 30) -> int:
    """Side of the tiles of processes one after another: images `x` to `y`, the last of them any."""
    services = {
        each.name: Service(targets=("m:f",), description=each.to_json(), build="b")
        for each in stages
    }
    reads = [SCENE, *(f"${each.name}.y" for each in stages)]
    made = pipeline(
        {each.name: (each.name, {"x": read}) for each, read in zip(stages, reads, strict=False)},
        {"o": f"${stages[0].name}.y"},
    )
    sizing = Sizing(workers=1, memory_bytes=memory_bytes)
    there = {"scene": scene(20_000, 20_000)}
    return planned(made, there, services=services, sizing=sizing).phases[0].tile[0]


def limited(name: str, most: int | None) -> Description:
    tile = {} if most is None else {"tile": {"max": most}}
    return process(name, {"x": image(margin=20, **tile)}, {"y": image()})


def test_no_window_is_larger_than_a_process_takes() -> None:
    """`tile.max` counts the margin in, and that of the stages that follow."""
    assert tile_of(limited("a", None)) == 1024
    assert tile_of(limited("a", 300)) == 256  # 296 with the margin; 384 would be 424
    assert tile_of(limited("a", 295)) == 128
    assert tile_of(limited("a", 300), limited("b", None)) == 128  # 208; 256 would be 336
    assert 64 <= tile_of(limited("a", None), limited("b", 300)) <= 256
    with pytest.raises(InvalidInput, match=r"100 pixels a side, margin included"):
        tile_of(limited("a", 100))


def frugal(name: str) -> Description:
    """A process that declares, at both of its ports, a byte per pixel beside its arrays."""
    reads, makes = image(memory={"input_pixel": 1}), image(memory={"output_pixel": 1})
    return process(name, {"x": reads}, {"y": makes})


def silent(name: str, tileable: str = "map") -> Description:
    """A process that says nothing of its memory."""
    if tileable == "map":
        return process(name, {"x": image()}, {"y": image()})
    return process(name, {"x": image()}, {"n": NUMBER}, tileable="reduce", folds={"n": "sum"})


def test_memory_is_guessed_unless_every_stage_declares_it() -> None:
    """Three rasters of two bands of uint16 are 12 bytes a pixel; 8 times that is the guess.

    64 MiB hold 699 050 pixels of 96 bytes, a tile of 768, and 4 million of 12 + 4 bytes.
    """
    memory = 64 << 20
    assert tile_of(silent("a"), silent("b"), memory_bytes=memory) == 768
    assert tile_of(frugal("a"), silent("b"), memory_bytes=memory) == 768
    assert tile_of(silent("a"), frugal("b"), memory_bytes=memory) == 768
    assert tile_of(frugal("a"), frugal("b"), memory_bytes=memory) == 1024


def test_a_reduce_that_is_silent_has_its_memory_guessed_too() -> None:
    """Two rasters are 8 bytes a pixel, guessed 64: 42 MiB hold 688 128 of them."""
    memory = 42 << 20
    assert tile_of(frugal("a"), memory_bytes=memory) == 1024
    assert tile_of(frugal("a"), silent("r", "reduce"), memory_bytes=memory) == 768


def test_memory_that_holds_no_tile_is_told() -> None:
    """With what is needed, what there is, and the way out."""
    with pytest.raises(InvalidInput, match=r"a tile of 64 pixels needs more .* fewer workers"):
        planned(SMOOTHED, sizing=Sizing(memory_bytes=1000))


def keys(plan: Plan) -> dict[str, str]:
    return {**plan.keys, "run": plan.run}


CHAIN = pipeline(
    {
        "a": ("smooth", {"x": SCENE}),
        "m": ("mask", {"x": "$a.y", "limit": 0.5}),
        "s": ("stretch", {"x": "$a.y", "gain": "$inputs.gain"}),
    },
    {"mask": "$m.mask", "bright": "$s.y"},
    inputs={"scene": "image", "gain": "number"},
)
GIVEN: dict[str, float] = {"gain": 2}


def chain_keys(**changed: object) -> dict[str, str]:
    return keys(planned(CHAIN, **({"parameters": GIVEN} | changed)))  # type: ignore[arg-type]  # arguments by name


@pytest.mark.parametrize(
    "sizing",
    [Sizing(tile=64), Sizing(tile=200), Sizing(workers=32), Sizing(max_tasks=1),
     Sizing(memory_bytes=1 << 30), Sizing(task_cost_s=5)],
)  # fmt: skip
def test_how_a_run_is_cut_never_changes_a_key(sizing: Sizing) -> None:
    """Tile, workers, memory and the engine's cost: the same blocks are reused."""
    assert chain_keys(sizing=sizing) == chain_keys()


def changed_service(**update: object) -> dict[str, object]:
    services = services_of()
    services["smooth"] = services["smooth"].model_copy(update=update)
    return {"services": services}


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        (changed_service(build="sha256:other"), {"a", "m", "s"}),
        (changed_service(description={**KNOWN["smooth"].to_json(), "version": "2"}),
         {"a", "m", "s"}),
        ({"scenes": {"scene": scene(identity="1:2")}}, {"a", "m", "s", SCENE}),
        ({"scenes": {"scene": scene(href="file:///data/other.tif")}}, {"a", "m", "s", SCENE}),
        ({"parameters": {"gain": 3}}, {"s", "$inputs.gain"}),
        (changed_service(targets=("http://127.0.0.1:9",)), set()),
        (changed_service(transports=("image/tiff",)), set()),
    ],
    ids=["build", "description", "identity", "href", "parameter", "target", "transports"],
)  # fmt: skip
def test_a_key_changes_with_what_pixels_depend_on(
    changed: dict[str, object], what: set[str]
) -> None:
    """And with nothing else: stages that do not read it keep their blocks."""
    before, after = chain_keys(), chain_keys(**changed)
    differing = {name for name in before if before[name] != after[name]}
    stages = {name for name in differing if not name.startswith("$") or name in (SCENE,
              "$inputs.gain")}  # fmt: skip
    assert stages - {"run"} == what
    assert ("run" in differing) == bool(what)
    for name in differing - stages:
        assert name[1:].partition(".")[0] in what


def test_a_literal_is_part_of_the_key() -> None:
    """As a parameter is."""
    stages = {"a": ("stretch", {"x": SCENE, "gain": 2})}
    other = {"a": ("stretch", {"x": SCENE, "gain": 2.5})}
    one, two = (keys(planned(pipeline(each, {"o": "$a.y"}))) for each in (stages, other))
    assert one["a"] != two["a"]


def test_no_two_values_share_a_key() -> None:
    """Two outputs of one stage are two files of blocks."""
    found = planned(CHAIN, parameters=GIVEN).keys
    assert len(set(found.values())) == len(found)


def test_a_plan_goes_through_json() -> None:
    """It is an object of the run store: what is written is read back."""
    plan = planned(CHAIN, parameters=GIVEN)
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_a_whole_stage_is_one_tile_and_a_call_none() -> None:
    """One chunk of the whole scene; no chunk at all."""
    made = pipeline(
        {"s": ("segment", {"x": SCENE}), "v": ("verdict", {"fraction": "$s.count"})},
        {"o": "$s.labels", "w": "$v.word"},
    )
    segment, verdict = planned(made).phases
    assert (segment.kind, segment.chunks) == ("whole", (Window(0, 0, 1000, 800),))
    assert (verdict.kind, verdict.chunks) == ("call", ())

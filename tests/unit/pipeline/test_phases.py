"""What runs together in one fan-out, and what waits for it."""

from collections.abc import Mapping

import pytest

from pesto_runtime.contract import Margin, Scale, Window
from pesto_runtime.pipeline import PhaseStages, phase_chain, phases_of, steps_of
from tests.unit.pipeline.building import IMAGE, KNOWN, checked, image, pipeline, process

Stages = Mapping[str, tuple[str, Mapping[str, object]]]
SCENE = "$inputs.scene"


def phases(stages: Stages, *outputs: str) -> tuple[PhaseStages, ...]:
    made = pipeline(stages, {f"o{n}": each for n, each in enumerate(outputs)})
    found = checked(made)
    found.require("made")
    return phases_of(found.stages, made.outputs.values())


def shape(found: tuple[PhaseStages, ...]) -> list[tuple[str, list[str], list[str]]]:
    return [(p.kind, [s.id for s in p.stages], [s.id for s in p.reduces]) for p in found]


CHAIN: Stages = {
    "smooth": ("smooth", {"x": SCENE}),
    "mask": ("mask", {"x": "$smooth.y"}),
    "cover": ("cover", {"mask": "$mask.mask"}),
}


def test_maps_and_the_reduce_that_reads_them_are_one_phase() -> None:
    """One fan-out; only what is kept or read later is written."""
    found = phases(CHAIN, "$mask.mask", "$cover.fraction")
    assert shape(found) == [("map", ["smooth", "mask"], ["cover"])]
    assert found[0].sources == (SCENE,)
    assert found[0].writes == ("$mask.mask",)
    assert phases(CHAIN, "$cover.fraction")[0].writes == ()


def test_a_map_that_needs_a_reduce_s_result_is_the_next_phase() -> None:
    """The raster that it reads of the phase before is written there."""
    found = phases(
        {**CHAIN, "bright": ("stretch", {"x": "$smooth.y", "gain": "$cover.fraction"})},
        "$bright.y",
    )
    assert shape(found) == [("map", ["smooth", "mask"], ["cover"]), ("map", ["bright"], [])]
    assert [each.writes for each in found] == [("$smooth.y",), ("$bright.y",)]
    assert found[1].sources == ("$smooth.y",)


def test_a_call_waits_for_the_numbers_that_it_is_given() -> None:
    """It reads no raster, and starts a phase of its own."""
    found = phases(
        {**CHAIN, "verdict": ("verdict", {"fraction": "$cover.fraction"})}, "$verdict.word"
    )
    assert shape(found)[1:] == [("call", ["verdict"], [])]
    assert found[1].sources == found[1].writes == ()


def test_a_call_without_anything_before_it_is_first() -> None:
    """Nothing fans out for it."""
    found = phases({"v": ("verdict", {"fraction": 0.5}), **CHAIN}, "$v.word", "$mask.mask")
    assert shape(found) == [("call", ["v"], []), ("map", ["smooth", "mask"], ["cover"])]


def test_a_whole_stage_starts_and_ends_a_phase() -> None:
    """What it reads is written before it; what reads it is tiled anew."""
    found = phases(
        {
            "smooth": ("smooth", {"x": SCENE}),
            "segment": ("segment", {"x": "$smooth.y"}),
            "after": ("sharpen", {"x": "$segment.labels"}),
        },
        "$after.y",
    )
    assert shape(found) == [
        ("map", ["smooth"], []),
        ("whole", ["segment"], []),
        ("map", ["after"], []),
    ]
    assert [each.writes for each in found] == [("$smooth.y",), ("$segment.labels",), ("$after.y",)]


def test_both_arms_of_a_branch_are_one_phase() -> None:
    """The source is read once for both, and nothing between is written."""
    found = phases(
        {
            "a": ("smooth", {"x": SCENE}),
            "b": ("sharpen", {"x": SCENE}),
            "join": ("join", {"a": "$a.y", "b": "$b.y"}),
        },
        "$join.y",
    )
    assert shape(found) == [("map", ["a", "b", "join"], [])]
    assert found[0].sources == (SCENE,)
    assert found[0].writes == ("$join.y",)


def test_an_arm_that_waits_does_not_hold_the_other() -> None:
    """A join of a fused stage and of one that needed a number is in the later phase."""
    found = phases(
        {
            **CHAIN,
            "late": ("stretch", {"x": SCENE, "gain": "$cover.fraction"}),
            "join": ("join", {"a": "$late.y", "b": "$smooth.y"}),
        },
        "$join.y",
        "$mask.mask",
    )
    assert shape(found)[1] == ("map", ["late", "join"], [])
    assert found[0].writes == ("$smooth.y", "$mask.mask")
    assert set(found[1].sources) == {SCENE, "$smooth.y"}


def test_a_reduce_of_a_scene_reads_it_in_a_phase_of_its_own() -> None:
    """No map stage is needed."""
    found = phases({"cover": ("cover", {"mask": SCENE})}, "$cover.fraction")
    assert shape(found) == [("map", [], ["cover"])]
    assert found[0].sources == (SCENE,)


def test_a_chain_s_geometry_is_what_the_contracts_say() -> None:
    """Margins add along the chain: the source is read as widely as both need."""
    stages = {"a": ("smooth", {"x": SCENE}), "b": ("sharpen", {"x": "$a.y"})}
    made = pipeline(stages, {"o": "$b.y"})
    found = checked(made)
    (phase,) = phases_of(found.stages, made.outputs.values())
    chain = phase_chain(phase, found.types, {SCENE: (100, 80)})
    assert [step.margin for step in chain.steps] == [Margin.of(2), Margin(top=1)]
    windows = chain.windows({"$b.y": Window(40, 40, 10, 10)})
    assert tuple(windows.sources[SCENE]) == (38, 37, 14, 15)


@pytest.mark.parametrize(("aligns", "align"), [((4, 6), 12), ((1, 2), 2), ((3, 3), 3)])
def test_alignments_of_two_images_hold_both(aligns: tuple[int, int], align: int) -> None:
    """Windows are multiples of either: of their least common multiple."""
    odd = process("odd", {"a": image(align=aligns[0]), "b": image(align=aligns[1])}, {"y": IMAGE})
    made = pipeline({"s": ("odd", {"a": SCENE, "b": SCENE})}, {"o": "$s.y"})
    found = checked(made, descriptions={**KNOWN, "odd": odd})
    assert steps_of(found.stages)[0].align == align


def test_a_stage_s_scale_is_its_image_outputs() -> None:
    """A ratio per axis, and 1 where none is told."""
    made = pipeline({"d": ("double", {"x": SCENE}), "s": ("sharpen", {"x": "$d.y"})}, {"o": "$s.y"})
    found = checked(made)
    assert [step.scale for step in steps_of(found.stages)] == [Scale.of(2), Scale()]

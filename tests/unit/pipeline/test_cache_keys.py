"""Which values of a run are cached, and which of them serve runs over other windows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime.contract import CachePlace, Description, Scene, Selection, Window
from pesto_runtime.pipeline import KnownFacts, cache_place, check
from tests.unit.pipeline.building import pipeline, planned, scene, services_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pesto_runtime.contract import Service

MADE = pipeline(
    {
        "a": ("smooth", {"x": "$inputs.scene"}),
        "b": ("sharpen", {"x": "$a.y"}),
        "whole": ("segment", {"x": "$b.y"}),
    },
    {"sharp": "$b.y", "smooth": "$a.y", "labels": "$whole.labels"},
)
ALL = ("smooth", "sharpen", "segment")


def place(
    of: Scene,
    *,
    services: Mapping[str, Service] | None = None,
    contents: str = "",
    placeless: Collection[str] = ALL,
) -> CachePlace:
    """The keys of a run over a scene."""
    known = services or services_of()
    plan = planned(MADE, {"scene": of}, services=known)
    described = {name: Description.parse(each.description) for name, each in known.items()}
    found = check(MADE, KnownFacts(described, scenes=plan.scenes, parameters={}))
    return cache_place(
        "file:///cache", plan, MADE, found, contents={"scene": contents}, placeless=placeless
    )


def cut(window: Window) -> Scene:
    """A scene that is cut to a window."""
    return scene(window.width, window.height, selection=Selection(window=window))


def test_only_keys_of_movable_rasters_are_the_same_for_all_windows() -> None:
    """Those of the tiled phase over the scene; a window of all pixels is no other scene."""
    whole, part = place(scene()), place(cut(Window(8, 4, 500, 400)))
    assert {*whole.movable} == {*part.movable} == {"$a.y", "$b.y"}
    for name in whole.movable:
        assert whole.keys[name] == part.keys[name]
    for name in whole.keys.keys() - {*whole.movable}:
        assert whole.keys[name] != part.keys[name], name
    assert {"$whole.labels", "whole"} <= whole.keys.keys()


def test_other_bytes_are_other_keys() -> None:
    """Of a scene with the same path, size, time and inode: on another machine."""
    first, second = place(scene(), contents="1"), place(scene(), contents="2")
    assert first.keys.keys() == second.keys.keys()
    assert not {*first.keys.values()} & {*second.keys.values()}


def test_a_process_that_sees_its_place_makes_its_phase_unmovable() -> None:
    """Also for the process before it, which shares its tiles."""
    assert place(scene(), placeless=("smooth", "segment")).movable == ()


def test_a_scene_without_identity_has_no_keys() -> None:
    """Another run may read other pixels there."""
    assert place(scene(identity="")).keys == {}


def test_services_that_do_not_state_their_code_and_what_follows_are_not_cached() -> None:
    """PESTO 1.7.2 has name and version only, which stay when its code changes."""
    known = services_of()
    url = {"targets": ("http://host/api/v1",)}
    plain = known["sharpen"].model_copy(update=url)
    found = place(scene(), services=services_of(sharpen=plain))
    assert {*found.keys} == {"a", "$a.y"}
    stating = plain.model_copy(update={"states_code": True})
    assert "$whole.labels" in place(scene(), services=services_of(sharpen=stating)).keys

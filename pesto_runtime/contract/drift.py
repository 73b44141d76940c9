"""What changed between a saved description and the live one, and whether that breaks a pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pesto_runtime.contract.raster import RasterContract
from pesto_runtime.errors import json_pointer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract.description import Description, Port

_TEXT = ("title", "description", "examples", "example")
_GEOMETRY = ("bands", "dtype", "nodata", "margin", "edge", "scale", "align", "exactness", "tile")
_COMPARED = ("name", "version", "tileable", "x-reduce", "input", "output", "_links")


@dataclass(frozen=True, slots=True)
class Change:
    """One difference between two descriptions of a process.

    Attributes:
        pointer: JSON pointer to what changed.
        breaking: Whether a pipeline checked against the old one may fail, or give other pixels.
        detail: What changed, old value first.
    """

    pointer: str
    breaking: bool
    detail: str


def drift(saved: Description, live: Description) -> tuple[Change, ...]:
    """Compare two descriptions; empty where nothing that matters changed.

    A new optional input, a new output, texts and what no pipeline is checked against (`resources`,
    unknown keys) are compatible. A port removed or newly required, another type, and every field of
    the raster contract that decides pixels are breaking. A default written out is no change.
    """
    return (
        *_whole(saved, live),
        *_ports(saved.inputs, live.inputs, "/input/properties", side="input"),
        *_ports(saved.outputs, live.outputs, "/output/properties", side="output"),
        *_definitions(saved.known.input, live.known.input, "/input/definitions"),
        *_definitions(saved.known.output, live.known.output, "/output/definitions"),
    )


def is_breaking(changes: tuple[Change, ...]) -> bool:
    """Whether any of the changes is breaking."""
    return any(change.breaking for change in changes)


def _whole(saved: Description, live: Description) -> Iterator[Change]:
    for pointer, old, new, breaking in (
        ("/name", saved.name, live.name, True),
        ("/version", saved.version, live.version, False),
        ("/tileable", saved.tileable, live.tileable, True),
        ("/x-reduce", dict(saved.folds), dict(live.folds), True),
    ):
        if old != new:
            yield Change(pointer, breaking, f"{old!r} became {new!r}")
    for key in sorted({*saved.document, *live.document} - {*_COMPARED}):
        if saved.document.get(key) != live.document.get(key):
            detail = "the text changed" if key in _TEXT else "changed"
            yield Change(json_pointer(key), breaking=False, detail=detail)


def _ports(
    saved: tuple[Port, ...],
    live: tuple[Port, ...],
    pointer: str,
    *,
    side: Literal["input", "output"],
) -> Iterator[Change]:
    old, new = {p.name: p for p in saved}, {p.name: p for p in live}
    for name in sorted(old.keys() - new.keys()):
        where = pointer + json_pointer(name)
        yield Change(where, breaking=True, detail=f"the {side} was removed")
    for name in sorted(new.keys() - old.keys()):
        needed = new[name].required
        detail = f"a new {'required' if needed else 'optional'} {side}"
        yield Change(pointer + json_pointer(name), breaking=needed, detail=detail)
    for name in (name for name in old if name in new):
        yield from _port(old[name], new[name], pointer + json_pointer(name))


def _definitions(
    saved: Mapping[str, JsonValue], live: Mapping[str, JsonValue], pointer: str
) -> Iterator[Change]:
    """Types that ports refer to; one that came or went shows at its port."""
    old, new = _object(saved.get("definitions")), _object(live.get("definitions"))
    for name in (name for name in old if name in new):
        before, after = _object(old[name]), _object(new[name])
        same_type = _without(before, _TEXT) == _without(after, _TEXT)
        if before != after:
            detail = "the text changed" if same_type else f"{before} became {after}"
            yield Change(pointer + json_pointer(name), breaking=not same_type, detail=detail)


def _port(old: Port, new: Port, pointer: str) -> Iterator[Change]:
    if new.required and not old.required:
        yield Change(pointer, breaking=True, detail="became required")
    elif old.required and not new.required:
        yield Change(pointer, breaking=False, detail="became optional")
    if old.kind != new.kind:
        yield Change(pointer, breaking=True, detail=f"{old.kind} became {new.kind}")
    yield from _rasters(old, new, pointer)
    before = _without(old.schema, (*_TEXT, "x-raster"))
    after = _without(new.schema, (*_TEXT, "x-raster"))
    if before != after:
        yield Change(pointer, breaking=True, detail=f"{before} became {after}")
    elif _texts(old.schema) != _texts(new.schema):
        yield Change(pointer, breaking=False, detail="the text changed")


def _rasters(old: Port, new: Port, pointer: str) -> Iterator[Change]:
    before = (old.raster or RasterContract()).model_dump(mode="json")
    after = (new.raster or RasterContract()).model_dump(mode="json")
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            detail = f"{before.get(key)!r} became {after.get(key)!r}"
            where = f"{pointer}/x-raster{json_pointer(key)}"
            yield Change(where, breaking=key in _GEOMETRY, detail=detail)


def _object(value: JsonValue) -> Mapping[str, JsonValue]:
    return value if isinstance(value, dict) else {}


def _without(schema: Mapping[str, JsonValue], keys: Iterable[str]) -> dict[str, JsonValue]:
    return {key: value for key, value in schema.items() if key not in keys}


def _texts(schema: Mapping[str, JsonValue]) -> list[JsonValue]:
    return [schema.get(key) for key in _TEXT]

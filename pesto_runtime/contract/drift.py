"""What changed between a saved description and the live one, and whether that breaks a pipeline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract.description import Description, Port

_TEXT = ("title", "description", "examples", "example")
_GEOMETRY = ("bands", "dtype", "nodata", "margin", "edge", "scale", "align", "exactness", "tile")


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

    A new optional input, a new output and texts are compatible. A port removed or newly required,
    another type, and every field of the raster contract that decides pixels are breaking.
    """
    return (
        *_whole(saved, live),
        *_ports(saved.inputs, live.inputs, "/input/properties", side="input"),
        *_ports(saved.outputs, live.outputs, "/output/properties", side="output"),
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
    for key in _TEXT:
        if saved.document.get(key) != live.document.get(key):
            yield Change(f"/{key}", breaking=False, detail="the text changed")


def _ports(
    saved: tuple[Port, ...],
    live: tuple[Port, ...],
    pointer: str,
    *,
    side: Literal["input", "output"],
) -> Iterator[Change]:
    old, new = {p.name: p for p in saved}, {p.name: p for p in live}
    for name in old.keys() - new.keys():
        yield Change(f"{pointer}/{name}", breaking=True, detail=f"the {side} was removed")
    for name in sorted(new.keys() - old.keys()):
        needed = new[name].required
        detail = f"a new {'required' if needed else 'optional'} {side}"
        yield Change(f"{pointer}/{name}", breaking=needed, detail=detail)
    for name in (name for name in old if name in new):
        yield from _port(old[name], new[name], f"{pointer}/{name}")


def _port(old: Port, new: Port, pointer: str) -> Iterator[Change]:
    if new.required and not old.required:
        yield Change(pointer, breaking=True, detail="became required")
    elif old.required and not new.required:
        yield Change(pointer, breaking=False, detail="became optional")
    if old.kind != new.kind:
        yield Change(pointer, breaking=True, detail=f"{old.kind} became {new.kind}")
    yield from _rasters(old, new, pointer)
    ignored = {*_TEXT, "x-raster"}
    before = {k: v for k, v in old.schema.items() if k not in ignored}
    after = {k: v for k, v in new.schema.items() if k not in ignored}
    if before != after:
        yield Change(pointer, breaking=True, detail=f"{before} became {after}")
    elif _texts(old.schema) != _texts(new.schema):
        yield Change(pointer, breaking=False, detail="the text changed")


def _rasters(old: Port, new: Port, pointer: str) -> Iterator[Change]:
    before = old.raster.to_json() if old.raster else {}
    after = new.raster.to_json() if new.raster else {}
    for key in sorted(before.keys() | after.keys()):
        if str(before.get(key)) != str(after.get(key)):
            detail = f"{before.get(key)!r} became {after.get(key)!r}"
            yield Change(f"{pointer}/x-raster/{key}", breaking=key in _GEOMETRY, detail=detail)


def _texts(schema: Mapping[str, JsonValue]) -> list[JsonValue]:
    return [schema.get(key) for key in _TEXT]

"""Decide which processes can take a scene: bands, dtype, and the capabilities that they declare."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from pesto_runtime.contract import Reference
from pesto_runtime.contract.call import ImageCapabilities
from pesto_runtime.pipeline.bindings import edge_faults
from pesto_runtime.pipeline.types import scene_type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.contract import Description, Port, Scene


@dataclass(frozen=True)
class SceneFacts:
    """A scene, and facts that its file may not state.

    Attributes:
        scene: The scene.
        resolution: Metres per pixel; None if it is unknown.
        sensor: As `LANDSAT-8`; empty if it is unknown.
        level: As `L1TP`; empty if it is unknown.
    """

    scene: Scene
    resolution: float | None = None
    sensor: str = ""
    level: str = ""


def why_not(description: Description, facts: SceneFacts) -> tuple[str, ...]:
    """Return why the first image input of a process cannot take a scene; empty if it can.

    A fact that the process is made for, and that nobody knows of the scene, counts as a reason.
    """
    port = next(iter(description.data_inputs), None)
    if port is None:
        return ("it has no image input",)
    name = "scene"
    reference = Reference(owner="inputs", port=name)
    found = edge_faults(scene_type(name, facts.scene), port, reference=reference, where="")
    return (*(each.detail.partition(": insert")[0] for each in found), *_unlike(port, facts))


def _unlike(port: Port, facts: SceneFacts) -> Iterator[str]:
    """Yield what the capabilities of a port name, and a scene is not."""
    declared = (port.raster.capabilities if port.raster is not None else None) or {}
    try:
        made_for = ImageCapabilities.model_validate(declared)
    except ValidationError:  # any JSON is allowed; this is none that a scene can be compared with
        return
    for name, known, wanted in (
        ("sensor", facts.sensor, made_for.sensors),
        ("level", facts.level, made_for.levels),
    ):
        if wanted and not known:
            yield f"it is made for the {name} {' or '.join(wanted)}: state that of the scene"
        elif wanted and known.casefold() not in map(str.casefold, wanted):
            yield f"it is made for the {name} {' or '.join(wanted)}, not {known}"
    if made_for.resolution is not None:
        finest, coarsest = made_for.resolution
        if facts.resolution is None:
            yield f"it is made for {finest:g} to {coarsest:g} m: the resolution is unknown"
        # A pixel of 30 m is rarely 30 m wide on the ground: a hundredth is not another resolution.
        elif not finest * 0.99 <= facts.resolution <= coarsest * 1.01:
            yield f"it is made for {finest:g} to {coarsest:g} m, not {facts.resolution:g} m"

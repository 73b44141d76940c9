"""Load the process that is measured, and call it: a function, a PESTO project, or a service."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract import TileInfo, Window
from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import image_reference
from pesto_runtime.pipeline import step_of
from pesto_runtime.probing.data import ImageSpec
from pesto_runtime.processor import encode_partial
from pesto_runtime.raster.picking import picked_numbers
from pesto_runtime.raster.read import read_image, read_scene
from pesto_runtime.raster.scaling import scaled_image
from pesto_runtime.run.callers import caller_for
from pesto_runtime.run.services import find
from pesto_runtime.schema import typed_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port
    from pesto_runtime.probing.measuring import Images
    from pesto_runtime.run.callers import Caller

_LARGEST = 2048
"""Side of the part of a user's image that is read, pixels; around its centre."""


@dataclass(frozen=True)
class ProbedProcess:
    """A process that is measured.

    Attributes:
        description: Its contract.
        caller: Calls it.
        specs: Image input -> what it accepts.
        values: Its other inputs.
    """

    description: Description
    caller: Caller
    specs: Mapping[str, ImageSpec]
    values: Mapping[str, JsonValue]

    @classmethod
    def load(cls, target: str, texts: Mapping[str, str]) -> ProbedProcess:
        """Load a target, or the description of a service.

        Args:
            target: A target, or the URL of a service.
            texts: Input name -> text: path or href of an image, JSON for other kinds.

        Raises:
            InvalidInput: an input does not exist, or the process takes no image or a list of them.
            PestoError: it cannot be loaded, does not respond, or an image cannot be read.
        """
        found = find((target,))
        said = found.said
        _require_known(said, texts)
        service = found.service
        if said.tileable == "map":
            # A map is refused outputs of another size than declared, before they can be measured.
            loose = said.overlaid({"tileable": "whole"}).to_json()
            service = service.model_copy(update={"description": loose})
        specs = {
            port.name: ImageSpec.of(port, _given(port, texts.get(port.name)))
            for port in said.data_inputs
        }
        values = {
            name: _value(said, name, text) for name, text in texts.items() if name not in specs
        }
        return cls(said, caller_for(service), specs, values)

    def call(self, images: Images, *, window: Window, scene: tuple[int, int]
             ) -> dict[str, np.ndarray]:  # fmt: skip
        """Return the image outputs of a call; see `measuring.Call`."""
        with _quiet():
            outputs = self.caller.run(
                {**self.values, **images}, tile=self._tile(window=window, scene=scene)
            )
        return {name: each for name, each in outputs.items() if isinstance(each, np.ndarray)}

    def partial(self, images: Images, *, window: Window, scene: tuple[int, int]
                ) -> dict[str, JsonValue]:  # fmt: skip
        """Return the partial of a reduce for a window, as JSON with arrays in base64."""
        with _quiet():
            place = self._tile(window=window, scene=scene)
            return encode_partial(self.caller.partial({**self.values, **images}, tile=place))

    def _tile(self, *, window: Window, scene: tuple[int, int]) -> TileInfo:
        nodata = next(iter(self.specs.values())).nodata
        return TileInfo(read=window, write=window, scene_size=scene[::-1], nodata=nodata)


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore warnings about unusual data."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        yield


def _require_known(said: Description, texts: Mapping[str, str]) -> None:
    """Require image inputs and outputs, no required list of images, and no unknown input."""
    names = [port.name for port in said.inputs]
    unknown = [name for name in texts if name not in names]
    if unknown:
        raise InvalidInput(f"{said.name} has no input {unknown[0]!r}; it has {', '.join(names)}")
    lists = [port.name for port in said.inputs if port.kind == "images" and port.required]
    if lists or not said.data_inputs:
        why = f"input {lists[0]!r} is a list of images" if lists else "it takes no image"
        raise InvalidInput(f"{said.name} cannot be measured: {why}")
    if said.has_ratios:
        raise InvalidInput(
            f"{said.name} cannot be measured: its images have several resolutions (`ratio`); "
            "compare tiles by `pesto run --verify`"
        )
    step = step_of(said)
    if step.is_fixed and step.least > 1:
        raise InvalidInput(
            f"{said.name} cannot be measured: it takes {step.least} x {step.least} pixels only, "
            "and windows of other sizes show how far it looks; measure a version of it that takes "
            "any size, and compare tiles by `pesto run --verify`"
        )
    if said.tileable != "reduce" and not any(port.kind == "image" for port in said.outputs):
        raise InvalidInput(
            f"{said.name} cannot be measured: it returns no image, and vectors and JSON values are "
            "not compared"
        )


def _given(port: Port, text: str | None) -> np.ndarray | None:
    """Read the middle of a user's image, with the bands of the port."""
    if text is None:
        return None
    image = image_reference(text)
    scene = read_scene(image)
    width, height = min(scene.width, _LARGEST), min(scene.height, _LARGEST)
    middle = Window((scene.width - width) // 2, (scene.height - height) // 2, width, height)
    bands = picked_numbers(scene, port.raster)
    found = read_image(image, window=middle, bands=bands)
    is_scaled = port.raster is not None and port.raster.scaled
    return (scaled_image(found) if is_scaled else found).pixels


def _value(said: Description, name: str, text: str) -> JsonValue:
    port = said.input(name)
    return typed_text(said.schema_of(port) if port else {}, text)

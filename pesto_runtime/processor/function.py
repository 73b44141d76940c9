"""An authored function at work: inputs checked, the call made, outputs checked and made plain."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from pesto_runtime.contract import TileInfo, Window, bad_fields
from pesto_runtime.errors import BadField, ContractBroken, InvalidInput, NothingValid, shortened
from pesto_runtime.processor.failure import author_code
from pesto_runtime.processor.partials import is_empty
from pesto_runtime.processor.values import (
    encode_value,
    image_faults,
    output_image,
    output_images,
    read_only,
    refused_inputs,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description
    from pesto_runtime.processor.authoring import FunctionContract
    from pesto_runtime.processor.ports import PortSpec


@dataclass(frozen=True, eq=False)
class FunctionProcessor:
    """Performs a decorated function.

    Attributes:
        contract: What its author declared.
        build: `sha256:…` of its sources.
    """

    contract: FunctionContract
    build: str
    _ready: threading.Event = field(default_factory=threading.Event, repr=False)
    _gate: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def description(self) -> Description:
        """The process's contract."""
        return self.contract.description

    @property
    def version_document(self) -> Mapping[str, JsonValue]:
        """What `/version` tells."""
        return {"version": self.description.version}

    def setup(self) -> None:
        """Run the author's set-up, the first time only.

        Raises:
            AlgorithmFailed: it raised; the next call tries again.
        """
        with self._gate:
            if self.contract.setup is not None and not self._ready.is_set():
                with author_code(f"set-up of {self.description.name}", self._root):
                    self.contract.setup()
            self._ready.set()

    def run(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None = None
    ) -> dict[str, object]:
        """Answer the outputs; of a reduce, those of this one partial.

        Raises:
            InvalidInput: with every input that does not fit.
            AlgorithmFailed: the author's code raised.
            ContractBroken: an output is not what was declared.
            NothingValid: a reduce found nothing to reduce.
        """
        if self.contract.finish is not None:
            return self.finish(self.partial(inputs, tile=tile))
        return self._outputs(self._call(inputs, tile))

    def partial(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None = None
    ) -> dict[str, object]:
        """Answer a reduce's partial of these inputs.

        Raises:
            InvalidInput: with every input that does not fit, or the process is no reduce.
            AlgorithmFailed: the author's code raised.
            ContractBroken: the partial has other keys than declared, or is not JSON.
        """
        self._refuse_unless_reduce()
        name, folds = self.description.name, self.description.folds
        partial = self._call(inputs, tile)
        if not isinstance(partial, dict) or not set(partial) <= set(folds):
            raise ContractBroken(
                f"{name}: its partial must be a dict with keys of {sorted(folds)}, "
                f"not {shortened(partial)}"
            )
        return {key: _partial_value(key, value) for key, value in partial.items()}

    def finish(self, partial: Mapping[str, object]) -> dict[str, object]:
        """Answer the outputs of a merged partial.

        Raises:
            InvalidInput: the partial has a key that no fold names, or the process is no reduce.
            NothingValid: every key is null or absent.
            AlgorithmFailed: the author's code raised.
            ContractBroken: an output is not what was declared.
        """
        finish = self._refuse_unless_reduce()
        name, folds = self.description.name, self.description.folds
        unknown = [BadField(f"/{key}", f"is no key of {sorted(folds)}") for key in partial
                   if key not in folds]  # fmt: skip
        refused_inputs(f"{name}, finish", unknown)
        if is_empty(partial, folds):
            raise NothingValid(f"{name}: no block gave anything to reduce; no valid pixel?")
        with author_code(f"finish of {name}", self._root):
            result: object = finish({key: partial.get(key) for key in folds})
        return self._outputs(result)

    @property
    def _root(self) -> Path:
        return Path(self.contract.function.__code__.co_filename).parent

    def _refuse_unless_reduce(self) -> Callable[..., object]:
        if self.contract.finish is None:
            raise InvalidInput(f"{self.description.name} is no reduce: it has no partial")
        return self.contract.finish

    def _call(self, inputs: Mapping[str, object], tile: TileInfo | None) -> object:
        name = self.description.name
        arguments, faults = _arguments(self.contract.inputs, inputs)
        refused_inputs(name, faults)
        if self.contract.tile is not None:
            arguments[self.contract.tile] = tile or _whole_tile(self.contract.inputs, arguments)
        if not self._ready.is_set():
            self.setup()
        with author_code(name, self._root):
            return self.contract.function(**arguments)

    def _outputs(self, result: object) -> dict[str, object]:
        returns, name = self.contract.returns, self.description.name
        if not returns.keyed:
            return {port.name: _output(port, result) for port in returns.ports}
        wanted = [port.name for port in returns.ports]
        if not isinstance(result, dict) or set(result) != set(wanted):
            got = sorted(map(str, result)) if isinstance(result, dict) else result
            raise ContractBroken(f"{name}: returns a dict of {wanted}, but got {shortened(got)}")
        return {port.name: _output(port, result[port.name]) for port in returns.ports}


def _arguments(
    ports: tuple[PortSpec, ...], inputs: Mapping[str, object]
) -> tuple[dict[str, object], list[BadField]]:
    known = {port.name for port in ports}
    faults = [
        BadField(f"/{name}", f"is no input; there are {sorted(known)}", shortened(inputs[name]))
        for name in inputs
        if name not in known
    ]
    arguments: dict[str, object] = {}
    for port in ports:
        if port.name in inputs:
            found = list(_read(port, inputs[port.name], arguments))
            faults.extend(found)
        elif port.required:
            faults.append(BadField(f"/{port.name}", "is required"))
    return arguments, faults


def _read(port: PortSpec, value: object, arguments: dict[str, object]) -> Iterator[BadField]:
    """Put one checked input among the arguments, or tell what is wrong with it."""
    pointer = f"/{port.name}"
    if value is None and port.optional:
        arguments[port.name] = None
    elif port.kind in ("json", "vector"):
        yield from _read_json(port, value, arguments)
    elif port.kind == "image":
        faults = list(image_faults(pointer, value, port.raster))
        yield from faults
        if isinstance(value, np.ndarray) and not faults:
            arguments[port.name] = read_only(value)
    elif isinstance(value, (list, tuple)):
        for index, each in enumerate(value):
            yield from image_faults(f"{pointer}/{index}", each, port.raster)
        arguments[port.name] = [read_only(each) for each in value if isinstance(each, np.ndarray)]
    else:
        yield BadField(pointer, "must be a list of arrays (band, row, col)", shortened(value))


def _read_json(port: PortSpec, value: object, arguments: dict[str, object]) -> Iterator[BadField]:
    """Read a value as JSON: a list will do for a tuple, text will not do for a number."""
    if port.adapter is None:
        return
    try:
        text = json.dumps(value, allow_nan=False)
        arguments[port.name] = port.adapter.validate_json(text, strict=True)
    except ValidationError as error:
        yield from bad_fields(error, prefix=f"/{port.name}", value=value)
    except (TypeError, ValueError) as error:
        yield BadField(f"/{port.name}", f"is not JSON: {error}", shortened(value))


def _output(port: PortSpec, value: object) -> object:
    if value is None and port.optional:
        return None
    if port.kind == "image":
        return output_image(port.name, value)
    if port.kind == "images":
        return output_images(port.name, value)
    encoded = encode_value(port.name, value)
    if port.adapter is not None:
        try:
            port.adapter.validate_json(json.dumps(encoded), strict=True)
        except ValidationError as error:
            faults = list(bad_fields(error, prefix=f"/{port.name}", value=encoded))
            detail = f"output {port.name!r} is not what its hint says: {faults[0].detail}"
            raise ContractBroken(f"{detail}, not {faults[0].value}", fields=faults) from error
    return encoded


def _partial_value(key: str, value: object) -> object:
    if isinstance(value, np.ndarray) and value.ndim:
        return value
    return encode_value(key, value)


def _whole_tile(ports: tuple[PortSpec, ...], arguments: Mapping[str, object]) -> TileInfo:
    """The tile of a call that names none: the whole array, which is the whole scene."""
    for port in ports:
        pixels = arguments.get(port.name)
        if port.kind == "image" and isinstance(pixels, np.ndarray):
            _, height, width = pixels.shape
            window = Window(0, 0, width, height)
            return TileInfo(read=window, write=window, scene_size=(width, height))
    raise InvalidInput("a process that receives its tile needs an image")

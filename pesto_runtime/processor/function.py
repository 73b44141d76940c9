"""Run a decorated function: check its inputs, call it, check and convert its outputs.

The contract of the function is made in `authoring`; images are encoded and decoded elsewhere.
"""

from __future__ import annotations

import threading
import traceback
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.contract.image_lists import count_faults, gathered, spread_call
from pesto_runtime.errors import (
    AlgorithmFailed,
    BadField,
    ContractBroken,
    InvalidInput,
    NothingValid,
    PestoError,
    shortened,
)
from pesto_runtime.pipeline import step_of
from pesto_runtime.processor.blending import blended
from pesto_runtime.processor.fitting import FittedCall, whole_tile
from pesto_runtime.processor.values import (
    encode_value,
    is_empty,
    require_no_faults,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, TileInfo
    from pesto_runtime.processor.authoring import FunctionContract
    from pesto_runtime.processor.ports import PortSpec
    from pesto_runtime.tiling import Step

_THIS_PACKAGE = Path(__file__).parent
_MOST_CHARS = 500
_READ_ONLY = "; inputs are read-only: copy one before writing into it"


@dataclass(frozen=True, eq=False)
class FunctionProcessor:
    """Runs a decorated function.

    Attributes:
        contract: The declarations of its author.
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
        """The body of the response to `GET /api/v1/version`."""
        return {"version": self.description.version}

    def setup(self) -> None:
        """Run the author's set-up; later calls do nothing.

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
        """Return the outputs; for a reduce, the outputs of this partial alone.

        Raises:
            InvalidInput: inputs do not fit; the error lists all of them.
            AlgorithmFailed: the author's code raised.
            ContractBroken: an output does not fit its declaration.
            NothingValid: the partial of a reduce is empty.
        """
        if self.contract.finish is not None:
            return self.finish(self.partial(inputs, tile=tile))
        if self._fits_any_size:
            return self._once(inputs, tile)
        blend = self.contract.blend
        is_mirrored = blend is not None and tile is None
        description, inputs = spread_call(self.description, inputs)
        call = FittedCall.of(description, inputs, tile, step=self._step, is_mirrored=is_mirrored)
        if blend is not None:
            place = call.tile or whole_tile(self.contract.inputs, self._gathered(call.inputs))
            return call.trimmed(blended(self._once, blend, description, call.inputs, place))
        with call.naming_fill():
            return call.trimmed(self._once(call.inputs, call.tile))

    def partial(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None = None
    ) -> dict[str, object]:
        """Return the partial of a reduce for these inputs.

        Raises:
            InvalidInput: inputs do not fit, or the process is not a reduce.
            AlgorithmFailed: the author's code raised.
            ContractBroken: the partial has undeclared keys, or is not JSON.
        """
        self._require_reduce()
        name, folds = self.description.name, self.description.folds
        description, inputs = spread_call(self.description, inputs)
        call = FittedCall.of(description, inputs, tile, step=self._step)
        partial = self._call(call.inputs, tile)
        if not isinstance(partial, dict) or not set(partial) <= set(folds):
            raise ContractBroken(
                f"{name}: its partial must be a dict with keys of {sorted(folds)}, "
                f"not {shortened(partial)}"
            )
        return {key: _partial_value(key, value) for key, value in partial.items()}

    def finish(self, partial: Mapping[str, object]) -> dict[str, object]:
        """Return the outputs of a merged partial.

        Raises:
            InvalidInput: the partial has a key without a fold, or the process is not a reduce.
            NothingValid: every key is null or absent.
            AlgorithmFailed: the author's code raised.
            ContractBroken: an output does not fit its declaration.
        """
        finish = self._require_reduce()
        name, folds = self.description.name, self.description.folds
        unknown = [BadField(f"/{key}", f"is not a key of {sorted(folds)}") for key in partial
                   if key not in folds]  # fmt: skip
        require_no_faults(f"{name}, finish", unknown)
        if is_empty(partial, folds):
            raise NothingValid(f"{name}: the partial is empty; are there valid pixels?")
        with author_code(f"finish of {name}", self._root):
            result: object = finish({key: partial.get(key) for key in folds})
        return self._outputs(result)

    @cached_property
    def _step(self) -> Step:
        return step_of(self.description)

    @cached_property
    def _fits_any_size(self) -> bool:
        """Whether `FittedCall` changes neither inputs nor outputs, whatever the images are."""
        is_plain = not (self.description.masks or self.description.has_ratios)
        return self._step.fits_any_size and is_plain and self.contract.blend is None

    @cached_property
    def _root(self) -> Path:
        return Path(self.contract.function.__code__.co_filename).parent

    def _require_reduce(self) -> Callable[..., object]:
        if self.contract.finish is None:
            raise InvalidInput(f"{self.description.name} is not a reduce: it has no partial")
        return self.contract.finish

    def _call(self, inputs: Mapping[str, object], tile: TileInfo | None) -> object:
        name = self.description.name
        arguments, faults = _arguments(self.contract.inputs, self._gathered(inputs))
        require_no_faults(name, faults)
        if self.contract.tile is not None:
            arguments[self.contract.tile] = tile or whole_tile(self.contract.inputs, arguments)
        # Checked without the lock, which would cost every call; `setup` checks again with it.
        if not self._ready.is_set():
            self.setup()
        with author_code(name, self._root):
            return self.contract.function(**arguments)

    def _gathered(self, inputs: Mapping[str, object]) -> Mapping[str, object]:
        return gathered(self.description, inputs)

    def _once(self, inputs: Mapping[str, object], tile: TileInfo | None) -> dict[str, object]:
        return self._outputs(self._call(inputs, tile))

    def _outputs(self, result: object) -> dict[str, object]:
        returns, name = self.contract.returns, self.description.name
        if not returns.keyed:
            return {port.name: _output(port, result) for port in returns.ports}
        wanted = [port.name for port in returns.ports]
        if not isinstance(result, dict) or set(result) != set(wanted):
            actual = sorted(map(str, result)) if isinstance(result, dict) else result
            raise ContractBroken(f"{name}: returns a dict of {wanted}, but got {shortened(actual)}")
        return {port.name: _output(port, result[port.name]) for port in returns.ports}


class author_code:  # noqa: N801  # it is used as a function
    """Convert any exception of the author's code; errors of this package are not changed."""

    __slots__ = ("_name", "_root")

    def __init__(self, name: str, root: Path) -> None:
        """Prepare a block; leaving it raises `AlgorithmFailed` if the block raised.

        Args:
            name: The process, with the step that runs.
            root: Directory of the author's files; the detail ends with the author's innermost line.
        """
        self._name, self._root = name, root

    def __enter__(self) -> None:
        """Enter the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """Convert the error of the block.

        Raises:
            AlgorithmFailed: the author's code raised.
        """
        # The author's code may raise any of them.
        if not isinstance(error, (Exception, SystemExit)) or isinstance(error, PestoError):
            return
        text = " ".join(str(error).split())
        hint = _READ_ONLY if isinstance(error, ValueError) and "read-only" in text else ""
        message = f"{type(error).__name__}: {text}" if text else type(error).__name__
        message = message if len(message) <= _MOST_CHARS else message[:_MOST_CHARS] + "..."
        where = _where(error, self._root)
        raise AlgorithmFailed(f"{self._name}: {message}{hint}{where}") from error


def _arguments(
    ports: tuple[PortSpec, ...], inputs: Mapping[str, object]
) -> tuple[dict[str, object], list[BadField]]:
    known = {port.name for port in ports}
    faults = [
        BadField(f"/{name}", f"is not an input; there are {sorted(known)}", shortened(inputs[name]))
        for name in inputs
        if name not in known
    ]
    arguments: dict[str, object] = {}
    for port in ports:
        if port.name in inputs:
            faults.extend(_read(port, inputs[port.name], arguments))
        elif port.is_mask:
            arguments[port.name] = None  # of an image that is absent
        elif port.required:
            faults.append(BadField(f"/{port.name}", "is required"))
        elif port.make_default is not None:
            arguments[port.name] = port.make_default()
    return arguments, faults


def _read(port: PortSpec, value: object, arguments: dict[str, object]) -> Iterator[BadField]:
    """Check one input and add it to the arguments; yield its faults."""
    if value is None and port.optional:
        arguments[port.name] = None
        return
    if isinstance(value, (list, tuple)) and port.lengths:
        yield from count_faults(port.lengths, len(value), f"/{port.name}")
    yield from port.type.faults(port.name, value, port.raster, arguments)


def _output(port: PortSpec, value: object) -> object:
    return None if value is None and port.optional else port.type.encoded(port.name, value)


def _partial_value(key: str, value: object) -> object:
    if isinstance(value, np.ndarray) and value.ndim:
        return value
    return encode_value(key, value)


def _where(error: BaseException, root: Path) -> str:
    """Return file and line of the author's code that raised; empty if there is none."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        return f" ({_shown(error.filename, root)}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    foreign = [frame for frame in frames if not Path(frame.filename).is_relative_to(_THIS_PACKAGE)]
    own = [frame for frame in foreign if _is_own(frame.filename, root)]
    found = (own or foreign)[-1:]
    return f" ({_shown(found[0].filename, root)}:{found[0].lineno})" if found else ""


def _is_own(file: str, root: Path) -> bool:
    path = Path(file)
    return path.is_relative_to(root) and "site-packages" not in path.parts


def _shown(file: str, root: Path) -> str:
    path = Path(file)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name

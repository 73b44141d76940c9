"""Run an unmodified PESTO project: the class `Process` of its `algorithm/process.py`.

Calls run one after the other, as PESTO guarantees to authors. The JSON files of the project are
read in `project_files`.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar, get_type_hints

import numpy as np

from pesto_runtime.contract import IMAGE_KINDS
from pesto_runtime.contract.image_lists import gathered, spread_call
from pesto_runtime.errors import BadField, ContractBroken, InvalidContract, InvalidInput, shortened
from pesto_runtime.pipeline import step_of
from pesto_runtime.processor.data_types import encode_as
from pesto_runtime.processor.fitting import FittedCall
from pesto_runtime.processor.function import author_code
from pesto_runtime.processor.modules import ModuleSpace, supplied_modules
from pesto_runtime.processor.project_files import ProjectFiles, project_build, read_project
from pesto_runtime.processor.protocol import OwnedInputs
from pesto_runtime.processor.values import (
    image_faults,
    named_part,
    received_mask,
    require_no_faults,
)
from pesto_runtime.schema import main_errors, surely_fits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from jsonschema import Draft6Validator
    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port, RasterContract, TileInfo
    from pesto_runtime.schema import SurelyFits
    from pesto_runtime.tiling import Step


T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class ProjectProcessor:
    """Runs a PESTO project.

    Attributes:
        files: The content of its JSON files.
        build: `sha256:…` of its sources and profiles.
    """

    files: ProjectFiles
    build: str
    _process_class: ProcessClass = field(repr=False)
    _space: ModuleSpace = field(repr=False)
    _ready: threading.Event = field(default_factory=threading.Event, repr=False)
    # Reentrant, because `run` calls `setup` while it has the lock.
    _gate: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def description(self) -> Description:
        """The process's contract, as a PESTO service returns it."""
        return self.files.description

    @property
    def version_document(self) -> Mapping[str, JsonValue]:
        """The body of the response to `GET /api/v1/version`: the project's `version.json`."""
        return self.files.version_document

    def setup(self) -> None:
        """Run the project's `on_start`; later calls do nothing.

        Raises:
            AlgorithmFailed: it raised; the next call tries again.
        """
        with self._gate:
            if not self._ready.is_set():
                self._perform("on_start of ", self._process_class.start)
            self._ready.set()

    def run(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None = None
    ) -> dict[str, object]:
        """Return the declared outputs of the project; others are dropped.

        PESTO has no tiles, so `tile` is not used. A project may write into its inputs, as in PESTO:
        they are copies, unless `inputs` are `OwnedInputs`.

        Raises:
            InvalidInput: inputs do not fit their schema; the error lists all of them.
            AlgorithmFailed: the project's code raised.
            ContractBroken: an output is not the image or the JSON value that was declared.
        """
        if self._fits_any_size:
            return self._once(inputs)
        description, spread = spread_call(self.description, inputs)
        call = FittedCall.of(description, spread, tile, step=self._step)
        with call.naming_fill():
            outputs = self._once(gathered(self.description, call.inputs))
        return call.trimmed(outputs)

    def settled(self) -> AbstractContextManager[None]:
        """Make its modules importable between calls too, if this process runs nothing else."""
        return self._space.active()

    def partial(
        self, inputs: Mapping[str, object], *, tile: TileInfo | None = None
    ) -> dict[str, object]:
        """Raise an error: a PESTO project is not a reduce.

        Raises:
            InvalidInput: always.
        """
        del inputs, tile
        raise InvalidInput(
            f"{self.description.name} is not a reduce: a PESTO project has no partial"
        )

    def finish(self, partial: Mapping[str, object]) -> dict[str, object]:
        """Raise an error: a PESTO project is not a reduce.

        Raises:
            InvalidInput: always.
        """
        del partial
        raise InvalidInput(
            f"{self.description.name} is not a reduce: a PESTO project has no finish"
        )

    @cached_property
    def _step(self) -> Step:
        return step_of(self.description)

    @cached_property
    def _fits_any_size(self) -> bool:
        """Whether `FittedCall` changes neither inputs nor outputs, whatever the images are."""
        return self._step.fits_any_size and not self.description.masks

    def _once(self, inputs: Mapping[str, object]) -> dict[str, object]:
        """Call the project with inputs of a size that it accepts."""
        values, faults = self._values(inputs)
        require_no_faults(self.description.name, faults)
        with self._gate:
            if not self._ready.is_set():
                self.setup()
            results = self._perform("", lambda: self._process_class.call(values))
        return {
            port.name: encode_as(port.kind, port.name, results[port.name])
            for port in self.description.outputs
            if port.name in results
            and not (results[port.name] is None and port.kind in IMAGE_KINDS)
        }

    def _perform(self, prefix: str, work: Callable[[], T]) -> T:
        root, name = self.files.directory, self.description.name
        with author_code(f"{prefix}{name}", root), self._space.active():
            return work()

    def _values(self, inputs: Mapping[str, object]) -> tuple[dict[str, object], list[BadField]]:
        values: dict[str, object] = {}
        faults: list[BadField] = []
        for port in self.description.inputs:
            if port.name in inputs:
                faults.extend(self._faults(port, inputs[port.name]))
                values[port.name] = _input_value(port, inputs)
                if port.name in self.description.masks:
                    values[port.name] = _received_masks(inputs[port.name], port.raster)
            elif port.required:
                faults.append(BadField(f"/{port.name}", "is required"))
            elif port.has_default:
                values[port.name] = copy.deepcopy(port.schema["default"])
        return values, faults

    def _faults(self, port: Port, value: object) -> Iterator[BadField]:
        pointer = f"/{port.name}"
        if port.kind == "image":
            yield from image_faults(pointer, value, port.raster)
        elif port.kind == "images" and isinstance(value, (list, tuple)):
            for index, each in enumerate(value):
                yield from image_faults(f"{pointer}/{index}", each, port.raster)
        elif port.kind == "images":
            yield BadField(pointer, "must be a list of arrays (band, row, col)", shortened(value))
        else:
            yield from self._validators[port.name].faults(value)

    @cached_property
    def _validators(self) -> dict[str, _InputValidator]:
        definitions = self.description.known.input.get("definitions", {})
        return {
            port.name: _InputValidator.of(port, definitions) for port in self.description.inputs
        }


def load_project(directory: Path, *, profiles: Sequence[str] = ()) -> ProjectProcessor:
    """Load a PESTO project and import its code; `on_start` is called by `setup`.

    Its build is of the modules as they were compiled, and of the other files after the import.

    Raises:
        NotFound: the directory is not a project, or has no file for a profile.
        InvalidContract: the JSON files and the class `Process` contradict each other.
        AlgorithmFailed: its code raises when it is imported.
    """
    files = read_project(directory, profiles)
    space = ModuleSpace(directory, supplied_modules(files.full_version, profiles))
    with space.active():
        process_class = _load_process_class(directory, files.description)
    build = project_build(directory, profiles, compiled=space.sources())
    return ProjectProcessor(files, build, process_class, space)


@dataclass(frozen=True)
class ProcessClass:
    """An instance of a project's `Process`.

    Attributes:
        start: Its `on_start`; a function without effect if it has none.
        process: Its `process`.
        input_class: The dataclass that `process` receives; None if it receives parameters.
        fallback: Inputs for which the code has no default; without a value they are None.
    """

    start: Callable[[], object]
    process: Callable[..., object]
    input_class: type | None
    fallback: tuple[str, ...]

    def call(self, values: Mapping[str, object]) -> dict[str, object]:
        """Call `process` with these inputs; the code's own defaults apply to absent ones.

        Raises:
            ContractBroken: the result is neither a dict nor a dataclass.
        """
        arguments = {**dict.fromkeys(self.fallback), **values}
        if self.input_class is not None:
            result = self.process(self.input_class(**arguments))
        else:
            result = self.process(**arguments)
        if isinstance(result, dict):
            return {str(name): value for name, value in result.items()}
        if dataclasses.is_dataclass(result) and not isinstance(result, type):
            fields = dataclasses.fields(result)
            return {field.name: getattr(result, field.name) for field in fields}
        raise ContractBroken(f"process() must return a dict or Output, not {shortened(result)}")


def _load_process_class(directory: Path, description: Description) -> ProcessClass:
    """Import `algorithm.process` and create its `Process`; the caller makes it importable.

    Raises:
        AlgorithmFailed: the code raises.
        InvalidContract: there is no `Process.process`, or its parameters are not the inputs.
    """
    where = f"{description.name}, algorithm/process.py"
    with author_code(f"loading {description.name}", directory):
        module = importlib.import_module("algorithm.process")
        kind = getattr(module, "Process", None)
        algorithm: object = kind() if isinstance(kind, type) else None
    process, start = getattr(algorithm, "process", None), getattr(algorithm, "on_start", None)
    if not callable(process):
        raise InvalidContract(f"{where}: it needs a class Process with a method process")
    input_class = _input_class(process)
    accepted = _dataclass_fields(input_class) if input_class else _parameters(process)
    names = [port.name for port in description.inputs]
    if accepted is not None:
        receiver = input_class.__name__ if input_class else "process()"
        _require_same_names(accepted, names, where, receiver)
    fallback = tuple(name for name in names if not (accepted or {}).get(name, False))
    return ProcessClass(start if callable(start) else _no_start, process, input_class, fallback)


def _no_start() -> None:
    """Replace `on_start` in a project without one."""


def _input_class(process: Callable[..., object]) -> type | None:
    """Return the dataclass in the type hint of the only parameter of `process`; else None."""
    parameters = list(inspect.signature(process).parameters.values())
    if len(parameters) != 1:
        return None
    try:
        hint = get_type_hints(process).get(parameters[0].name)
    except (NameError, TypeError):  # an unrelated hint that this Python cannot resolve
        hint = parameters[0].annotation
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


def _dataclass_fields(kind: type) -> dict[str, bool]:
    """Return the names of the fields, and whether each has a default."""
    missing = dataclasses.MISSING
    return {
        field.name: field.default is not missing or field.default_factory is not missing
        for field in dataclasses.fields(kind)
        if field.init
    }


def _parameters(process: Callable[..., object]) -> dict[str, bool] | None:
    """Return the names of the parameters, and whether each has a default; None with `**`."""
    parameters = inspect.signature(process).parameters.values()
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        return None
    return {each.name: each.default is not inspect.Parameter.empty for each in parameters}


def _require_same_names(
    accepted: Mapping[str, bool], names: list[str], where: str, receiver: str
) -> None:
    extra = [name for name in names if name not in accepted]
    lacking = [
        name for name, has_default in accepted.items() if not has_default and name not in names
    ]
    if extra:
        raise InvalidContract(
            f"{where}: input_schema.json declares {extra}, which {receiver} does not take"
        )
    if lacking:
        raise InvalidContract(
            f"{where}: {receiver} needs {lacking}, which input_schema.json does not declare"
        )


def _input_value(port: Port, inputs: Mapping[str, object]) -> object:
    """Return the project's own copy of a value, without the keys that its schema does not name."""
    value = inputs[port.name]
    if isinstance(inputs, OwnedInputs) and _is_writeable(value):
        return value
    own = _own_copy(value)
    return named_part(own, dict(port.schema)) if port.kind == "json" else own


def _received_masks(value: object, contract: RasterContract | None) -> object:
    """Return the mask that an author receives; of a list of masks each."""
    if isinstance(value, (list, tuple)):
        return [received_mask(np.asarray(each), contract) for each in value]
    return received_mask(np.asarray(value), contract)


def _is_writeable(value: object) -> bool:
    arrays = value if isinstance(value, list) and value else [value]
    return all(isinstance(each, np.ndarray) and each.flags.writeable for each in arrays)


def _own_copy(value: object) -> object:
    if isinstance(value, np.ndarray):
        return np.array(value, order="C", copy=True)
    if isinstance(value, (list, tuple)) and any(isinstance(each, np.ndarray) for each in value):
        return [_own_copy(each) for each in value]
    return copy.deepcopy(value)


@dataclass(frozen=True)
class _InputValidator:
    """Validates the values of one input against its JSON schema."""

    _name: str
    _surely_fits: SurelyFits
    _validator: Draft6Validator

    @classmethod
    def of(cls, port: Port, definitions: JsonValue) -> _InputValidator:
        """Compile the schema of a port; it may refer to `definitions`."""
        from jsonschema import Draft6Validator

        schema = dict(port.schema)
        validator = Draft6Validator({**schema, "definitions": definitions})
        return cls(port.name, surely_fits(schema), validator)

    def faults(self, value: object) -> Iterator[BadField]:
        """Yield the errors of a value."""
        if self._surely_fits(value):
            return
        for error in main_errors(self._validator.iter_errors(value)):
            pointer = "".join(f"/{part}" for part in (self._name, *error.absolute_path))
            yield BadField(pointer, error.message[:200], shortened(error.instance))

"""The class `Process` of a PESTO project: how it is found, and in which style it is called.

PESTO has two: `process(self, input: Input) -> Output` with dataclasses, and
`process(self, **inputs) -> dict`.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_type_hints

from pesto_runtime.errors import ContractBroken, InvalidContract, shortened
from pesto_runtime.processor.failure import author_code

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from pesto_runtime.contract import Description


@dataclass(frozen=True)
class ProcessClass:
    """A project's `Process`, ready to be called.

    Attributes:
        start: Its `on_start`; nothing where it has none.
        process: Its `process`.
        input_class: The dataclass that `process` takes; None in the other style.
        fallback: Inputs that neither the schema nor the code has a default for: they are None.
    """

    start: Callable[[], object]
    process: Callable[..., object]
    input_class: type | None
    fallback: tuple[str, ...]

    def call(self, values: Mapping[str, object]) -> dict[str, object]:
        """Call `process` with these inputs; the code's own defaults fill what is absent.

        Raises:
            ContractBroken: it answers neither a dict nor a dataclass.
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


def load_entry(directory: Path, description: Description) -> ProcessClass:
    """Import `algorithm.process` and make its `Process`; the caller makes it importable.

    Raises:
        AlgorithmFailed: the code raises.
        InvalidContract: there is no `Process.process`, or it does not take the declared inputs.
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
    takes = _dataclass_fields(input_class) if input_class else _parameters(process)
    names = [port.name for port in description.inputs]
    if takes is not None:
        _refuse_mismatch(takes, names, where, input_class.__name__ if input_class else "process()")
    fallback = tuple(name for name in names if not (takes or {}).get(name, False))
    return ProcessClass(start if callable(start) else _nothing, process, input_class, fallback)


def _nothing() -> None:
    """Stand in for the `on_start` of a project without one."""


def _input_class(process: Callable[..., object]) -> type | None:
    """The dataclass that the one parameter of `process` is annotated with."""
    parameters = list(inspect.signature(process).parameters.values())
    if len(parameters) != 1:
        return None
    try:
        hint = get_type_hints(process).get(parameters[0].name)
    except (NameError, TypeError):  # an unrelated hint that this Python cannot resolve
        hint = parameters[0].annotation
    return hint if isinstance(hint, type) and dataclasses.is_dataclass(hint) else None


def _dataclass_fields(kind: type) -> dict[str, bool]:
    """Names of the fields, and whether each has a default."""
    missing = dataclasses.MISSING
    return {
        field.name: field.default is not missing or field.default_factory is not missing
        for field in dataclasses.fields(kind)
        if field.init
    }


def _parameters(process: Callable[..., object]) -> dict[str, bool] | None:
    """Names of the parameters, and whether each has a default; None where any name will do."""
    parameters = inspect.signature(process).parameters.values()
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters):
        return None
    return {each.name: each.default is not inspect.Parameter.empty for each in parameters}


def _refuse_mismatch(takes: Mapping[str, bool], names: list[str], where: str, taker: str) -> None:
    extra = [name for name in names if name not in takes]
    lacking = [name for name, has_default in takes.items() if not has_default and name not in names]
    if extra:
        raise InvalidContract(
            f"{where}: input_schema.json declares {extra}, which {taker} does not take"
        )
    if lacking:
        raise InvalidContract(
            f"{where}: {taker} needs {lacking}, which input_schema.json does not declare"
        )

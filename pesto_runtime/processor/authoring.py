"""Implement `@process`, which derives the contract of a process from a typed function.

The function itself is not changed or wrapped; its contract is its attribute `__pesto__`.
"""

from __future__ import annotations

import inspect
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, Unpack, get_args, overload

from pydantic import ValidationError

from pesto_runtime.contract import IMAGE_KINDS, Description, bad_fields
from pesto_runtime.errors import InvalidContract
from pesto_runtime.processor.annotations import ProcessOptions
from pesto_runtime.processor.blending import Blend, require_blendable
from pesto_runtime.processor.description_builder import describe
from pesto_runtime.processor.ports import (
    NAME,
    PortSpec,
    Returns,
    Signature,
    partial_keys,
    read_returns,
    read_signature,
)
from pesto_runtime.processor.values import FOLDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pesto_runtime.contract import Fold, Tileable

F = TypeVar("F", bound="Callable[..., object]")
_ATTRIBUTE = "__pesto__"
_collected: ContextVar[dict[str, InvalidContract] | None] = ContextVar("collected", default=None)


@dataclass(frozen=True, eq=False)
class FunctionContract:
    """A decorated function with its contract.

    Attributes:
        function: The author's function.
        description: Its contract.
        inputs: Its parameters, without the one for the tile.
        returns: The outputs of the function, or of `finish` for a reduce.
        tile: Name of the parameter that receives the `TileInfo`.
        finish: Converts a merged partial to the outputs; only for a reduce.
        setup: Called once before the first call.
        blend: The overlapping windows that the function receives; None for whole tiles.
    """

    function: Callable[..., object]
    description: Description
    inputs: tuple[PortSpec, ...]
    returns: Returns
    tile: str | None
    finish: Callable[..., object] | None
    setup: Callable[[], object] | None
    blend: Blend | None


@overload
def process(function: F, /) -> F: ...


@overload
def process(**options: Unpack[ProcessOptions]) -> Callable[[F], F]: ...


def process(
    function: F | None = None, /, **options: Unpack[ProcessOptions]
) -> F | Callable[[F], F]:
    """Make a function a process: `@process`, or `@process(version="1.0.0", margin=2)`.

    Raises:
        InvalidContract: the function or its options contradict each other; with the solution.
    """
    if function is not None:
        return _decorated(function, options)
    return lambda function: _decorated(function, options)


@contextmanager
def collected_errors() -> Iterator[dict[str, InvalidContract]]:
    """Collect the errors of functions that are decorated in the block, by name.

    Without the block, `@process` raises. A file that is loaded as a target may have other processes
    than the wrong one.
    """
    errors: dict[str, InvalidContract] = {}
    token = _collected.set(errors)
    try:
        yield errors
    finally:
        _collected.reset(token)


def contract_of(function: object) -> FunctionContract | None:
    """Return the contract of a decorated function; None for any other object."""
    contract = getattr(function, _ATTRIBUTE, None)
    return contract if isinstance(contract, FunctionContract) else None


def _decorated(function: F, options: ProcessOptions) -> F:
    try:
        vars(function)[_ATTRIBUTE] = _contract(function, options)
    except InvalidContract as error:
        collected = _collected.get()
        if collected is None:
            raise
        collected[getattr(function, "__name__", "")] = error
    return function


def _contract(function: Callable[..., object], options: ProcessOptions) -> FunctionContract:
    _require_plain(function)
    title = f"{function.__name__}()"
    _require_valid_options(options, title)
    signature = read_signature(function)
    inputs = _with_geometry(signature, options, title)
    finish = options.get("finish")
    returns = read_returns(finish or function)
    folds = options.get("reduce")
    if folds is not None and finish is not None:
        _require_valid_reduce(function, finish, folds, title)
    tileable, blend = _tileable(inputs, options, title), options.get("blend")
    try:
        document = describe(function, options, inputs, returns.ports, tileable)
        description = Description.parse(document)
        if blend is not None:
            require_blendable(description, blend)
    except InvalidContract as error:
        raise InvalidContract(f"{title}: {error.detail}", fields=error.fields) from error
    return FunctionContract(
        function=function,
        description=description,
        inputs=inputs,
        returns=returns,
        tile=signature.tile,
        finish=finish,
        setup=options.get("setup"),
        blend=blend,
    )


def _require_plain(function: Callable[..., object]) -> None:
    if not inspect.isfunction(function):
        raise InvalidContract(
            f"@process is for functions, not an object of {type(function).__name__}: write a "
            "function that calls it; setup= prepares what it needs"
        )
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        kind = "a generator" if inspect.isgeneratorfunction(function) else "an async function"
        raise InvalidContract(
            f"{function.__name__}() is {kind}, and @process is for plain functions: write `def` "
            "and return the outputs; workers call it side by side"
        )


def _require_valid_options(options: ProcessOptions, title: str) -> None:
    unknown = sorted(set(options) - set(ProcessOptions.__annotations__))
    if unknown:
        known = ", ".join(sorted(ProcessOptions.__annotations__))
        raise InvalidContract(f"{title}: @process has no option {unknown[0]!r}; it has {known}")
    name = options.get("name")
    if name is not None and not NAME.fullmatch(name):
        raise InvalidContract(f"{title}: name {name!r} must be letters, digits and . _ -")
    if ("reduce" in options) != ("finish" in options):
        lacking = "finish" if "reduce" in options else "reduce"
        raise InvalidContract(
            f"{title}: a reduce requires reduce and finish, and {lacking!r} is missing; write "
            '@process(reduce={"total": "sum"}, finish=f) with f(partial) -> the outputs'
        )
    if "max_batch_size" in options and not options.get("batched"):
        raise InvalidContract(f"{title}: max_batch_size is for a process with batched=True")
    for option in ("finish", "setup"):
        if option in options and not callable(options[option]):
            raise InvalidContract(f"{title}: {option} must be a function")
    if "blend" in options and not isinstance(options["blend"], Blend):
        raise InvalidContract(f"{title}: blend must be Blend(size=..., overlap=...)")


def _with_geometry(
    signature: Signature, options: ProcessOptions, title: str
) -> tuple[PortSpec, ...]:
    geometry: dict[str, object] = {
        name: value for name, value in options.items() if name in ("margin", "align", "fill")
    }
    blend = options.get("blend")
    if blend is not None:
        images = [port for port in signature.inputs if port.kind in IMAGE_KINDS]
        declared = set(geometry).union(*(port.declared or {} for port in images))
        if own := sorted(declared & {*blend.geometry, "tile"}):
            raise InvalidContract(f"{title}: blend determines {', '.join(own)}: remove it there")
        geometry = blend.geometry
    if geometry and not any(port.kind in IMAGE_KINDS for port in signature.inputs):
        raise InvalidContract(
            f"{title}: {' and '.join(geometry)} without an image input; annotate one np.ndarray "
            "or remove it"
        )
    ports = tuple(
        port.declaring(geometry) if port.kind in IMAGE_KINDS and not port.is_mask else port
        for port in signature.inputs
    )
    for port in ports:
        try:
            port.raster  # noqa: B018  # validates margin, alignment and fill
        except ValidationError as error:
            faults = list(bad_fields(error))
            raise InvalidContract.of(f"{title}, parameter {port.name!r}", faults) from error
    return ports


def _require_valid_reduce(
    function: Callable[..., object], finish: Callable[..., object],
    folds: Mapping[str, Fold], title: str,
) -> None:  # fmt: skip
    wrong = {key: how for key, how in folds.items() if how not in FOLDS}
    if wrong or not folds:
        raise InvalidContract(f"{title}: reduce={dict(folds)!r} needs one of {FOLDS} for each key")
    keys = partial_keys(function)
    if keys is not None and set(keys) != set(folds):
        raise InvalidContract(
            f"{title}: it returns {sorted(keys)} but reduce folds {sorted(folds)}; "
            "name the same keys"
        )
    required = [
        each.name
        for each in inspect.signature(finish).parameters.values()
        if each.default is inspect.Parameter.empty
    ]
    if len(required) != 1:
        raise InvalidContract(
            f"{title}: finish {finish.__name__}({', '.join(required)}) must have one required "
            "parameter, the merged partial"
        )


def _tileable(inputs: tuple[PortSpec, ...], options: ProcessOptions, title: str) -> Tileable | None:
    """Return `reduce` for a reduce, `map` for a declared margin, else the option `tileable`."""
    images = [port for port in inputs if port.kind in IMAGE_KINDS]
    margin = any("margin" in (port.declared or {}) for port in images)
    if "blend" in options and options.get("tileable", "map") != "map":
        raise InvalidContract(f"{title}: blend is for a map")
    declared = options.get("tileable")
    if declared is None:
        return "reduce" if "reduce" in options else "map" if margin else None
    kinds = get_args(Literal["map", "reduce", "whole"])
    if declared not in kinds:
        raise InvalidContract(f"{title}: tileable={declared!r} is not one of {kinds}")
    if (declared == "reduce") != ("reduce" in options):
        raise InvalidContract(f"{title}: tileable={declared!r} contradicts its reduce and finish")
    if declared == "whole" and margin:
        raise InvalidContract(
            f"{title}: a margin means that it works on tiles, and tileable='whole' that it does "
            "not; remove one"
        )
    return declared

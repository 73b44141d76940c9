"""Bind lists of images: a stage's `dates` becomes `dates.0`, `dates.1`, … before it is checked.

A list is `$inputs.NAME` of an input of type `images`, or a list of references, in which such an
input stands for all its images.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.contract import parse_binding
from pesto_runtime.contract.image_lists import count_faults, counts_of, item_of, with_items
from pesto_runtime.errors import BadField, InvalidPipeline, json_pointer, shortened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Set

    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Pipeline, Port, Reference, Stage


@dataclass(frozen=True)
class SpreadPipeline:
    """A pipeline with single images in place of lists.

    Attributes:
        pipeline: The pipeline; its lists are inputs and bindings for each image.
        descriptions: Stage id -> the description of its process, with a port for each image.
        faults: Bindings of lists that are wrong.
    """

    pipeline: Pipeline
    descriptions: Mapping[str, Description]
    faults: tuple[BadField, ...]


def descriptions_of(
    spread: SpreadPipeline, descriptions: Mapping[str, Description]
) -> dict[str, Description]:
    """Return stage id -> description, with a port for each image of a list; known ones only."""
    named = {stage.id: descriptions.get(stage.process) for stage in spread.pipeline.stages}
    return {**{name: each for name, each in named.items() if each}, **spread.descriptions}


def references_in(value: JsonValue) -> Iterator[Reference]:
    """Yield the references of a binding: itself, or those of a list of images.

    Raises:
        InvalidPipeline: a text begins with a single `$`, and is no reference.
    """
    for each in value if isinstance(value, list) else [value]:
        reference = parse_binding(each)
        if reference is not None:
            yield reference


def spread_pipeline(
    pipeline: Pipeline, descriptions: Mapping[str, Description], counts: Mapping[str, int]
) -> SpreadPipeline:
    """Return a pipeline with single images in place of lists.

    Args:
        pipeline: The pipeline; its inputs have types.
        descriptions: Process name -> description.
        counts: Input of type `images` -> number of its images, if it is known. Phases and types do
            not depend on it.
    """
    named = counts_of(set(_named_items(pipeline)))
    lists = {name: counts.get(name, named.get(name, 1))
             for name, kind in pipeline.inputs.items() if kind == "images"}  # fmt: skip
    inputs = {
        each: "image" if name in lists else kind
        for name, kind in pipeline.inputs.items()
        for each in (_items(name, lists) if name in lists else [name])
    }
    stages: list[Stage] = []
    spread: dict[str, Description] = {}
    faults: list[BadField] = []
    for number, stage in enumerate(pipeline.stages):
        description = descriptions.get(stage.process)
        if description is not None and (lists or description.lists):
            found = _SpreadStage(stage, description, lists, lists.keys() - counts)
            faults += found.faults(json_pointer("stages", number, "inputs"))
            bound = found.bound
            spread[stage.id] = with_items(description, {n: len(v) for n, v in bound.items()})
            stage = found.spread()  # noqa: PLW2901  # the same stage, in another form
        stages.append(stage)
    changed = pipeline.model_copy(update={"inputs": inputs, "stages": tuple(stages)})
    return SpreadPipeline(changed, spread, tuple(faults))


def _named_items(pipeline: Pipeline) -> Iterator[str]:
    """Yield the images of lists that bindings name one by one, and all before them."""
    for stage in pipeline.stages:
        for value in stage.inputs.values():
            with suppress(InvalidPipeline):  # reported where the stage is bound
                for name in (each.port for each in references_in(value) if each.is_input):
                    owner, _, index = name.rpartition(".")
                    yield from (item_of(owner, n) for n in range(int(index) + 1 if owner else 0))


@dataclass(frozen=True)
class _SpreadStage:
    stage: Stage
    description: Description
    lists: Mapping[str, int]
    uncounted: Set[str]

    @property
    def bound(self) -> dict[str, list[JsonValue]]:
        """The ports of lists that are bound -> the binding of each image."""
        ports = {port.name for port in self.description.lists}
        return {name: list(self._images(value))
                for name, value in self.stage.inputs.items() if name in ports}  # fmt: skip

    def spread(self) -> Stage:
        bound = self.bound
        inputs: dict[str, JsonValue] = {}
        for name, value in self.stage.inputs.items():
            if name in bound:
                inputs |= {item_of(name, n): each for n, each in enumerate(bound[name])}
            else:
                inputs[name] = value
        return self.stage.model_copy(update={"inputs": inputs})

    def faults(self, where: str) -> Iterator[BadField]:
        ports = {port.name: port for port in self.description.inputs}
        for name, value in self.stage.inputs.items():
            port, pointer = ports.get(name), where + json_pointer(name)
            source = self._list_in(value)
            if port is not None and port.kind == "images":
                yield from self._list_faults(port, value, pointer)
            elif port is not None and source:
                wanted = "one image" if port.kind == "image" else "a JSON value"
                detail = f"{value} is a list of images, but the port takes {wanted}"
                yield BadField(pointer, f"{detail}: {value}.0 is its first image", str(value))

    def _list_faults(self, port: Port, value: JsonValue, pointer: str) -> Iterator[BadField]:
        if not isinstance(value, list) and not self._list_in(value):
            detail = (
                "the port takes a list of images: bind an input of type `images`, or a list, "
                f"as [{shortened(value)}]"
            )
            yield BadField(pointer, detail, shortened(value))
            return
        given = [self._list_in(each) for each in (value if isinstance(value, list) else [value])]
        if not self.uncounted & {*given}:
            yield from count_faults(port.schema, len([*self._images(value)]), pointer, least=1)

    def _images(self, value: JsonValue) -> Iterator[JsonValue]:
        for each in value if isinstance(value, list) else [value]:
            source = self._list_in(each)
            if source:
                yield from (f"$inputs.{name}" for name in _items(source, self.lists))
            else:
                yield each

    def _list_in(self, value: JsonValue) -> str:
        """Return the input of type `images` that a binding names; empty for any other binding."""
        try:
            reference = parse_binding(value)
        except InvalidPipeline:  # reported where the stage is bound
            return ""
        is_list = reference is not None and reference.is_input and reference.port in self.lists
        return reference.port if reference is not None and is_list else ""


def _items(name: str, lists: Mapping[str, int]) -> list[str]:
    return [item_of(name, index) for index in range(lists[name])]

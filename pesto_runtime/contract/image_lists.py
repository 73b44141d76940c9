"""Treat a list of images as so many single images: input `dates` as `dates.0`, `dates.1`.

A run, a mask or a margin then has one rule for single images and for those of lists.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

from pesto_runtime.errors import BadField

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract.description import Description
    from pesto_runtime.contract.process_ports import Port

T = TypeVar("T")
_ITEM = re.compile(r"(?P<name>.+)\.(?P<index>0|[1-9]\d*)")


def item_of(name: str, index: int) -> str:
    """Return the name of one image of a list, counted from 0.

    >>> item_of("dates", 3)
    'dates.3'
    """
    return f"{name}.{index}"


def list_of(name: str) -> str:
    """Return the list of an image; of a single image, its own name.

    >>> list_of("dates.3"), list_of("scene")
    ('dates', 'scene')
    """
    match = _ITEM.fullmatch(name)
    return match["name"] if match else name


def counts_of(names: Iterable[str]) -> dict[str, int]:
    """Return list -> number of its images, from the names of images.

    >>> counts_of(["dates.0", "dates.1", "scene"])
    {'dates': 2}
    """
    counts: dict[str, int] = {}
    for name in names:
        if (owner := list_of(name)) != name:
            counts[owner] = counts.get(owner, 0) + 1
    return counts


def spread(description: Description, values: Mapping[str, object]) -> dict[str, object]:
    """Return inputs with each image of a list under its own name.

    Args:
        description: Of the process.
        values: Input -> value; a list of images is a list or a tuple. An empty one stays as it is.
    """
    lists = {port.name for port in description.lists}
    found: dict[str, object] = {}
    for name, value in values.items():
        if name in lists and value and isinstance(value, (list, tuple)):
            found |= {item_of(name, index): each for index, each in enumerate(value)}
        else:
            found[name] = value
    return found


def spread_call(
    description: Description, values: Mapping[str, object]
) -> tuple[Description, Mapping[str, object]]:
    """Return description and inputs of a call with single images in place of lists."""
    if not description.lists:
        return description, values
    sizes = {
        port.name: len(value)
        for port in description.lists
        if (value := values.get(port.name)) and isinstance(value, (list, tuple))
    }
    if not sizes:
        return description, values
    return with_items(description, sizes), spread(description, values)


def gathered(description: Description, values: Mapping[str, T]) -> Mapping[str, T | list[T]]:
    """Return inputs with the images of each list together, in their order; undoes `spread`."""
    lists = {port.name for port in description.lists}
    if not lists:
        return values
    found: dict[str, T | list[T]] = {}
    for name, value in values.items():
        owner = list_of(name)
        if owner == name or owner not in lists:
            found[name] = value
        elif owner not in found:
            items = [each for each in values if list_of(each) == owner]
            found[owner] = [values[item_of(owner, index)] for index in range(len(items))]
    return found


def with_items(description: Description, counts: Mapping[str, int]) -> Description:
    """Return a description with an image port for each image of its lists, as `dates.0`.

    Args:
        description: Of a process.
        counts: List -> number of its images; a list without one is left out. The masks of a list
            are as many as its images.
    """
    lists = {port.name for port in description.lists}
    if not lists:
        return description
    masks = {name: image for name, image in description.masks.items() if name in lists}
    known = {name: count for name, count in counts.items() if name in lists}
    known |= {name: known[image] for name, image in masks.items() if image in known}
    key = tuple(sorted(known.items()))
    if key not in description.spread_forms:
        description.spread_forms[key] = _with_items(description, known)
    return description.spread_forms[key]


def _with_items(description: Description, counts: Mapping[str, int]) -> Description:
    side = dict(description.known.input)
    properties: dict[str, JsonValue] = {}
    required: list[JsonValue] = []
    for port in description.inputs:
        names = [item_of(port.name, n) for n in range(counts.get(port.name, 0))]
        if port.kind != "images":
            names = [port.name]
        properties |= {name: _item(description, port, name) for name in names}
        required += names if port.required else ()
    side |= {"properties": properties, "required": required}
    return type(description).parse({**description.to_json(), "input": side})


def _item(description: Description, port: Port, name: str) -> JsonValue:
    if name == port.name:
        return dict(port.schema)
    body: dict[str, JsonValue] = {
        key: value for key, value in port.schema.items() if key in ("description", "x-raster")
    }
    raster = body.get("x-raster")
    if isinstance(raster, dict) and port.name in description.masks:
        image = item_of(description.masks[port.name], int(name.rpartition(".")[2]))
        body["x-raster"] = {**raster, "mask": image}
    return {"$ref": "#/definitions/Image", **body}


def count_faults(
    schema: Mapping[str, object], count: int, where: str, *, least: int = 0
) -> list[BadField]:
    """Return the faults of a number of images that a list does not take.

    Args:
        schema: That of the list, with `minItems` and `maxItems` if it has limits.
        count: Number of its images.
        where: JSON pointer to it.
        least: The smallest number that is possible, whatever the schema says.
    """
    declared, most = schema.get("minItems", 0), schema.get("maxItems")
    least = max(least, declared if isinstance(declared, int) else 0)
    if count < least:
        return [BadField(where, f"takes {least} images or more, not {count}", str(count))]
    if isinstance(most, int) and count > most:
        return [BadField(where, f"takes at most {most} images, not {count}", str(count))]
    return []

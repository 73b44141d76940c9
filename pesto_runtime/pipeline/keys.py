"""What the pixels of a value depend on, hashed: equal keys mean equal blocks, so none is redone.

A key holds the process's build, its contract, the product's format, its parameters and the keys of
what it reads. It holds neither the tile size nor the engine, which never change a pixel.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from pesto_runtime.contract import PRODUCT_FORMAT, Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Scene, Service
    from pesto_runtime.pipeline.types import BoundStage


def value_keys(
    stages: Iterable[BoundStage],
    services: Mapping[str, Service],
    *,
    scenes: Mapping[str, Scene],
    parameters: Mapping[str, JsonValue],
) -> dict[str, str]:
    """The key of every input, stage (by id) and output (by reference)."""
    keys: dict[str, str] = {}
    for name, scene in scenes.items():
        keys[str(Reference(owner="inputs", port=name))] = _hash(scene.href, scene.identity)
    for name, value in parameters.items():
        keys[str(Reference(owner="inputs", port=name))] = _hash(value)
    for stage in stages:
        bound = {**stage.rasters, **stage.values}
        inputs = {port: keys[str(reference)] for port, reference in bound.items()}
        keys[stage.id] = _hash(
            PRODUCT_FORMAT,
            services[stage.stage.process].build,
            stage.description.digest,
            inputs,
            dict(stage.literals),
        )
        for port in stage.makes:
            keys[stage.reference(port)] = _hash(keys[stage.id], port)
    return keys


def run_key(outputs: Mapping[str, str], keys: Mapping[str, str]) -> str:
    """The key of a whole run: of its outputs by name."""
    return _hash({name: keys[reference] for name, reference in outputs.items()})


def _hash(*parts: JsonValue | dict[str, str]) -> str:
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:32]

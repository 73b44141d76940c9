"""Build descriptions, pipelines, scenes and services for tests, in a line each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_runtime.contract import Description, Pipeline, Plan, Scene, Service
from pesto_runtime.pipeline import Checked, KnownFacts, Sizing, check, make_plan

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

Schema = dict[str, object]
IMAGE: Schema = {"$ref": "#/definitions/Image"}
NUMBER: Schema = {"type": "number"}


def image(**raster: object) -> Schema:
    """An image port with this raster contract."""
    return {**IMAGE, "x-raster": raster}


def process(  # a description has that many parts
    name: str,
    inputs: Mapping[str, Schema],
    outputs: Mapping[str, Schema],
    *,
    tileable: str | None = "map",
    optional: tuple[str, ...] = (),
    folds: Mapping[str, str] | None = None,
) -> Description:
    """A process; every input is required but the optional ones."""
    document: Schema = {
        "name": name,
        "version": "1.0.0",
        "input": {
            "definitions": {"Image": {"type": "string"}, "Options": {"type": "object"}},
            "properties": dict(inputs),
            "required": [port for port in inputs if port not in optional],
        },
        "output": {"properties": dict(outputs)},
    }
    how: Schema = {} if tileable is None else {"tileable": tileable}
    return Description.parse(document | how | ({"x-reduce": dict(folds)} if folds else {}))


def pipeline(
    stages: Mapping[str, tuple[str, Mapping[str, object]]],
    outputs: Mapping[str, str],
    *,
    inputs: Mapping[str, str] | None = None,
    pins: Mapping[str, str] | None = None,
) -> Pipeline:
    """A pipeline of stages id -> (process, bindings); one image input `scene` if not told."""
    return Pipeline.parse(
        {
            "name": "made",
            "inputs": dict(inputs if inputs is not None else {"scene": "image"}),
            "stages": [
                {"id": stage, "process": name, "inputs": dict(bound)}
                for stage, (name, bound) in stages.items()
            ],
            "outputs": dict(outputs),
            "pins": dict(pins or {}),
        }
    )


def scene(width: int = 1000, height: int = 800, **facts: object) -> Scene:
    """A scene of two bands of uint16 near 0 E, 50 N."""
    known: dict[str, object] = {
        "href": "file:///data/scene.tif",
        "identity": "1:1",
        "width": width,
        "height": height,
        "bands": ("red", "nir"),
        "dtype": "uint16",
        "crs": "EPSG:32631",
        "transform": (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_500_000.0),
    }
    return Scene.model_validate(known | facts)


SMOOTH = process(
    "smooth",
    {"x": image(dtype="uint16", margin=2)},
    {"y": image(dtype="uint16")},
)
SHARPEN = process("sharpen", {"x": image(margin={"top": 1})}, {"y": image()})
STRETCH = process(
    "stretch",
    {"x": image(), "gain": NUMBER, "options": {"$ref": "#/definitions/Options"}},
    {"y": image(dtype="float32")},
    optional=("options",),
)
MASK = process(
    "mask",
    {"x": image(bands=["red", "nir"], dtype="uint16"), "limit": {**NUMBER, "maximum": 1}},
    {"mask": image(bands=["mask"], dtype="uint8", nodata=255), "seen": {"type": "integer"}},
    optional=("limit",),
)
COVER = process(
    "cover",
    {"mask": image(dtype="uint8")},
    {"fraction": NUMBER},
    tileable="reduce",
    folds={"cloudy": "sum"},
)
SEGMENT = process(
    "segment", {"x": image()}, {"labels": image(dtype="int32"), "count": NUMBER}, tileable="whole"
)
WORD: Schema = {"type": "string", "enum": ["good", "bad"]}
VERDICT = process("verdict", {"fraction": NUMBER}, {"word": WORD}, tileable=None)
JOIN = process("join", {"a": image(margin=1), "b": image()}, {"y": image()})
DOUBLE = process("double", {"x": image()}, {"y": image(scale=2)})
HALVE = process("halve", {"x": image()}, {"y": image(scale="1/2")})
KNOWN = {
    each.name: each
    for each in (
        SMOOTH, SHARPEN, STRETCH, MASK, COVER, SEGMENT, VERDICT, JOIN, DOUBLE, HALVE
    )
}  # fmt: skip


def checked(made: Pipeline, **facts: object) -> Checked:
    """Check a pipeline against the known processes."""
    return check(made, KnownFacts(**({"descriptions": KNOWN} | facts)))  # type: ignore[arg-type]  # facts by name


def told(found: Checked) -> list[tuple[str, str]]:
    """Pointer and detail of every error."""
    return [(each.pointer, each.detail) for each in found.errors]


def the_error(found: Checked) -> tuple[str, str]:
    """Pointer and detail of the one error there is."""
    assert len(found.errors) == 1, found.errors
    return told(found)[0]


def known(**more: Description) -> dict[str, Description]:
    """The known processes, and these."""
    return KNOWN | more


def planned(
    made: Pipeline,
    scenes: Mapping[str, Scene] | None = None,
    *,
    sizing: Sizing | None = None,
    parameters: Mapping[str, JsonValue] | None = None,
    services: Mapping[str, Service] | None = None,
) -> Plan:
    """Plan a pipeline over scenes; every service is local, and its build `sha256:NAME`."""
    there = {"scene": scene()} if scenes is None else scenes
    given = dict(parameters or {})
    known = services if services is not None else services_of()
    descriptions = {name: Description.parse(each.description) for name, each in known.items()}
    found = check(made, KnownFacts(descriptions, scenes=there, parameters=given))
    return make_plan(
        made,
        found,
        known,
        scenes=there,
        parameters=given,
        store="file:///data/run/.pesto",
        run_id="run",
        sizing=sizing or Sizing(),
    )


def services_of(**changed: Service) -> dict[str, Service]:
    """A local service for each known process, some of them replaced."""
    made = {
        name: Service(targets=(f"m:{name}",), description=each.to_json(), build=f"sha256:{name}")
        for name, each in KNOWN.items()
    }
    return made | changed

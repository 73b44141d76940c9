"""Golden products: their files, their blocks under their keys, and what is decoded from them."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import rasterio

from pesto_runtime.hrefs import file_href
from pesto_runtime.store import Store
from tests.support.outside.command import PROCESSES, fixed_scenes, pesto
from tests.support.outside.inside import PRODUCT_FORMAT
from tests.support.packs import packed_blocks
from tests.support.rasters import sha256_of, tree

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

DTYPES = (
    "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64",
    "float32", "float64", "complex64", "complex128",
)  # fmt: skip
_PARTIAL = 3
_VALUES = ("mean.json",)
_UNFINISHED = "unfinished/"
"""Zip files: their headers depend on the patch version of Python. Only a later attempt reads them.
"""
_VAGUE = ("report.html", "result.json", "holes.geojson", "lock")
COUNT_UP = (
    "the bytes of products changed: count PRODUCT_FORMAT up, as it is part of every block key, or "
    "stores that hold old blocks give files of both"
)


def products() -> dict[str, JsonValue]:
    """Run the frozen processes over the frozen scenes, and write down everything that they leave.

    Returns:
        `format`, `written_by` (versions that decide compressed bytes), and per run its `files` and
        `objects` (name -> sha256) and what is decoded from its `rasters`.
    """
    hole = pipeline("hole", {"fragile": "image"})
    return {
        "format": PRODUCT_FORMAT,
        "written_by": {"rasterio": rasterio.__version__, "gdal": rasterio.__gdal_version__},
        "runs": {
            "dtypes": _run(_dtypes(), "small"),
            "kinds": _run(kinds(), "large"),
            "kinds as COG": _run(kinds(), "large", "--as", "cog"),
            "hole": _run(hole, "small", tile=32, code=_PARTIAL),
        },
    }


def _dtypes() -> dict[str, JsonValue]:
    names = [f"{kind}_{dtype}" for dtype in DTYPES for kind in ("plain", "void")]
    return pipeline("dtypes", dict.fromkeys(names, "image"))


def kinds() -> dict[str, JsonValue]:
    """A raster of three bands, vectors, a reduce, and a whole stage in a second phase."""
    outputs = {"colours": "image", "marks": "marks", "mean": "mean", "ranked": "image"}
    return pipeline("kinds", outputs, ranked={"mean": "$mean.mean"})


def pipeline(name: str, outputs: Mapping[str, str], **bound: JsonValue) -> dict[str, JsonValue]:
    """A pipeline whose stages all read the scene: stage, process and output of one name.

    Args:
        name: Of the pipeline.
        outputs: Stage -> the port of its process that is an output.
        bound: Stage -> inputs beside the scene.
    """
    stages: list[JsonValue] = []
    for each in outputs:
        more = bound.get(each)
        inputs = {"image": "$inputs.scene", **(more if isinstance(more, dict) else {})}
        stages.append({"id": each, "process": each.replace("_", "-"), "inputs": inputs})
    return {
        "name": name,
        "inputs": {"scene": "image"},
        "services": {each.replace("_", "-"): f"{PROCESSES}:{each}" for each in outputs},
        "stages": stages,
        "outputs": {each: f"${each}.{port}" for each, port in outputs.items()},
    }


def _run(
    document: Mapping[str, JsonValue], scene: str, *options: str, tile: int = 200, code: int = 0
) -> dict[str, JsonValue]:
    with TemporaryDirectory() as name, fixed_scenes(Path(name)) as scenes:
        Path("pipeline.json").write_text(json.dumps(document))
        out, given = Path("out").resolve(), f"scene={scenes[scene]}"
        sizing = ("--workers", 2, "--tile", tile, "--max-tasks", 4, "--keep")
        pesto("run", "pipeline.json", "-i", given, "-o", out, *sizing, *options, code=code)
        return _left_by(out)


def _left_by(out: Path) -> dict[str, JsonValue]:
    files = {name: out / name for name in sorted(tree(out)) if not name.startswith(".pesto/")}
    store = out / ".pesto"
    objects = {_undated(n): _stored(store / n, n) for n in tree(store) if not n.endswith(".pack1")}
    for kind in ("blocks", "features"):
        for block in packed_blocks(store, kind):
            objects[block.name] = hashlib.sha256(block.data).hexdigest()
    return {
        "files": {name: _frozen(path) for name, path in files.items()},
        "objects": dict(sorted(objects.items())),
        "rasters": {name: _decoded(path) for name, path in files.items() if path.suffix == ".tif"},
        "vectors": {
            name: _found(path) for name, path in files.items() if path.suffix == ".geojson"
        },
        "values": {
            name: json.loads(path.read_text()) for name, path in files.items() if name in _VALUES
        },
    }


def _frozen(path: Path) -> str | None:
    """The sha256 of a file; None for one that holds times, paths or messages."""
    is_vague = path.name in _VAGUE or {"manifests", "plans"} & {*path.parts[-3:]}
    return None if is_vague else sha256_of(path)


def _stored(path: Path, name: str) -> str | None:
    """The same of an object of the store, by what its reader gets; GDAL reads rasters itself.

    Samples are numpy's files, whose bytes other versions of numpy may write in another way.
    """
    if name.startswith("samples/"):
        return None
    if _frozen(path) is None or path.suffix == ".tif":
        return _frozen(path)
    base = str(path).removesuffix(f"/{name}")
    return hashlib.sha256(Store(file_href(base)).get(name)).hexdigest()


def _undated(name: str) -> str:
    """A plan's name without its digest: a plan holds the paths of this machine."""
    return name.rpartition("-")[0] if name.startswith("plans/") else name


def _decoded(path: Path) -> dict[str, JsonValue]:
    """What any reader sees of a raster, whoever compressed it."""
    with rasterio.open(path) as file:
        return {
            "pixels": hashlib.sha256(file.read().tobytes()).hexdigest(),
            "dtypes": list(file.dtypes),
            "size": [file.width, file.height],
            "blocks": [list(each) for each in file.block_shapes],
            "overviews": file.overviews(1),
            "nodata": repr(file.nodata),
            "crs": str(file.crs),
            "transform": list(file.transform)[:6],
            "bands": list(file.descriptions),
            "tags": file.tags(),
            "profile": {key: str(file.profile.get(key)) for key in ("compress", "interleave")},
        }


def _found(path: Path) -> dict[str, JsonValue]:
    """How many features of each geometry a vector has, and the first of them without values."""
    features = json.loads(path.read_text())["features"]
    return {
        "counts": dict(Counter(each["geometry"]["type"] for each in features)),
        "first": {**features[0], "properties": sorted(features[0]["properties"])},
    }


def decoded_alone(document: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Leave out the sums of what GDAL compressed, and the versions: names and pixels stay."""
    kept = json.loads(json.dumps(document))
    for run in kept["runs"].values():
        for part in ("files", "objects"):
            run[part] |= dict.fromkeys(filter(_is_compressed, run[part]))
    return {key: value for key, value in kept.items() if key != "written_by"}


def by_any_python(document: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Leave out the sums of unfinished blocks; their names stay."""
    kept: dict[str, JsonValue] = json.loads(json.dumps(document))
    runs: dict[str, dict[str, dict[str, str | None]]] = kept["runs"]  # type: ignore[assignment]  # as `products` makes them
    for run in runs.values():
        found = run["objects"]
        found |= dict.fromkeys(name for name in found if name.startswith(_UNFINISHED))
    return kept


def are_unannounced(was: dict[str, JsonValue], now: dict[str, JsonValue]) -> bool:
    """Whether bytes changed under the same `PRODUCT_FORMAT`, and by the same GDAL."""
    if any(was[key] != now[key] for key in ("format", "written_by")):
        return False
    before, after = _sums(by_any_python(was)), _sums(by_any_python(now))
    return any(before[name] != after[name] for name in before.keys() & after.keys())


def _is_compressed(name: str) -> bool:
    return name.endswith(".tif") or name.startswith(("blocks/", _UNFINISHED))


def _sums(document: dict[str, JsonValue]) -> dict[tuple[str, str], str | None]:
    """The sha256 of every file and object: (run, name) -> sum."""
    runs: dict[str, dict[str, dict[str, str | None]]] = document["runs"]  # type: ignore[assignment]  # as `products` makes them
    return {
        (run, name): total
        for run, parts in runs.items()
        for part in ("files", "objects")
        for name, total in parts[part].items()
    }

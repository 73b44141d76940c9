"""Images and values of one map: folded over tiles, the same for any chunks, holes and restarts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from pesto_runtime.contract import Description
from pesto_runtime.errors import InvalidContract, InvalidInput
from pesto_runtime.processor import load_processor
from tests.support import resolutions, runs
from tests.support.commands import pesto, served
from tests.support.rasters import noise, write_scene
from tests.support.resolutions import smooth

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.runs import Done

SIZE = (1150, 700)  # 3 x 2 tiles


def pipeline(*, smoothed_after: bool = False) -> dict[str, Any]:
    stages: list[dict[str, Any]] = [
        {"id": "c", "process": "counted", "inputs": {"image": "$inputs.scene"}},
        # Its input is a value of the whole scene: it starts when the first phase is closed.
        {"id": "b", "process": "bright", "inputs": {"image": "$inputs.scene",
                                                   "above": "$c.brightest"}},
    ]  # fmt: skip
    outputs = {"image": "$c.image", "bright": "$b.pixels"}
    outputs |= {name: f"$c.{name}" for name in ("pixels", "total", "brightest", "corners")}
    if smoothed_after:  # its margin makes tiles of `c` larger than those of the phase
        stages.insert(1, {"id": "s", "process": "smoothed", "inputs": {"image": "$c.image"}})
        outputs["image"] = "$s.image"
    return {
        "name": "folded",
        "inputs": {"scene": "image"},
        "services": {
            name: f"{resolutions.__file__}:{name}" for name in ("counted", "bright", "smoothed")
        },
        "stages": stages,
        "outputs": outputs,
    }


def run_local(
    document: dict[str, Any], folder: Path, given: dict[str, str], **settings: Any
) -> Done:
    return runs.run_local(document, folder, given, **{"tile": None, **settings})


def scene(folder: Path) -> tuple[dict[str, str], np.ndarray]:
    pixels = noise(*SIZE, dtype="uint8", seed=4)
    return {"scene": str(write_scene(folder / "scene.tif", pixels))}, pixels


def values(done: Done) -> dict[str, Any]:
    outputs = json.loads((done.folder / "result.json").read_text())["outputs"]
    return {name: each["value"] for name, each in outputs.items() if "value" in each}


@pytest.mark.parametrize("after", [False, True], ids=["alone", "before a margin"])
def test_values_of_tiles_become_those_of_the_scene(tmp_path: Path, *, after: bool) -> None:
    """No pixel counts twice, though windows overlap; values feed a stage of the next phase."""
    given, pixels = scene(tmp_path)
    found = values(run_local(pipeline(smoothed_after=after), tmp_path / "out", given))
    made = smooth(pixels, 1).astype("float32")
    assert found["pixels"] == SIZE[0] * SIZE[1]
    assert found["brightest"] == made.max()
    assert found["bright"] == int((pixels > made.max()).sum()) > 0
    assert found["corners"] == [[row, col] for row in (0, 512) for col in (0, 512, 1024)]
    assert found["total"] == pytest.approx(made.sum(dtype="float64"), rel=1e-12)


def test_values_do_not_depend_on_chunks(tmp_path: Path) -> None:
    """Sums of floating-point numbers, too: tiles are folded in the order of the scene."""
    given, _ = scene(tmp_path)
    found = [
        values(run_local(pipeline(), tmp_path / f"out{tasks}", given, max_tasks=tasks, workers=n))
        for tasks, n in ((1, 1), (6, 2), (3, 1))
    ]
    assert found[0] == found[1] == found[2]
    # The control: in another order, the sum has other last digits.
    parts = np.random.default_rng(1).random(1000)
    assert sum(parts) != sum(sorted(parts))


def test_a_service_counts_the_same(tmp_path: Path) -> None:
    """The tile's own pixels are a part of the request."""
    given, _ = scene(tmp_path)
    local = values(run_local(pipeline(), tmp_path / "local", given))
    with served(f"{resolutions.__file__}:counted", "--allow", str(tmp_path)) as url:
        remote = run_local(pipeline(), tmp_path / "remote", given, services=(f"counted={url}",))
    assert values(remote) == local


def test_a_hole_costs_the_values_and_not_the_image(tmp_path: Path) -> None:
    """A second run after the mend computes the failed tile alone, and has all values."""
    given, pixels = scene(tmp_path)
    source = tmp_path / "failing.py"
    text = (
        "from typing import Annotated, TypedDict\nimport os\nimport numpy as np\n"
        "from pesto_runtime import Named, Raster, TileInfo, process\n"
        "class Out(TypedDict):\n    image: Annotated[np.ndarray, Raster(nodata=255)]\n"
        "    pixels: Annotated[int, Named(fold='sum')]\n"
        "@process(version='1.0.0', margin=0)\n"
        "def failing(image: Annotated[np.ndarray, Raster()], tile: TileInfo) -> Out:\n"
        f"    if os.path.exists({str(tmp_path / 'broken')!r}) and tile.own.col_off == 512:\n"
        "        raise ValueError('broken')\n"
        "    rows, cols = tile.own_slices\n"
        "    return {'image': image, 'pixels': image[0, rows, cols].size}\n"
    )  # fmt: skip
    source.write_text(text)
    document = {
        "name": "failing", "inputs": {"scene": "image"},
        "services": {"failing": f"{source}:failing"},
        "stages": [{"id": "f", "process": "failing", "inputs": {"image": "$inputs.scene"}}],
        "outputs": {"image": "$f.image", "pixels": "$f.pixels"},
    }  # fmt: skip
    (tmp_path / "broken").touch()
    partial = run_local(document, tmp_path / "out", given)
    result = json.loads((partial.folder / "result.json").read_text())
    assert result["status"] == "PARTIAL"
    assert set(result["outputs"]) == {"image"}
    (tmp_path / "broken").unlink()
    done = run_local(document, tmp_path / "out", given)
    result = json.loads((done.folder / "result.json").read_text())
    assert result["status"] == "COMPLETE"
    assert result["tiles"]["computed"] == 2  # of six
    assert values(done) == {"pixels": SIZE[0] * SIZE[1]}
    np.testing.assert_array_equal(done.pixels(), pixels)


def test_a_size_of_tiles_is_refused(tmp_path: Path) -> None:
    """Values would depend on it; the size of a block is accepted."""
    given, _ = scene(tmp_path)
    with pytest.raises(InvalidInput, match=r"'c'.*tiles of 512 pixels.*leave the size out"):
        run_local(pipeline(), tmp_path / "out", given, tile=256)
    run_local(pipeline(), tmp_path / "out", given, tile=512)


def test_a_call_of_a_whole_image_counts_all_of_it() -> None:
    processor = load_processor(f"{resolutions.__file__}:counted")
    made = processor.run({"image": np.ones((1, 5, 7), "uint8")})
    assert made["pixels"] == 35


@pytest.mark.parametrize(
    ("name", "fold", "words"),
    [
        ("pixels", "mean", "is none of sum, min, max, concat"),
        ("image", "sum", "is for JSON values"),
    ],
)
def test_folds_without_a_meaning_are_refused(name: str, fold: str, words: str) -> None:
    document = load_processor(f"{resolutions.__file__}:counted").description.to_json()
    document["output"]["properties"][name]["x-fold"] = fold  # type: ignore[index,call-overload]  # JSON
    with pytest.raises(InvalidContract, match=words):
        Description.parse(document)


def test_a_cache_has_the_values_of_tiles(tmp_path: Path) -> None:
    """Another run of another folder computes no tile; without the cache, it computes all."""
    given, _ = scene(tmp_path)
    cache = str(tmp_path / "cache")
    first = run_local(pipeline(), tmp_path / "first", given, cache=cache)
    second = run_local(pipeline(), tmp_path / "second", given, cache=cache)
    alone = run_local(pipeline(), tmp_path / "alone", given)
    assert values(first) == values(second) == values(alone)
    assert second.tiles[0] == 0
    assert alone.tiles[0] == 12


def test_a_target_alone_has_its_values(tmp_path: Path) -> None:
    """`pesto run TARGET`: images and values are outputs of the run."""
    given, _ = scene(tmp_path)
    target = f"{resolutions.__file__}:counted"
    done = pesto("run", target, "-i", f"image={given['scene']}", "-o", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "pixels.json").read_text()) == SIZE[0] * SIZE[1]
    assert (tmp_path / "out" / "image.tif").exists()

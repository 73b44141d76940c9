"""STAC items as scenes: bands by name, scale and offset, files for bands, catalogs, searches."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pystac
import pytest
import rasterio
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.validation.stac_validator import JsonSchemaSTACValidator
from rasterio.warp import transform_bounds

from pesto_runtime.campaigns import read_scenes
from pesto_runtime.campaigns.scene_lists import listed_scenes
from pesto_runtime.contract import Pipeline
from pesto_runtime.contract.band_files import stacked_bands
from pesto_runtime.errors import InvalidInput, Unreachable
from pesto_runtime.raster.read import read_image
from pesto_runtime.run.stac_items import absolute_item, image_of_item, read_item
from tests.support.file_server import serving
from tests.support.rasters import sha256_of, write_scene
from tests.support.runs import pipeline, stage
from tests.support.stac_api import stac_api

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

    from tests.support.commands import Command

PIXELS = np.random.default_rng(7).integers(1, 9000, (3, 40, 50), "uint16")
COG = "image/tiff; application=geotiff; profile=cloud-optimized"
ONE = Pipeline.parse(pipeline(stage("s", "grow", image="$inputs.scene"), outputs={"o": "$s.image"}))


def item(name: str, assets: dict[str, Any], **keys: Any) -> dict[str, Any]:
    """An item of version 1.1."""
    return {
        "type": "Feature", "stac_version": "1.1.0", "id": name, "bbox": [1, 1, 2, 2],
        "geometry": {"type": "Point", "coordinates": [1, 1]}, "links": [], "assets": assets,
        "properties": {"datetime": "2026-05-01T10:00:00Z"}, "collection": "c", **keys,
    }  # fmt: skip


def sentinel(name: str = "s2") -> dict[str, Any]:
    """Bands in files of their own, beside a picture of three of them; version 1.1."""
    facts = {"raster:scale": 0.0001, "raster:offset": -0.1, "nodata": 0, "type": COG}
    bands = {"B04": ("red", "r.tif"), "B08": ("nir", "n.tif"), "B02": ("blue", "b.tif")}
    assets: dict[str, Any] = {
        key: {"href": f"./{file}", "roles": ["data"], **facts,
              "bands": [{"name": key, "eo:common_name": common}]}
        for key, (common, file) in bands.items()
    }  # fmt: skip
    assets["visual"] = {"href": "./tci.tif", "type": COG, "roles": ["visual"],
                        "bands": [{"name": "B04", "eo:common_name": "red"}]}  # fmt: skip
    assets["thumbnail"] = {"href": "./t.png", "type": "image/png", "roles": ["thumbnail"]}
    return item(name, assets)


def landsat() -> dict[str, Any]:
    """One file of all bands, as version 1.0 has it."""
    names = [{"name": "B1", "common_name": "red"}, {"name": "B2", "common_name": "nir"}]
    values = [{"scale": 2, "nodata": "nan"}, {"scale": 3, "offset": 1}]
    asset = {"href": "all.tif", "type": COG, "eo:bands": names, "raster:bands": values}
    return item("l8", {"data": asset}, stac_version="1.0.0")


def save(folder: Path, document: JsonValue, name: str = "item.json") -> Path:
    """Write a document."""
    path = folder / name
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("wanted", [("nir", "red"), ("B08", "B04")])
def test_bands_are_found_by_each_of_their_names(tmp_path: Path, wanted: tuple[str, str]) -> None:
    """Common names, names and keys; a picture for people is no data; facts of `raster`."""
    found = read_item(str(save(tmp_path, sentinel())))
    bands = stacked_bands(image_of_item(found, wanted, where="s2").href)
    assert [(each.name, each.href) for each in bands] == [
        (wanted[0], (tmp_path / "n.tif").as_uri()), (wanted[1], (tmp_path / "r.tif").as_uri()),
    ]  # fmt: skip
    assert {(each.scale, each.offset, each.nodata) for each in bands} == {(0.0001, -0.1, 0)}
    assert bands[0].item == (tmp_path / "item.json").as_uri()


def test_bands_of_one_file_and_of_version_1_0() -> None:
    """`eo:bands` beside `raster:bands`; without names, all bands in their order."""
    found = absolute_item(landsat(), "s3://lake/a/item.json")
    (nir,) = stacked_bands(image_of_item(found, ["nir"], where="l8").href)
    bands = stacked_bands(image_of_item(found, [], where="l8").href)
    for last in (nir, bands[-1]):
        assert (last.href, last.band) == ("s3://lake/a/all.tif", 2)
        assert (last.scale, last.offset, last.nodata) == (3, 1, None)
    assert [each.name for each in bands] == ["B1", "B2"]


def test_a_band_that_is_missing_or_there_twice_is_refused() -> None:
    """The error has what there is, and the way out."""
    with pytest.raises(InvalidInput, match=r"no band swir22; it has .*red"):
        image_of_item(absolute_item(sentinel()), ["red", "swir22"], where="s2")
    both = sentinel()
    both["assets"]["B04-jp2"] = {**both["assets"]["B04"], "href": "r.jp2", "type": "image/jp2"}
    with pytest.raises(InvalidInput, match=r"in the assets B04, B04-jp2: state the files"):
        image_of_item(absolute_item(both), ["red"], where="s2")
    assert image_of_item(absolute_item(both), ["B04"], where="s2")
    with pytest.raises(InvalidInput, match="does not name its bands"):
        image_of_item(absolute_item(sentinel()), [], where="s2")


def test_files_of_stac_are_lists_of_scenes(tmp_path: Path) -> None:
    """An item, a collection of features, a catalog of catalogs; ids are those of the items."""
    features: JsonValue = {"type": "FeatureCollection", "features": [sentinel("a:1"), landsat()]}
    scenes = read_scenes(listed_scenes(str(save(tmp_path, features, "items.json"))), ONE)
    assert [each.id for each in scenes] == ["a_1", "l8"]
    (scene,) = read_scenes(listed_scenes(str(save(tmp_path, sentinel()))), ONE)
    assert scene.id == "s2"

    root = pystac.Catalog("root", "all")
    child = pystac.Catalog("child", "some")
    root.add_child(child)
    child.add_items([pystac.Item.from_dict(sentinel(name)) for name in ("x", "y")])
    root.normalize_and_save(str(tmp_path / "catalog"), pystac.CatalogType.SELF_CONTAINED)
    listed = listed_scenes(str(tmp_path / "catalog" / "catalog.json"))
    assert [each.id for each in read_scenes(listed, ONE)] == ["x", "y"]
    bands = stacked_bands(image_of_item(listed[0], ["red"], where="x").href)  # type: ignore[arg-type]  # items
    assert bands[0].href == (tmp_path / "catalog" / "child" / "x" / "r.tif").as_uri()

    with pytest.raises(InvalidInput, match="its type is 'Other'"):
        listed_scenes(str(save(tmp_path, {"type": "Other"})))


def test_a_search_lists_the_items_of_all_pages() -> None:
    """Of a real server; parameters limit them; what is no API is refused."""
    items = [sentinel(f"i{n}") for n in range(5)]
    items[3] |= {"bbox": [50, 50, 51, 51]}
    items[4] |= {"collection": "other"}
    with stac_api(items) as url:
        found = listed_scenes(f"{url}/search?collections=c&bbox=0,0,10,10")
        assert [each["id"] for each in found if isinstance(each, dict)] == ["i0", "i1", "i2"]
        assert len(listed_scenes(f"{url}/search?max_items=4")) == 4
        for wrong, said in (("bbox=a", "is refused"), ("nothing=1", "a search has no nothing")):
            with pytest.raises(InvalidInput, match=said):
                listed_scenes(f"{url}/search?{wrong}")
    with pytest.raises(Unreachable):
        listed_scenes(f"{url}/search?collections=c")


def test_a_pipeline_runs_over_items(tmp_path: Path, pesto: Command) -> None:
    """Of a search, with files on a web server: a folder for each item; one item lacks a file.

    The pixels have the scale of the items. One item alone, with local files, is an image of a run.
    """
    for name, pixels in zip(("r.tif", "n.tif", "b.tif"), PIXELS, strict=True):
        write_scene(tmp_path / name, pixels[np.newaxis])
    (tmp_path / "p.py").write_text(
        "from typing import Annotated\nimport numpy as np\n"
        "from pesto_runtime import Raster, process\n"
        "@process(version='1.0.0', margin=0)\ndef ndvi(\n"
        "    scene: Annotated[np.ndarray, Raster(bands=['nir', 'red'], scaled=True)],\n"
        ") -> Annotated[np.ndarray, Raster(name='ndvi', bands=1, dtype='float32')]:\n"
        "    return (scene[:1] - scene[1:]).astype('float32')\n"
    )
    items = [sentinel(), sentinel("broken")]
    items[1]["assets"]["B08"]["href"] = "./gone.tif"
    target, out = f"{tmp_path / 'p.py'}:ndvi", tmp_path / "out"
    with serving(tmp_path, tmp_path / "log") as server, stac_api(items, page=1) as url:
        for asset in (asset for each in items for asset in each["assets"].values()):
            asset["href"] = asset["href"].replace(".", server.url, 1)
        words = ("--scenes", f"{url}/search?collections=c", "-o", out, "--json")
        done = pesto("run", target, *words)
    assert done.code == 3, done.err
    scenes = json.loads(done.out)["scenes"]
    assert "gone.tif" in scenes["broken"]["error"]
    assert len(scenes["s2"]["inputs"]["scene"]["identity"].split(" ")) == 2
    alone = pesto(
        "run", target, "-i", f"scene={save(tmp_path, sentinel())}", "-o", tmp_path / "one"
    )
    assert alone.code == 0, alone.err
    stated: JsonValue = {
        "name": "p", "inputs": {}, "services": {"ndvi": target}, "outputs": {"ndvi": "$s.ndvi"},
        "stages": [{"id": "s", "process": "ndvi", "inputs": {"scene": "item.json"}}],
    }  # fmt: skip
    assert pesto("run", save(tmp_path, stated, "p.json"), "-o", tmp_path / "stated").code == 0
    red, nir = (each.astype("float64") * 0.0001 - 0.1 for each in PIXELS[:2])
    for folder in (out / "s2", tmp_path / "one", tmp_path / "stated"):
        found = read_image(str(folder / "ndvi.tif")).pixels[0]
        np.testing.assert_allclose(found, (nir - red).astype("float32"), atol=1e-6)


CLASSES = """
from typing import Annotated
import numpy as np
from pesto_runtime import Raster, process

@process(version='1.2.0', margin=0)
def water(scene: Annotated[np.ndarray, Raster(bands=['nir'])]) -> Annotated[np.ndarray, Raster(
    name='mask', bands=['water'], dtype='uint8', nodata=255,
    classes=[{'value': 0, 'name': 'land'}, {'value': 1, 'name': 'water', 'color_hint': '0000FF'}],
)]:
    return (scene < 4000).astype('uint8')
"""


def required_valid(document: dict[str, Any]) -> pystac.Item:
    """An item that pystac's own schemas accept; they are in its package."""
    uri = JsonSchemaSTACValidator().validate_core(document, pystac.STACObjectType.ITEM, "1.1.0")
    assert uri is not None
    assert uri.endswith("item.json")
    return pystac.Item.from_dict(document, href="/x/item.json", preserve_dict=True)


def test_outputs_are_an_item_with_facts_and_provenance(tmp_path: Path, pesto: Command) -> None:
    """Read back by pystac: place, classes, checksum, time and source; what is wrong is refused."""
    (tmp_path / "p.py").write_text(CLASSES)
    write_scene(tmp_path / "n.tif", PIXELS[:1])
    out, source = tmp_path / "out", save(tmp_path, sentinel())
    words = ("-i", f"scene={source}", "--window", "2,3,30,20", "-o", out, "--stac")
    done = pesto("run", f"{tmp_path / 'p.py'}:water", *words)
    assert (done.code, "time of acquisition" in done.err) == (0, False), done.err
    document = json.loads((out / "item.json").read_text())
    found = required_valid(document)
    result = json.loads((out / "result.json").read_text())

    asset = found.assets["mask"]
    with rasterio.open(out / "mask.tif") as dataset:
        proj = ProjectionExtension.ext(asset)
        assert (proj.code, proj.shape) == (dataset.crs.to_string(), [*dataset.shape])
        assert proj.transform == [*dataset.transform][:6]
        bounds = transform_bounds(dataset.crs, "EPSG:4326", *dataset.bounds)
    np.testing.assert_allclose(found.bbox or (), bounds, atol=1e-6)
    assert FileExtension.ext(asset).checksum == f"1220{sha256_of(out / 'mask.tif')}"
    (band,) = asset.extra_fields["bands"]
    assert (band["name"], band["data_type"], band["nodata"]) == ("water", "uint8", 255)
    assert band["classification:classes"] == [
        {"value": 0, "name": "land"}, {"value": 1, "name": "water", "color_hint": "0000FF"},
    ]  # fmt: skip
    assert found.datetime == datetime(2026, 5, 1, 10, tzinfo=UTC)
    assert [each.href for each in found.get_links("derived_from")] == [source.as_uri()]
    assert found.properties["processing:software"]["water"] == "1.2.0"
    for name in ("run", "pipeline_digest", "status"):
        assert found.properties[f"pesto:{name}"] == result[name]
    assert len(found.stac_extensions) == 5

    del document["properties"]["datetime"]
    with pytest.raises(pystac.STACValidationError):
        required_valid(document)


def test_a_time_is_that_of_the_user_or_of_the_run(tmp_path: Path, pesto: Command) -> None:
    """An interval too; a scene that is no item has none, and the command says so."""
    (tmp_path / "p.py").write_text(CLASSES)
    scene, out = write_scene(tmp_path / "n.tif", PIXELS[:1], names=("nir",)), tmp_path / "out"
    assert pesto("run", f"{tmp_path / 'p.py'}:water", "-i", f"scene={scene}", "-o", out).code == 0
    assert not (out / "item.json").exists()
    assert "no time of acquisition is known" in pesto("stac", out).err
    started = json.loads((out / "result.json").read_text())["started"]
    assert json.loads((out / "item.json").read_text())["properties"]["datetime"] == started
    span = "2026-01-01T00:00:00Z/2026-02-01T00:00:00Z"
    assert pesto("stac", out, "--datetime", span).err == ""
    found = required_valid(json.loads((out / "item.json").read_text()))
    assert found.datetime is None
    assert found.common_metadata.end_datetime == datetime(2026, 2, 1, tzinfo=UTC)
    missing = pesto("stac", tmp_path)
    assert missing.code == 2
    assert "no result.json of a finished run" in missing.err


def test_a_campaign_is_a_collection_of_items(tmp_path: Path, pesto: Command) -> None:
    """Each item beside its files and in items.json, with hrefs from there; no failed scene."""
    (tmp_path / "p.py").write_text(CLASSES)
    write_scene(tmp_path / "n.tif", PIXELS[:1])
    broken = sentinel("broken")
    broken["assets"]["B08"]["href"] = "./gone.tif"
    features: JsonValue = {
        "type": "FeatureCollection", "features": [sentinel("a"), sentinel("b"), broken],
    }  # fmt: skip
    listed, out = save(tmp_path, features, "list.json"), tmp_path / "out"
    done = pesto("run", f"{tmp_path / 'p.py'}:water", "--scenes", listed, "-o", out, "--stac")
    assert done.code == 3
    items = json.loads((out / "items.json").read_text())["features"]
    assert [each["id"] for each in items] == ["a-water", "b-water"]
    for each in items:
        required_valid(each)
        assert (out / each["assets"]["mask"]["href"]).is_file()
    assert required_valid(json.loads((out / "a" / "item.json").read_text())).id == "a-water"

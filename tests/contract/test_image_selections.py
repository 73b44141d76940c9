"""The bands and the window of an image mean the same in every way into a process."""

from __future__ import annotations

import io
import json
from itertools import count
from typing import TYPE_CHECKING

import httpx
import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.transform import Affine

from pesto_runtime.client.client import Client
from pesto_runtime.contract import ImageReference
from pesto_runtime.errors import InvalidInput, InvalidPipeline, PestoError
from pesto_runtime.flows import flow
from pesto_runtime.hrefs import Gate, image_reference
from pesto_runtime.raster.read import RasterReader, read_scene
from pesto_runtime.run.single_call import call_once
from tests.contract.test_client_and_service import served
from tests.support.rasters import UTM, noise, write_scene
from tests.support.runs import refer_always, run_local

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from pydantic import JsonValue

pytestmark = [pytest.mark.contract, pytest.mark.integration]

SOURCE = '''
from typing import Annotated

import numpy as np

from pesto_runtime import Raster, process


@process(version="1.0.0", margin=0)
def pick(
    scene: Annotated[np.ndarray, Raster(bands=["green", "nir"])],
) -> Annotated[np.ndarray, Raster(name="out", bands=["green", "nir"], nodata=0)]:
    """Return the bands that arrive."""
    return scene.copy()
'''
PIXELS = noise(90, 70, bands=4, dtype="uint16", below=60_000)
NAMES = ("blue", "green", "red", "nir")
TWO = PIXELS[[1, 3]]
WAYS = ("run", "run-url", "literal", "flow", "process", "process-url", "json", "form", "client",
        "client-text")  # fmt: skip


class Ways:
    """Every way into one process; each returns the two bands and their first pixel's place."""

    def __init__(self, folder: Path, url: str) -> None:
        """Use a process of a file, and the service of it."""
        self.folder, self.url, self.target = folder, url, f"{folder}/pick.py:pick"
        self._numbers = count()
        self.last = folder

    def _new_folder(self) -> Path:
        return self.folder / f"out{next(self._numbers)}"

    def __call__(self, way: str, image: str) -> np.ndarray:
        """Return what the process receives, (band, row, col)."""
        call: Callable[[str], np.ndarray] = getattr(
            self, way if way == "run" else "_" + way.replace("-", "_")
        )
        return call(image)

    def document(
        self, inputs: dict[str, str], given: JsonValue, target: str
    ) -> dict[str, JsonValue]:
        """Return a pipeline of the process."""
        stage: JsonValue = {"id": "s", "process": "pick", "inputs": {"scene": given}}
        return {
            "name": "picks",
            "inputs": {**inputs},
            "services": {"pick": target},
            "stages": [stage],
            "outputs": {"image": "$s.out"},
        }

    def run(self, image: str, service: str = "", given: JsonValue = "$inputs.scene") -> np.ndarray:
        """Run a pipeline of the process, and return the output."""
        inputs = {"scene": image} if given == "$inputs.scene" else {}
        document = self.document(dict.fromkeys(inputs, "image"), given, service or self.target)
        done = run_local(document, self._new_folder(), inputs, tile=32)
        self.last = done.folder
        return done.pixels()

    def _run_url(self, image: str) -> np.ndarray:
        with pytest.MonkeyPatch.context() as patch:
            refer_always(patch)
            referred = self.run(image, self.url)
        sent = self.run(image, self.url)
        assert np.array_equal(sent, referred)
        return sent

    def _literal(self, image: str) -> np.ndarray:
        reference = image_reference(image).model_dump(mode="json", exclude_none=True)
        return self.run(image, given=reference)

    def _flow(self, image: str) -> np.ndarray:
        folder = self._new_folder()
        flow(image_reference(image)).then(self.target).write("image.tif").run(folder)
        return _pixels(folder / "image.tif")

    def _process(self, image: str, target: str = "") -> np.ndarray:
        path = self.folder / "called.tif"
        call_once(target or self.target, {"scene": image}, keep={"out": path})
        return _pixels(path)

    def _process_url(self, image: str) -> np.ndarray:
        return self._process(image, self.url)

    def _json(self, image: str) -> np.ndarray:
        return self._sent(json={"scene": str(image_reference(image))})

    def _form(self, image: str) -> np.ndarray:
        reference = image_reference(image).model_dump(mode="json", exclude_none=True)
        return self._sent(files={"scene": (None, json.dumps(reference))})

    def _client(self, image: str) -> np.ndarray:
        return self._called(image_reference(image))

    def _client_text(self, image: str) -> np.ndarray:
        return self._called(str(image_reference(image)))

    def _called(self, image: object) -> np.ndarray:
        with Client(self.url) as client:
            found = client.process({"scene": image})["out"]
        assert isinstance(found, np.ndarray)
        return found

    def _sent(self, **body: object) -> np.ndarray:
        answer = httpx.post(f"{self.url}/api/v1/process", headers={"Accept": "application/x-npy"},
                            **body)  # type: ignore[arg-type]  # httpx judges  # fmt: skip
        if answer.is_error:
            assert answer.status_code == 422
            fields = answer.json()["errors"]
            raise InvalidInput(" ".join(each["detail"] for each in fields))
        return np.asarray(np.load(io.BytesIO(answer.content)))


def _pixels(path: Path) -> np.ndarray:
    with rasterio.open(path) as dataset:
        return np.asarray(dataset.read())


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ways]:
    """A process, a service of it, and four files."""
    folder = tmp_path_factory.mktemp("selections")
    (folder / "pick.py").write_text(SOURCE)
    for name, names in (("plain", ()), ("named", NAMES), ("B", ("B2", "B3", "B4", "B8")),
                        ("twice", ("green", "nir", "green", "x"))):  # fmt: skip
        write_scene(folder / f"{name}.tif", PIXELS, names=names)
    write_scene(folder / "two.tif", TWO, names=())
    with served(f"{folder}/pick.py:pick", Gate(local_files=True)) as url:
        yield Ways(folder, url)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "image",
    [
        "named.tif",
        "plain.tif#bands=green:2,nir:4",
        "plain.tif#bands=2,4",
        "named.tif#bands=2,4",
        "named.tif#bands=4,2",
        "named.tif#bands=nir,green",
        "B.tif#bands=B3,B8",
        "twice.tif#bands=nir:4,green:2",
    ],
)
def test_a_selection_gives_the_same_pixels_in_every_way(ways: Ways, way: str, image: str) -> None:
    """Bands 2 and 4 of the file, in the order of the port; names in the file are replaced."""
    assert np.array_equal(ways(way, f"{ways.folder}/{image}"), TWO)


@pytest.mark.parametrize("way", WAYS)
def test_names_that_a_user_gives_replace_those_of_the_file(ways: Ways, way: str) -> None:
    """Negative control of the one above: `green` of the file is band 2."""
    image = f"{ways.folder}/named.tif#bands=green:4,nir:2"
    assert np.array_equal(ways(way, image), PIXELS[[3, 1]])


@pytest.mark.parametrize("way", WAYS)
def test_a_window_is_a_smaller_scene(ways: Ways, way: str) -> None:
    """Of any size; also beside bands."""
    image = f"{ways.folder}/plain.tif#bands=2,4&window=13,7,41,35"
    assert np.array_equal(ways(way, image), TWO[:, 7:42, 13:54])
    image = f"{ways.folder}/named.tif#window=89,69,1,1"
    assert np.array_equal(ways(way, image), TWO[:, 69:, 89:])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ("plain.tif", "the 4 bands of .* have no names, and the port takes green, nir"),
        ("two.tif", "the 2 bands of .* have no names, and the port takes green, nir"),
        ("plain.tif#window=0,0,9,9", "the 4 bands of .* have no names"),
        ("plain.tif#bands=2", r"2 bands are taken \(green, nir\), .* has 1"),
        ("plain.tif#bands=2,9", "has no band 9"),
        ("plain.tif#bands=green:2,red:4", r"band nir is missing: .* has 2 \(green, red\)"),
        ("named.tif#bands=green,swir", "has no band 'swir'"),
        ("twice.tif", "bands 1 and 3 of .* are both named 'green'"),
        ("twice.tif#bands=green,nir", "bands 1 and 3 of .* are both named 'green'"),
        ("B.tif", "band green, nir is missing"),
        ("plain.tif#bands=2,4&window=80,60,11,10", r"window \[80, 60, 11, 10\] is not inside"),
    ],
)
def test_bands_that_cannot_be_identified_are_refused_in_every_way(
    ways: Ways, way: str, image: str, reason: str
) -> None:
    """Before a pixel is computed, with the number of bands; never taken by luck."""
    with pytest.raises(PestoError, match=reason) as caught:
        ways(way, f"{ways.folder}/{image}")
    assert caught.value.status == 422
    if "no names" in reason and "json" not in way:
        assert "#bands=green:N,nir:N" in str(caught.value)


def test_inline_pixels_without_names_are_taken_in_order(ways: Ways) -> None:
    """An array has no place for names; its number of bands must be that of the port."""
    with Client(ways.url) as client:
        assert np.array_equal(np.asarray(client.process({"scene": TWO})["out"]), TWO)
        with pytest.raises(InvalidInput, match="has 4 bands; 2 are required"):
            client.process({"scene": PIXELS})


def test_a_window_keeps_its_place_in_a_product(ways: Ways) -> None:
    """The transform is that of rasterio for this window."""
    ways.run(f"{ways.folder}/named.tif#window=13,7,41,35")
    with rasterio.open(ways.last / "image.tif") as product:
        assert product.transform == Affine(*UTM) * Affine.translation(13, 7)
        assert (product.width, product.height, product.descriptions) == (41, 35, ("green", "nir"))
    document = json.loads((ways.last / "result.json").read_text())
    reference = ImageReference.parse(document["inputs"]["scene"]["href"])
    assert reference.window == (13, 7, 41, 35)


def test_two_selections_of_a_scene_share_no_blocks(ways: Ways, tmp_path: Path) -> None:
    """The run store is kept: the key of a block contains the selection, whatever its form."""
    folder, computed = tmp_path / "out", []
    for image in ("#bands=2,4", "#bands=1,3", "#bands=2,4", "#bands=2,4&window=0,0,90,70"):
        document = ways.document({"scene": "image"}, "$inputs.scene", ways.target)
        inputs = {"scene": f"{ways.folder}/plain.tif{image}"}
        done = run_local(document, folder, inputs, tile=512, keep=True, replace=True)
        wanted = PIXELS[[0, 2]] if "1,3" in image else TWO
        assert np.array_equal(done.pixels(), wanted)
        computed.append(done.tiles[0])
    assert computed == [1, 1, 0, 1]


def test_two_selections_of_one_file_in_one_run_are_two_scenes(ways: Ways, tmp_path: Path) -> None:
    """Open rasters are shared by a thread, their selections are not."""
    document: dict[str, JsonValue] = {
        "name": "both",
        "inputs": {"a": "image", "b": "image"},
        "services": {"pick": ways.target},
        "stages": [
            {"id": name, "process": "pick", "inputs": {"scene": f"$inputs.{name}"}}
            for name in ("a", "b")
        ],
        "outputs": {"a": "$a.out", "b": "$b.out"},
    }
    plain = f"{ways.folder}/plain.tif"
    given = {"a": f"{plain}#bands=2,4", "b": f"{plain}#bands=1,3"}
    done = run_local(document, tmp_path / "out", given, tile=32)
    assert np.array_equal(done.pixels("a"), TWO)
    assert np.array_equal(done.pixels("b"), PIXELS[[0, 2]])


def test_the_facts_of_a_window_have_its_place(ways: Ways) -> None:
    """Size, transform and bands, as a process sees them."""
    text = f"{ways.folder}/plain.tif#bands=a:4&window=13,7,41,35"
    scene = read_scene(image_reference(text))
    assert (scene.width, scene.height, scene.bands) == (41, 35, ("a",))
    assert scene.transform == tuple(Affine(*UTM) * Affine.translation(13, 7))[:6]


def test_control_points_and_coefficients_move_with_the_window(tmp_path: Path) -> None:
    """They are rows and columns of the window; x and y stay."""
    path = tmp_path / "gcp.tif"
    points = [GroundControlPoint(row, col, col * 3.0, row * 5.0, 0) for row in (0, 60)
              for col in (0, 80)]  # fmt: skip
    write_scene(path, PIXELS, transform=None, crs=None)
    with rasterio.open(path, "r+") as dataset:
        dataset.gcps = (points, "EPSG:4326")
    reference = ImageReference(href=str(path), window=(10, 20, 30, 40))
    scene = read_scene(reference)
    with RasterReader(str(path), scene.selection) as reader:
        moved = reader.georeference.points
    assert [(p.row, p.col, p.x, p.y) for p in moved] == [
        (p.row - 20, p.col - 10, p.x, p.y) for p in points
    ]


def test_a_wrong_image_literal_is_an_error_of_the_check(ways: Ways) -> None:
    """With the grammar."""
    with pytest.raises((InvalidPipeline, InvalidInput), match="HREF#bands=green:2,nir:4"):
        ways.run("", given=f"{ways.folder}/named.tif#bands=")

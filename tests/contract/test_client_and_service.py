"""Our client against our service: the cheapest way that works, and the same answer by each."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
import uvicorn

from pesto_runtime.client.async_client import AsyncClient
from pesto_runtime.client.client import Client
from pesto_runtime.contract import ImageReference, TileInfo, Window
from pesto_runtime.errors import AlgorithmFailed, HrefRefused, InvalidInput, RasterUnreadable
from pesto_runtime.hrefs import Gate, file_href
from pesto_runtime.processor import load_processor
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Image
from pesto_runtime.service.app import create_app
from pesto_runtime.service.limits import Limits
from pesto_runtime.service.threads import ThreadRunner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.contract, pytest.mark.integration]

PROCESSES = "tests/contract/processes.py:"
UTM = (30.0, 0.0, 500.0, 0.0, -30.0, 900.0)
IMAGE = Image(
    (np.arange(90) * 7).reshape(3, 5, 6).astype(np.uint16),
    crs="EPSG:32616",
    transform=UTM,
    nodata=7,
    bands=("nir", "green", "red"),
    tags={"SENSOR": "OLI"},
)


@contextmanager
def served(target: str, gate: Gate, *, limits: Limits | None = None) -> Iterator[str]:
    """Serve behind a socket, from a thread of this process."""
    app = create_app(ThreadRunner(load_processor(target), gate=gate, limits=limits), limits=limits)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", lifespan="on"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def scene(tmp_path: Path) -> str:
    """The image as a file."""
    path = tmp_path / "scene.tif"
    path.write_bytes(encode_image(IMAGE, "image/tiff"))
    return file_href(path)


def facts_of(client: Client, value: object, *, tile: TileInfo | None = None) -> dict[str, object]:
    """What the process saw."""
    found = client.process({"image": value, "note": "5"}, tile=tile)["facts"]
    assert isinstance(found, dict)
    return found


def test_reference_binary_and_base64_arrive_the_same(scene: str) -> None:
    """And each is what is chosen: an image with a place, bare pixels with a tile, a reference."""
    tile = TileInfo(
        read=Window(0, 0, 6, 5), write=Window(0, 0, 6, 5), scene_size=(6, 5),
        crs=IMAGE.crs, transform=UTM, nodata=7, tags={"SENSOR": "OLI"},
    )  # fmt: skip
    long = tile.model_copy(update={"tags": {"SENSOR": "OLI", "LONG": "x" * 9000}})
    picked = np.ascontiguousarray(IMAGE.pixels[[2, 0]])
    with served(PROCESSES + "facts", Gate(local_files=True)) as url, Client(url) as client:
        found = [
            facts_of(client, ImageReference(href=scene)),
            facts_of(client, IMAGE),
            facts_of(client, picked, tile=tile),
            facts_of(client, picked, tile=long),
        ]
        bare = facts_of(client, picked)
    assert all(each == found[0] for each in found)
    assert found[0]["crs"] == "EPSG:32616"
    assert bare != found[0], "control: without its tile nobody knows where an array lies"


def test_an_href_that_the_service_refuses_is_read_here(scene: str) -> None:
    """Once refused, no reference is sent again; the answer is the same as by reference."""
    reference = ImageReference(href=scene, window=Window(1, 1, 4, 3))
    with served(PROCESSES + "facts", Gate(local_files=True)) as url, Client(url) as client:
        expected = facts_of(client, reference)
    with served(PROCESSES + "facts", Gate()) as url, Client(url) as client:
        assert facts_of(client, reference) == expected
        assert facts_of(client, reference) == expected
        with pytest.raises(HrefRefused):  # control: the service does refuse it
            client.process({"image": scene})


def test_what_neither_side_can_read_is_told() -> None:
    """The error of this side, after the other's."""
    with (
        served(PROCESSES + "facts", Gate(local_files=True)) as url,
        Client(url) as client,
        pytest.raises(RasterUnreadable, match="does not exist"),
    ):
        client.process({"image": ImageReference(href="file:///nosuch.tif")})


def test_a_refused_writing_is_not_taken_for_a_refused_reading(scene: str, tmp_path: Path) -> None:
    """Sending pixels instead would not help."""
    href = file_href(tmp_path / "out.tif")
    with served(PROCESSES + "same", Gate(local_files=True)) as url, Client(url) as client:
        with pytest.raises(HrefRefused, match=r"out\.tif"):
            client.process({"image": ImageReference(href=scene)}, out={"image": href})
        assert not (tmp_path / "out.tif").exists()
    with (
        served(PROCESSES + "same", Gate((str(tmp_path),), local_files=True)) as url,
        Client(url) as client,
    ):
        assert client.process({"image": IMAGE}, out={"image": href}) == {"image": href}
        assert (tmp_path / "out.tif").exists()


def test_images_come_back_as_arrays_or_with_their_place() -> None:
    """`accept` decides; the pixels are the same."""
    with served(PROCESSES + "same", Gate(local_files=True)) as url, Client(url) as client:
        array = client.process({"image": IMAGE})["image"]
        image = client.process({"image": IMAGE}, accept="image/tiff")["image"]
    assert isinstance(array, np.ndarray)
    assert isinstance(image, Image)
    assert np.array_equal(array, image.pixels)
    assert (image.crs, image.transform, image.bands) == (IMAGE.crs, UTM, ("red", "nir"))


def test_a_full_queue_slows_callers_and_fails_none() -> None:
    """Twelve calls of a service that takes two at a time all get their answer."""
    limits = Limits(workers=1, queue=1)

    async def all_of(url: str) -> list[dict[str, object]]:
        async with AsyncClient(url) as client:
            calls = (client.process({"seconds": n / 1000}) for n in range(12))
            return await asyncio.gather(*calls)

    with served(PROCESSES + "nap", Gate(local_files=True), limits=limits) as url:
        answers = asyncio.run(all_of(url))
    assert [each["slept"] for each in answers] == [n / 1000 for n in range(12)]


def test_a_reduce_over_http_folds_as_json() -> None:
    """A partial comes back as the JSON that `finish` takes."""
    mask = np.array([[[0, 1, 1, 255]]], np.uint8)
    with (
        served("examples/cloud_cover.py:cloud_cover", Gate(local_files=True)) as url,
        Client(url) as client,
    ):
        partial = client.process({"mask": mask}, partial=True)
        assert partial == {"cloudy": 2, "valid": 3}
        finished = client.process({}, finish={"cloudy": 4, "valid": 6})
        assert finished == client.process({"mask": mask})


def test_errors_are_the_errors_that_they_were() -> None:
    """Kind, fields and words cross the wire, with the URL in front."""
    with served(PROCESSES + "wrong", Gate(local_files=True)) as url, Client(url) as client:
        with pytest.raises(AlgorithmFailed, match=rf"{url}.*KeyError"):
            client.process({"how": "raise"})
        with pytest.raises(InvalidInput) as caught:
            client.process({"how": 5})
    assert [field.pointer for field in caught.value.fields] == ["/how"]


def test_a_client_knows_what_the_headers_say() -> None:
    """Description, digest, build and transports, asked once."""
    processor = load_processor(PROCESSES + "same")
    with served(PROCESSES + "same", Gate(local_files=True)) as url, Client(url) as client:
        described = client.described
    assert described.description.inputs == processor.description.inputs
    assert described.digest == processor.description.digest
    assert described.build == processor.build
    assert not described.is_plain_pesto

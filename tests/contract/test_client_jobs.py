"""Our clients and the jobs of our service: submitted, found again, waited for, fetched."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.client.async_client import AsyncClient
from pesto_runtime.client.client import Client
from pesto_runtime.contract import ImageReference
from pesto_runtime.errors import (
    AlgorithmFailed,
    Gone,
    InvalidInput,
    KeyConflict,
    NotFound,
    NotReady,
    RasterUnreadable,
)
from pesto_runtime.hrefs import file_href
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Image
from tests.contract.serving import ERRANDS, PROJECT, Server, lines_of, served, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.contract, pytest.mark.integration]

UTM = (30.0, 0.0, 500.0, 0.0, -30.0, 900.0)
DIES = """
import os, signal, sys
from pesto_runtime.client.client import Client
url, path = sys.argv[1:]
Client(url).submit({"path": path, "name": "a", "seconds": 1.5}, key="tile 7")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def errands() -> Iterator[Server]:
    """A synchronous process on one worker."""
    with served(ERRANDS + "errand", "--workers", "1") as server:
        yield server


@pytest.fixture(scope="module")
def project() -> Iterator[Server]:
    """A PESTO project that is `asynchronous`."""
    with served(PROJECT, "--workers", "1", "--grace", "0.2") as server:
        yield server


def test_a_client_goes_on_where_a_dead_one_was(errands: Server, tmp_path: Path) -> None:
    """The same key and call is the same job: it is waited for, not run again."""
    path = tmp_path / "told"
    dead = subprocess.run([sys.executable, "-c", DIES, errands.url, str(path)], check=False)
    assert dead.returncode == -9
    inputs = {"path": str(path), "name": "a", "seconds": 1.5}
    with Client(errands.url) as client:
        found = client.find("tile 7")
        assert found is not None
        job = client.submit(inputs, key="tile 7")
        assert (job.id, job.is_over) == (found.id, False)
        with pytest.raises(NotReady):
            client.result(job.id)
        with pytest.raises(NotReady, match=r"after 0.2 s"):
            client.wait(job.id, timeout_s=0.2)
        assert client.wait(job.id).state == "successful"
        assert client.result(job.id) == {"name": "a"}
        assert client.submit(inputs, key="tile 7").id == job.id
        with pytest.raises(KeyConflict):
            client.submit(inputs | {"name": "b"}, key="tile 7")
        assert client.find("tile 8") is None
    assert lines_of(path) == ["begin a", "end a"]


def test_a_submission_without_a_key_is_one_of_its_own(errands: Server, tmp_path: Path) -> None:
    """The control: the same call twice is two jobs, each under a key that nobody else has."""
    path = tmp_path / "told"
    with Client(errands.url) as client:
        jobs = [client.submit({"path": str(path), "name": "a"}) for _ in range(2)]
        assert len({each.key for each in jobs}) == 2
        assert [client.wait(each.id).state for each in jobs] == ["successful"] * 2
    assert Counter(lines_of(path)) == {"begin a": 2, "end a": 2}


def test_a_cancelled_job_is_gone(errands: Server, tmp_path: Path) -> None:
    """Its result says that it was dismissed; an unknown job is not found."""
    path = tmp_path / "told"
    with Client(errands.url) as client:
        job = client.submit({"path": str(path), "name": "a", "seconds": 60}, lease_s=30)
        assert job.lease_until is not None
        until(lambda: lines_of(path) == ["begin a"])
        assert client.status(job.id).state == "running"
        began = time.monotonic()
        assert client.cancel(job.id).state == "dismissed"
        assert client.wait(job.id).state == "dismissed"
        assert time.monotonic() - began < 30
        with pytest.raises(Gone, match="a client deleted it"):
            client.result(job.id)
        for ask in (client.status, client.cancel, client.result):
            with pytest.raises(NotFound):
                ask("none")


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32", "float64"])
def test_an_image_keeps_all_that_is_known_of_it(dtype: str, images: Server) -> None:
    """Pixels, dtype, CRS, transform, nodata and band names, on their way through a job."""
    pixels = (np.arange(90) % 100).reshape(3, 5, 6).astype(dtype)
    image = Image(
        pixels, crs="EPSG:32616", transform=UTM, nodata=7, bands=("nir", "green", "red"),
    )  # fmt: skip
    with Client(images.url) as client:
        job = client.wait(client.submit({"image": image}).id)
        assert job.state == "successful"
        found = client.result(job.id, accept="image/tiff")["image"]
        plain = client.result(job.id)["image"]
    assert isinstance(found, Image)
    assert isinstance(plain, np.ndarray)
    np.testing.assert_array_equal(found.pixels, pixels[[2, 0]], strict=True)
    np.testing.assert_array_equal(plain, pixels[[2, 0]], strict=True)
    assert (found.crs, found.transform, found.nodata) == ("EPSG:32616", UTM, 7)
    assert found.bands == ("red", "nir")


@pytest.fixture(scope="module")
def images() -> Iterator[Server]:
    """A process that gives an image back."""
    with served(ERRANDS + "same", "--workers", "1") as server:
        yield server


def test_an_output_may_be_written_to_an_href(tmp_path: Path) -> None:
    """The job's result is the href then; the service keeps no copy."""
    source, target = tmp_path / "a.tif", file_href(tmp_path / "b.tif")
    source.write_bytes(encode_image(Image(np.ones((2, 3, 4), "uint8")), "image/tiff"))
    with (
        served(ERRANDS + "same", "--workers", "1", "--allow", str(tmp_path)) as server,
        Client(server.url) as client,
    ):
        reference = ImageReference(href=file_href(source), bands=(1, 2))
        job = client.wait(client.submit({"image": reference}, out={"image": target}).id)
        assert job.state == "successful"
        assert client.result(job.id) == {"image": target} == dict(job.outputs)
        missing = ImageReference(href=file_href(tmp_path / "none.tif"))
        lost = client.wait(client.submit({"image": missing}).id)
        with pytest.raises(RasterUnreadable):
            client.result(lost.id)
    assert (tmp_path / "b.tif").is_file()


def test_a_call_of_an_asynchronous_process_is_answered_as_any_other(project: Server) -> None:
    """`process` follows the link, beyond the grace; lists of images keep order and dtype."""
    with Client(project.url) as client:
        outputs = client.process({"action": "x", "seconds": 0.6})
        assert outputs == {"band1": 7.0, "text": "x", "count": 3}
        images = client.process({"action": "images"})["images"]
        assert isinstance(images, list)
        assert [int(each.max()) for each in images] == [1000 * n for n in range(12)]
        assert {each.dtype.name for each in images} == {"uint16"}
        for seconds in (0, 0.6):  # in its grace, and beyond it
            with pytest.raises(AlgorithmFailed, match="no errand today"):
                client.process({"action": "fail", "seconds": seconds})
        with pytest.raises(InvalidInput, match="/action"):
            client.process({})


def test_the_asynchronous_client_does_the_same(project: Server) -> None:
    """One client, many jobs at once, on one event loop."""

    async def main() -> None:
        async with AsyncClient(project.url) as client:
            jobs = [await client.submit({"action": str(n)}, key=f"n{n}") for n in range(5)]
            ended = await asyncio.gather(*(client.wait(each.id) for each in jobs))
            assert {each.state for each in ended} == {"successful"}
            results = [await client.result(each.id) for each in jobs]
            assert [each["text"] for each in results] == [str(n) for n in range(5)]
            found = await client.find("n3")
            assert found is not None
            assert (await client.status(found.id)).id == jobs[3].id
            assert (await client.cancel(found.id)).state == "dismissed"
            assert (await client.process({"action": "y"}))["text"] == "y"

    asyncio.run(main())

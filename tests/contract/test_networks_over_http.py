"""Networks behind HTTP: the pixels of a run, of a batch and of one call are those of numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.client.client import Client
from pesto_runtime.contract import ImageReference
from pesto_runtime.errors import PestoError
from tests.support import networks, processes
from tests.support.commands import served
from tests.support.rasters import noise, write_scene
from tests.support.runs import chain, run_local
from tests.unit.run.test_networks import network, scored

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.contract, pytest.mark.integration]


def test_a_service_extends_the_scene_as_a_run_does(tmp_path: Path) -> None:
    """Tiles of 160 over HTTP, and a request of the whole image by value and by reference."""
    pixels = noise(403, 297)
    scene = write_scene(tmp_path / "s.tif", pixels)
    document = network("unet")
    with served(f"{networks.__file__}:unet") as url:
        document["services"] = {"unet": url}
        done = run_local(document, tmp_path / "out", {"scene": scene}, tile=160)
        with Client(url) as client:
            by_value = client.process({"image": pixels})["image"]
            by_href = client.process({"image": ImageReference(href=scene.as_uri())})["image"]
    assert np.array_equal(done.pixels()[0], scored(pixels[0]))
    assert np.array_equal(np.asarray(by_value)[0], scored(pixels[0]))
    assert np.array_equal(np.asarray(by_href)[0], scored(pixels[0]))


def test_batches_have_windows_of_one_size(tmp_path: Path) -> None:
    """Several tiles in a request, each 96 x 96; a larger image alone is refused with a way out."""
    pixels = noise(400, 333)
    scene = write_scene(tmp_path / "s.tif", pixels)
    document = network("fixed")
    with served(f"{networks.__file__}:fixed") as url:
        document["services"] = {"fixed": url}
        done = run_local(document, tmp_path / "out", {"scene": scene}, tile=None)
        with Client(url) as client, pytest.raises(PestoError, match=r"96 x 96 pixels.*pesto run"):
            client.process({"image": pixels})
    assert np.array_equal(done.pixels()[0], networks.windowed(pixels[0]))


def test_a_mirrored_edge_is_the_same_over_http(tmp_path: Path) -> None:
    """The tile that a service receives begins before the scene."""
    scene = write_scene(tmp_path / "s.tif", noise(150, 130))
    local = run_local(chain("soften"), tmp_path / "local", {"scene": scene}, tile=64)
    with served(f"{processes.__file__}:soften") as url:
        document = {**chain("soften"), "services": {"soften": url}}
        done = run_local(document, tmp_path / "out", {"scene": scene}, tile=64)  # type: ignore[arg-type]
    assert done.sha256() == local.sha256()

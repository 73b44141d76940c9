"""A network in an ONNX file: every tile size, and one size of window, give the untiled pixels."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime
import pytest

from pesto_runtime.errors import InvalidInput
from pesto_runtime.probing.subject import ProbedProcess
from tests.support.rasters import noise, write_scene
from tests.support.runs import ROOT, run_local

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from pydantic import JsonValue

TARGET = ROOT / "examples" / "networks" / "segmentation.py"
PIXELS = noise(523, 411, bands=2, dtype="uint16", below=4000)


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "maker", ROOT / "examples" / "networks" / "make_segmentation_model.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def untiled(model: onnx.ModelProto) -> np.ndarray:
    """The network over the whole scene, extended and trimmed by numpy."""
    padded = np.pad(PIXELS, ((0, 0), (0, -411 % 8), (0, -523 % 8)), mode="reflect")
    session = onnxruntime.InferenceSession(model.SerializeToString())
    pixels = padded[np.newaxis].astype(np.float32) / 10_000
    return np.asarray(session.run(["score"], {"pixels": pixels})[0][0, :, :411, :523])


def pipeline(name: str) -> dict[str, JsonValue]:
    process = name.replace("_", "-")
    return {
        "name": "network",
        "inputs": {"scene": "image"},
        "services": {process: f"{TARGET}:{name}"},
        "stages": [{"id": "net", "process": process, "inputs": {"scene": "$inputs.scene"}}],
        "outputs": {"score": "$net.score"},
    }


def test_a_network_in_a_file_gives_the_untiled_pixels(
    maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tiles of 64 and 200 of a network for any size."""
    model = maker.u_net()
    onnx.save(model, tmp_path / "any.onnx")
    monkeypatch.setenv("SEGMENTATION_MODEL", str(tmp_path / "any.onnx"))
    scene = write_scene(tmp_path / "s.tif", PIXELS, names=("red", "nir"))
    for tile in (64, 200):
        done = run_local(
            pipeline("segmentation"), tmp_path / str(tile), {"scene": scene}, tile=tile
        )
        assert np.array_equal(done.pixels("score"), untiled(model))


def test_blended_windows_are_near_the_untiled_pixels(
    maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away from the mirrored edge; a network that was exported for 256 x 256 pixels suffices."""
    onnx.save(maker.u_net(256), tmp_path / "256.onnx")
    monkeypatch.setenv("SEGMENTATION_MODEL", str(tmp_path / "256.onnx"))
    scene = write_scene(tmp_path / "s.tif", PIXELS, names=("red", "nir"))
    small, large = (
        run_local(pipeline("segmentation_blended"), tmp_path / f"{n}", {"scene": scene}, tile=n)
        for n in (192, 400)
    )
    error = (large.pixels("score") - untiled(maker.u_net()))[:, 40:-40, 40:-40]
    assert small.sha256("score") == large.sha256("score")
    assert np.abs(error).max() < 0.01  # windows side by side: 0.1


def test_a_network_of_one_size_gives_the_pixels_of_any_size(
    maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of 256 x 256; it cannot be measured, and the message has the way out."""
    onnx.save(maker.u_net(256), tmp_path / "256.onnx")
    monkeypatch.setenv("SEGMENTATION_MODEL", str(tmp_path / "256.onnx"))
    scene = write_scene(tmp_path / "s.tif", PIXELS, names=("red", "nir"))
    done = run_local(pipeline("segmentation_256"), tmp_path / "out", {"scene": scene}, tile=None)
    assert np.array_equal(done.pixels("score"), untiled(maker.u_net()))
    with pytest.raises(InvalidInput, match=r"takes 256 x 256 pixels only.*any size"):
        ProbedProcess.load(f"{TARGET}:segmentation_256", {})

"""`--verify`: random tiles are computed again with other borders, before anything is published."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import Pipeline
from pesto_runtime.engines import RunRequest, SilentListener, load_engine
from pesto_runtime.errors import ContractBroken, InvalidInput
from pesto_runtime.run.verifying import verify_tiles
from tests.support.rasters import noise, tree, write_scene
from tests.support.runs import ROOT, chain, pipeline, run_local, stage

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue

PROBED = ROOT / "tests" / "support" / "probed.py"
ALL = 1000


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", noise(700, 600))


def probed(name: str) -> dict[str, JsonValue]:
    """A pipeline of one process of `probed.py`."""
    process = name.replace("_", "-")
    return {
        "name": "test",
        "inputs": {"scene": "image"},
        "services": {process: f"{PROBED}:{name}"},
        "stages": [{"id": "s", "process": process, "inputs": {"image": "$inputs.scene"}}],
        "outputs": {"image": "$s.image"},
    }


def test_a_contract_that_says_too_little_ends_the_run(scene: Path, tmp_path: Path) -> None:
    """The error names the stage, the window, the pixels and the way out; nothing is published."""
    out = tmp_path / "out"
    with pytest.raises(ContractBroken) as raised:
        run_local(probed("wrong_box"), out, {"scene": scene}, tile=100, verify_tiles=3)
    for word in ("stage 's'", "window [", " pixels are others, by up to ", "pesto probe ",
                 f"{PROBED}:wrong_box", "nothing is published"):  # fmt: skip
        assert word in raised.value.detail
    assert all(name.startswith(".pesto/") for name in tree(out))
    wrong = run_local(probed("wrong_box"), out, {"scene": scene}, tile=100)
    assert wrong.result["status"] == "COMPLETE"  # the control: without it, nobody notices


def test_the_number_of_wrong_pixels_is_that_of_the_old_borders(tmp_path: Path) -> None:
    """A moved tile has one old border across each axis: two rows and two columns are wrong."""
    scene = write_scene(tmp_path / "s.tif", noise(256, 256, below=250) // 2 + 125)
    with pytest.raises(ContractBroken) as raised:
        run_local(probed("wrong_box"), tmp_path / "out", {"scene": scene}, tile=128, verify_tiles=1)
    assert "128, 128]: 508 of 16384 pixels" in raised.value.detail


@pytest.mark.parametrize("name", ["rounded", "binning", "enlarged", "causal", "cells_of_four"])
def test_a_right_contract_passes_on_every_tile(scene: Path, tmp_path: Path, name: str) -> None:
    """With margins, scales and alignments; the outputs are those of a run without it."""
    plain = run_local(probed(name), tmp_path / "plain", {"scene": scene}, tile=100)
    done = run_local(probed(name), tmp_path / "out", {"scene": scene}, tile=100, verify_tiles=ALL)
    assert done.sha256() == plain.sha256()


@pytest.mark.parametrize("processes", [("soften",), ("grow", "grow_far", "soften"), ("shrink",)])
def test_chains_and_mirrored_edges_pass(
    scene: Path, tmp_path: Path, processes: tuple[str, ...]
) -> None:
    """Margins of a chain are doubled step by step, and edges are mirrored as before."""
    done = run_local(
        chain(*processes), tmp_path / "out", {"scene": scene}, tile=150, verify_tiles=ALL
    )
    assert done.result["status"] == "COMPLETE"


def test_a_stage_in_the_middle_of_a_chain_is_caught(tmp_path: Path) -> None:
    """The margin of `grow_short` is one pixel too small; every process of the phase is named."""
    pixels = noise(700, 600)
    pixels[noise(700, 600, seed=1) > 0] = 0  # in full noise, every maximum is the same
    scene = write_scene(tmp_path / "sparse.tif", pixels)
    with pytest.raises(ContractBroken, match="grow_short") as raised:
        run_local(
            chain("grow", "grow_short", "grow"), tmp_path / "out", {"scene": scene},
            tile=100, verify_tiles=ALL,
        )  # fmt: skip
    assert "processes.py:grow;" in raised.value.detail


def test_a_raster_that_only_a_reduce_reads_is_verified_too(scene: Path, tmp_path: Path) -> None:
    """It is not stored: it is computed with the run's windows, and with wider ones."""
    reads: dict[str, JsonValue] = {"image": "$s.image"}
    for name, is_right in (("rounded", True), ("wrong_box", False)):
        document = probed(name)
        process = name.replace("_", "-")
        document["services"] = {
            process: f"{PROBED}:{name}",
            "bright-share": f"{PROBED}:bright_share",
        }
        document["stages"] = [
            {"id": "s", "process": process, "inputs": {"image": "$inputs.scene"}},
            {"id": "r", "process": "bright-share", "inputs": reads},
        ]
        document["outputs"] = {"share": "$r.share"}
        if is_right:
            run_local(document, tmp_path / name, {"scene": scene}, tile=100, verify_tiles=ALL)
            continue
        with pytest.raises(ContractBroken, match="stage 's'"):
            run_local(document, tmp_path / name, {"scene": scene}, tile=100, verify_tiles=ALL)


def test_a_declared_tolerance_is_kept(tmp_path: Path) -> None:
    """The rounding errors of a Fourier transform depend on the window, within the contract."""
    pixels = noise(300, 300).astype(np.float32)
    scene = write_scene(tmp_path / "f.tif", pixels)
    done = run_local(probed("convolved"), tmp_path / "out", {"scene": scene}, tile=100,
                     verify_tiles=ALL)  # fmt: skip
    assert done.result["status"] == "COMPLETE"


def test_tiles_with_holes_are_left_out(scene: Path, tmp_path: Path) -> None:
    """A PARTIAL run is published; only what is stored is compared."""
    from tests.support.processes import MARKER

    pixels = noise(700, 600)
    pixels[0, 599, 0] = MARKER
    marked = write_scene(tmp_path / "m.tif", pixels)
    (tmp_path / "broken").touch()
    document = chain("fragile", broken=str(tmp_path / "broken"))
    done = run_local(document, tmp_path / "out", {"scene": marked}, verify_tiles=ALL)
    assert done.result["status"] == "PARTIAL"


def test_the_same_run_selects_the_same_tiles(scene: Path, tmp_path: Path) -> None:
    """The random choice comes from the run's key."""
    found = []
    for name in ("a", "b"):
        with pytest.raises(ContractBroken) as raised:
            run_local(probed("wrong_box"), tmp_path / name, {"scene": scene}, tile=100,
                      verify_tiles=1)  # fmt: skip
        found.append(raised.value.detail)
    assert found[0] == found[1]


def test_a_phase_without_rasters_has_nothing_to_verify(tmp_path: Path) -> None:
    """A call without an image is no map."""
    document = pipeline(stage("v", "verdict", fraction=0.9), outputs={"verdict": "$v.verdict"})
    document["services"] = {"verdict": str(ROOT / "examples" / "verdict.py:verdict")}
    document["inputs"] = {}
    done = run_local(document, tmp_path / "out", {}, verify_tiles=ALL)
    assert done.value("verdict") == "cloudy"


class Warnings(SilentListener):
    """Keeps warnings."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str) -> None:
        """Keep a warning."""
        self.texts.append(text)


@pytest.mark.parametrize(("wanted", "compared"), [(0, 0), (2, 2), (56, 56), (ALL, 56)])
def test_as_many_tiles_are_compared_as_are_wanted(
    scene: Path, tmp_path: Path, wanted: int, compared: int
) -> None:
    """At most all: 700 x 600 pixels are 8 x 7 tiles of 100, as blocks end at pixel 512."""
    run_local(probed("rounded"), tmp_path / "out", {"scene": scene}, tile=100, keep=True)
    (plan,) = (tmp_path / "out").glob(".pesto/plans/*.json")
    assert verify_tiles(plan.as_uri(), wanted) == compared


def test_a_finished_run_says_that_nothing_is_verified(scene: Path, tmp_path: Path) -> None:
    """Its blocks are deleted: only a fresh run can be verified."""
    run_local(probed("rounded"), tmp_path / "out", {"scene": scene})
    watcher = Warnings()
    run_local(
        probed("rounded"), tmp_path / "out", {"scene": scene}, watcher=watcher, verify_tiles=1
    )
    assert any("nothing was computed, nor verified" in text for text in watcher.texts)


@pytest.mark.parametrize("name", ["airflow", "conductor"])
def test_an_engine_that_cannot_verify_refuses(name: str, tmp_path: Path) -> None:
    """Before anything else: it would publish what nobody verified."""
    pytest.importorskip({"airflow": "airflow.sdk", "conductor": "conductor"}[name])
    request = RunRequest(
        pipeline=Pipeline.parse(probed("rounded")), base=tmp_path, inputs={},
        folder=tmp_path / "out", verify_tiles=1,
    )  # fmt: skip
    with pytest.raises(InvalidInput, match="--verify is not for the engine"):
        load_engine(name).run(request, watcher=SilentListener())

"""Pipeline, catalog, scene, run store and outputs in a bucket, on any engine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pesto_runtime.places import place_of
from tests.support.buckets import BUCKET, names, put
from tests.support.commands import pesto
from tests.support.rasters import noise, tree, write_scene
from tests.support.runs import pipeline, run_local, stage

if TYPE_CHECKING:
    from pathlib import Path


def require_bytes_of_the_disk(folder: Path, engine: str) -> None:
    """Run two phases in a bucket on an engine; compare with the local engine on a disk.

    The variables of the bucket are set here, and for the workers of the engine.
    """
    document = pipeline(
        stage("grown", "grow_far", image="$inputs.scene"),
        stage("mean", "mean", image="$grown.image"),
        stage("above", "above", image="$grown.image", level="$mean.mean"),
        outputs={"image": "$above.image", "grown": "$grown.image", "mean": "$mean.mean"},
    )
    scene = write_scene(folder / "s.tif", noise(1100, 600))
    local = run_local(document, folder / "local", {"scene": scene})
    catalog = put(f"{engine}/catalog.json", json.dumps(document.pop("services")).encode())
    file = put(f"{engine}/p.json", json.dumps(document).encode())
    href = put(f"{engine}/s.tif", scene.read_bytes())
    here = folder / "here"
    here.mkdir()

    done = pesto(
        "run", file, "--services", catalog, "--engine", engine, "-i", f"scene={href}",
        "--tile", 200, "--workers", 2, "-o", f"{BUCKET}/{engine}/out", cwd=here,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert names(f"{BUCKET}/{engine}/out") == tree(local.folder)
    for name in ("image.tif", "grown.tif", "mean.json"):
        remote = place_of(f"{BUCKET}/{engine}/out/{name}").read_bytes()
        assert remote == (local.folder / name).read_bytes(), name
    assert not tree(here), "nothing is left on the disk"

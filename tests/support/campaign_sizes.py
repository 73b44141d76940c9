"""500 small scenes and three large ones for one campaign, of which two are unreadable at first."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.support.rasters import noise, sha256_of, stamps, write_scene
from tests.support.runs import chain, run_local

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    from pydantic import JsonValue

SMALL, LARGE = 500, 3
UNREADABLE = ("s007", "large1")
KILLS = (100, 300)
"""Packs of blocks in the run stores before each kill."""
TILE, MOST_TASKS = 400, 64
DOCUMENT = chain("grow", "soften")


@dataclass
class SizesCampaign:
    """The scenes, and what a campaign over them must hold.

    Attributes:
        folder: Where scenes and outputs are.
    """

    folder: Path
    scenes: dict[str, np.ndarray] = field(init=False)
    _complete: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Write the scenes."""
        self.scenes = {f"s{n:03d}": noise(60 + n % 7, 50 + n % 5, seed=n) for n in range(SMALL)}
        self.scenes |= {f"large{n}": noise(2100, 1900, seed=n) for n in range(LARGE)}
        for name, pixels in self.scenes.items():
            write_scene(self.folder / f"{name}.tif", pixels)
        for name in UNREADABLE:
            (self.folder / f"{name}.tif").write_bytes(b"II*\0 not a raster")

    @property
    def hrefs(self) -> list[JsonValue]:
        """All scenes, in order."""
        return [str(self.folder / f"{name}.tif") for name in self.scenes]

    @property
    def out(self) -> Path:
        """The folder of the campaign."""
        return self.folder / "o"

    def has_packs(self, count: int) -> bool:
        """Whether the run stores of all scenes have so many packs of blocks."""
        return len(list(self.out.glob("*/.pesto/blocks/*/*"))) >= count

    def wait_for_packs(self, count: int) -> None:
        """Wait until they have; a campaign that ends before is an error."""
        deadline = time.monotonic() + 600
        while not self.has_packs(count):
            assert time.monotonic() < deadline
            assert not (self.out / "campaign.json").exists(), "the campaign ended before the kill"
            time.sleep(0.05)

    def require_all_but_the_unreadable(self) -> None:
        """One report with two failures; the bytes of each other scene alone."""
        report = self._report()
        assert report["counts"] == {"COMPLETE": SMALL + LARGE - len(UNREADABLE), "FAILED": 2}
        assert (self.out / "campaign.html").exists()
        scenes = report["scenes"]
        assert isinstance(scenes, dict)
        failed = {n for n, e in scenes.items() if isinstance(e, dict) and e["status"] == "FAILED"}
        assert failed == {*UNREADABLE}
        complete = sorted(self.scenes.keys() - failed)
        for name in complete:
            self._require_bytes(name)
        self._complete = {name: stamps(self.out / name) for name in complete}

    def mend(self) -> None:
        """Make the unreadable scenes readable."""
        for name in UNREADABLE:
            (self.folder / f"{name}.tif").unlink()  # GDAL would open it first
            write_scene(self.folder / f"{name}.tif", self.scenes[name])

    def require_all(self) -> None:
        """The mended scenes are computed; no file of the others was touched."""
        assert self._report()["counts"] == {"COMPLETE": SMALL + LARGE}
        for name in UNREADABLE:
            self._require_bytes(name)
        assert {name: stamps(self.out / name) for name in self._complete} == self._complete

    def _report(self) -> dict[str, JsonValue]:
        found: dict[str, JsonValue] = json.loads((self.out / "campaign.json").read_text())
        return found

    def _require_bytes(self, name: str) -> None:
        alone = run_local(
            DOCUMENT, self.folder / "alone" / name, {"scene": self.folder / f"{name}.tif"}
        )
        assert sha256_of(self.out / name / "image.tif") == alone.sha256(), name

"""Read the samples and the facts of a raster that is drawn for a report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.errors import TooLarge
from pesto_runtime.raster.gdal import raster_settings
from pesto_runtime.raster.read import RasterReader
from pesto_runtime.raster.samples import MOST_REMOTE_BYTES, Samples, overview_bytes, read_missing
from pesto_runtime.tiling import SampleGrid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pesto_runtime.contract import RasterClass, Scene, Selection


TRUE_COLOUR = ("red", "green", "blue")


@dataclass(frozen=True)
class Subject:
    """A raster to draw.

    Attributes:
        samples: Its samples.
        scene: Its facts.
        numbers: 1-based numbers of the bands of the samples.
        classes: The classes that its contract declares.
    """

    samples: Samples
    scene: Scene
    numbers: tuple[int, ...]
    classes: Sequence[RasterClass] = ()

    def name(self, number: int) -> str:
        """Return the name of a band; its number if it has none."""
        return self.scene.bands[number - 1] or str(number)


def read_subject(
    href: str,
    *,
    selection: Selection | None = None,
    samples: Samples | None = None,
    numbers: tuple[int, ...] | None = None,
    classes: Sequence[RasterClass] = (),
) -> Subject:
    """Read the facts of a raster, and the samples that are not known yet.

    Args:
        href: The raster.
        selection: The bands and the window of it that are drawn; None for all.
        samples: Those that are known; None for none.
        numbers: 1-based numbers of their bands; None for all.
        classes: The classes that its contract declares.

    Raises:
        RasterUnreadable: the raster cannot be read.
        TooLarge: nothing is known, and too much would have to be decoded.
    """
    with raster_settings(), RasterReader(href, selection) as reader:
        scene = reader.scene()
        if (
            samples is not None
            and _has_hidden_colours(scene, numbers or ())
            and overview_bytes(reader, samples.grid.step) <= MOST_REMOTE_BYTES
        ):  # only some bands are known, and all of them are cheap
            samples, numbers = None, None
        numbers = numbers or tuple(range(1, len(scene.bands) + 1))
        if samples is None:
            pixel_bytes = len(numbers) * np.dtype(scene.dtype).itemsize
            grid = SampleGrid.of((scene.width, scene.height), pixel_bytes=pixel_bytes)
            samples = Samples.of_all(grid, bands=len(numbers), dtype=scene.dtype)
        read_missing(reader, samples, numbers)
    if not samples.seen.any():
        raw = scene.width * scene.height * len(scene.bands) * np.dtype(scene.dtype).itemsize
        raise TooLarge(
            f"{raw >> 20} MiB of {href} would have to be decoded, as it has too few overviews; add "
            "them (gdaladdo), or write a COG"
        )
    return Subject(samples, scene, numbers, classes)


def _has_hidden_colours(scene: Scene, numbers: Sequence[int]) -> bool:
    """Whether red, green and blue are bands of a raster, but not all of them among some bands."""
    names = {(name or "").lower(): number for number, name in enumerate(scene.bands, start=1)}
    colours = [names.get(colour) for colour in TRUE_COLOUR]
    return None not in colours and not {*colours} <= {*numbers}

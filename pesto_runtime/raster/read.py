"""Read windows and facts of rasters, and select bands."""

from __future__ import annotations

import os
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, unquote, urlsplit

import rasterio
from pydantic import ValidationError
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.windows import Window as RasterioWindow

from pesto_runtime.contract import BandValues, Scene, Window
from pesto_runtime.errors import InvalidInput, RasterUnreadable
from pesto_runtime.raster.identity import identity_of, local_path
from pesto_runtime.raster.image import UNBOUNDED, Image
from pesto_runtime.raster.metadata import crs_text, read_bands, read_georeference
from pesto_runtime.raster.opening import DRIVERS, allowed_drivers, dtype_of, opened, reason_of_gdal
from pesto_runtime.raster.scaling import scaled_image
from pesto_runtime.raster.side_facts import dataset_of_facts
from pesto_runtime.raster.side_files import side_files, side_names
from pesto_runtime.raster.validity import dataset_mask, stated_validity
from pesto_runtime.remote import gdal_settings, is_there

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from rasterio.io import DatasetReader

    from pesto_runtime.contract import RasterContract
    from pesto_runtime.raster.image import BandFacts, Bounds, Georeference


# `check` reports a raster without a CRS once. A filter around each call is not possible, because
# warnings.catch_warnings is not thread-safe: https://docs.python.org/3/library/warnings.html
warnings.filterwarnings("ignore", category=NotGeoreferencedWarning)

CACHE_BYTES = 128 << 20
"""GDAL's block cache in a worker: about two rows of blocks of a large scene."""
_NOT_CACHED = "/vsicurl/:/vsis3/:/vsigs/:/vsiaz/"
"""Remote files whose bytes GDAL discards when they are closed. By default it keeps 16 MB of them
per process, and returns them for another scene at the same URL:
https://gdal.org/en/stable/user/virtual_file_systems.html#vsicurl-http-https-ftp-files-random-access
"""


@contextmanager
def raster_settings() -> Iterator[None]:
    """Set GDAL up for windowed reading in this thread: bounded cache, no directory listing."""
    with rasterio.Env(
        GDAL_CACHEMAX=CACHE_BYTES,
        GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR",
        GDAL_PAM_ENABLED="NO",
        CPL_VSIL_CURL_NON_CACHED=_NOT_CACHED,
        **gdal_settings(),
    ):
        yield


class RasterReader:
    """An open raster; to be used by one thread at a time, as GDAL datasets are not thread-safe."""

    def __init__(
        self,
        href: str,
        *,
        beside: Mapping[str, Path] | None = None,
        drivers: tuple[str, ...] | None = None,
    ) -> None:
        """Open a raster.

        Args:
            href: `file:///…`, an http(s) URL, or a path.
            beside: Name -> path of the files beside it whose facts count; None for those of
                `side_files`.
            drivers: GDAL's drivers that may open it; None for those of `allowed_drivers`.

        Raises:
            RasterUnreadable: the file is missing, empty, corrupt, or in another format; or a file
                beside it is.
        """
        self.href = href
        with ExitStack() as stack:
            self._dataset = self._facts = stack.enter_context(
                opened(href, allowed_drivers() if drivers is None else drivers)
            )
            path = local_path(href)
            files = side_files(path) if beside is None and path is not None else beside
            if files and path is not None:
                dtype = dtype_of(self._dataset, href)
                self._facts = dataset_of_facts(self._dataset, dtype, path.name, files, stack)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the raster; a second call does nothing."""
        self._stack.close()

    def scene(self, *, identity: str = "") -> Scene:
        """Return the facts of the raster.

        Args:
            identity: The identity that it had before it was opened.

        Raises:
            RasterUnreadable: the bands have different dtypes, or one that is not numeric.
        """
        dataset = self._facts
        height, width = self._dataset.block_shapes[0]
        return Scene(
            href=self.href,
            identity=identity,
            width=dataset.width,
            height=dataset.height,
            bands=tuple(dataset.descriptions),
            dtype=dtype_of(dataset, self.href),
            nodata=dataset.nodata,
            crs=crs_text(dataset.crs),
            transform=None if dataset.transform.is_identity else tuple(dataset.transform)[:6],
            block=(width, height),
            tags=dataset.tags(),
            validity=stated_validity(self._dataset, dataset),
            values=_values(self.bands(), self.href),
            driver="" if self._dataset.driver in DRIVERS else self._dataset.driver,
        )

    def mask(self, window: Window) -> np.ndarray | None:
        """Read the mask of the dataset, or its alpha band, as a bool array (row, col).

        Returns:
            True for a valid pixel; None for a raster with neither.

        Raises:
            RasterUnreadable: a block of the window is truncated or corrupt.
        """
        try:
            return dataset_mask(self._dataset, window)
        except RasterioError as error:
            raise RasterUnreadable(
                f"the mask of {self.href} cannot be read at window {list(window)}: "
                f"{reason_of_gdal(error)}"
            ) from error

    @property
    def georeference(self) -> Georeference:
        """Position of the raster, and its dataset tags."""
        return read_georeference(self._facts)

    def bands(self, numbers: Sequence[int] | None = None) -> tuple[BandFacts, ...]:
        """Return the facts of bands by 1-based number; None for all."""
        return read_bands(self._facts, numbers or self._facts.indexes)

    def read(self, window: Window, *, bands: Sequence[int] | None = None) -> np.ndarray:
        """Read a window as an array (band, row, col).

        Args:
            window: A window inside the raster, pixels.
            bands: 1-based band numbers in the order wanted; None for all.

        Raises:
            RasterUnreadable: a block of the window is truncated or corrupt.
        """
        try:
            pixels: np.ndarray = self._dataset.read(
                None if bands is None else list(bands), window=RasterioWindow(*window)
            )
        except RasterioError as error:
            raise RasterUnreadable(
                f"{self.href} cannot be read at window {list(window)}: {reason_of_gdal(error)}; "
                "is it truncated or still being written?"
            ) from error
        return pixels

    def image(
        self, window: Window | None = None, *, bands: Sequence[int | str] | None = None
    ) -> Image:
        """Read a window with its georeference.

        Raises:
            InvalidInput: the window is not inside the raster, or a band does not exist.
            RasterUnreadable: the pixels cannot be read.
        """
        dataset = self._facts
        whole = Window(0, 0, dataset.width, dataset.height)
        window = window or whole
        if not whole.contains(window):
            raise InvalidInput(
                f"window {list(window)} is not inside {self.href}, "
                f"which is {dataset.width} x {dataset.height} (width x height)"
            )
        numbers = band_numbers(dataset.descriptions, bands, href=self.href)
        pixels = self.read(window, bands=numbers)
        found = image_of(dataset, pixels, numbers=numbers, offsets=window[:2])
        return replace(found, mask=self.mask(window))


def read_image(
    href: str, *, window: Window | None = None, bands: Sequence[int | str] | None = None
) -> Image:
    """Read a window of a raster, by default the whole raster.

    Raises:
        InvalidInput: the window is not inside the raster, or a band does not exist.
        RasterUnreadable: the file is missing, empty, corrupt, truncated, or in another format.
    """
    with raster_settings(), RasterReader(href) as reader:
        return reader.image(window, bands=bands)


def read_for(
    href: str,
    contract: RasterContract | None,
    *,
    window: Window | None = None,
    bands: Sequence[int | str] | None = None,
    pick_window: Callable[[int, int], Window] | None = None,
    bounds: Bounds = UNBOUNDED,
    beside: Mapping[str, Path] | None = None,
    drivers: tuple[str, ...] | None = None,
) -> Image:
    """Read a window of a raster as a port receives it: its bands, physical values if `scaled`.

    Args:
        href: The raster.
        contract: The raster contract of the port.
        window: The window; None for the whole raster.
        bands: Names or 1-based numbers that replace the names of the port.
        pick_window: Called with width and height if `window` is None.
        bounds: Maximum size of the window.
        beside: Files beside the raster, as of `RasterReader`.
        drivers: Drivers that may open it, as of `RasterReader`.

    Raises:
        InvalidInput: the window is not inside the raster, or a band does not exist.
        RasterUnreadable: the raster cannot be read.
        TooLarge: the window exceeds the bounds.
    """
    with raster_settings(), RasterReader(href, beside=beside, drivers=drivers) as reader:
        scene = reader.scene()
        if window is None and pick_window is not None:
            window = pick_window(scene.width, scene.height)
        wanted = _names_to_pick(scene.bands, contract) if bands is None else bands
        width, height = (scene.width, scene.height) if window is None else window[2:]
        count = len(scene.bands if wanted is None else wanted)
        bounds.require((count, height, width), scene.dtype)
        image = reader.image(window, bands=wanted)
        return scaled_image(image) if contract is not None and contract.scaled else image


def read_scene(href: str) -> Scene:
    """Read the facts and the identity of a raster, without its pixels.

    Raises:
        RasterUnreadable: the file is missing, empty, corrupt, or in another format or dtype.
    """
    identity = identity_of(href)
    with raster_settings(), RasterReader(href) as reader:
        scene = reader.scene(identity=identity)
    return scene.model_copy(update={"unread": _unread(scene)})


def open_file(path: Path) -> DatasetReader:
    """Open a product with rasterio alone, for a caller that reads it further on its own."""
    return rasterio.open(path)


def _unread(scene: Scene) -> tuple[str, ...]:
    """Return the names of files beside a remote raster that may state its place: none is read.

    Each lookup is a request, so there is none for a raster that states its place itself.
    """
    url = urlsplit(scene.href)
    has_place = scene.crs is not None and scene.transform is not None
    if has_place or local_path(scene.href) is not None or url.query or url.fragment:
        return ()
    folder, _, name = scene.href.rpartition("/")
    names = side_names(unquote(name))
    return tuple(each for each in names if is_there(f"{folder}/{quote(each)}"))


def image_of(
    dataset: DatasetReader,
    pixels: np.ndarray,
    *,
    numbers: Sequence[int],
    offsets: tuple[int, int] = (0, 0),
) -> Image:
    """Combine pixels of an open raster with their georeference and band facts.

    Args:
        dataset: The open raster.
        pixels: Array (band, row, col) that was read from it.
        numbers: 1-based numbers of the bands that were read.
        offsets: Position (col_off, row_off) of the first pixel in the raster.
    """
    place, facts = read_georeference(dataset).shifted(*offsets), read_bands(dataset, numbers)
    return Image(
        pixels=pixels,
        crs=place.crs,
        transform=place.transform,
        nodata=dataset.nodata,
        bands=tuple(each.description for each in facts),
        scales=tuple(each.scale for each in facts),
        offsets=tuple(each.offset for each in facts),
        units=tuple(each.unit for each in facts),
        tags=dict(place.tags.get("", {})),
        place=place,
        facts=facts,
    )


def taken_for(image: Image, contract: RasterContract | None) -> Image:
    """Return the image as a port receives it: its bands in order, physical values if `scaled`.

    Raises:
        InvalidInput: the image names its bands, and one of the port's is missing; or it is complex,
            and the port is `scaled`.
    """
    names = _names_to_pick(image.bands, contract)
    if names is not None and names != image.bands:
        image = image.picked([number - 1 for number in band_numbers(image.bands, names)])
    return scaled_image(image) if contract is not None and contract.scaled else image


def band_numbers(
    descriptions: Sequence[str | None], bands: Sequence[int | str] | None, *, href: str = "image"
) -> tuple[int, ...]:
    """Convert band names or 1-based numbers to 1-based numbers; None means all.

    >>> band_numbers(("red", "nir"), ["nir", 1])
    (2, 1)

    Raises:
        InvalidInput: a band does not exist.
    """
    if bands is None:
        return tuple(range(1, len(descriptions) + 1))
    names = {name: number for number, name in enumerate(descriptions, start=1) if name}
    numbers = [names.get(band, 0) if isinstance(band, str) else band for band in bands]
    missing = [
        band
        for band, number in zip(bands, numbers, strict=True)
        if not 1 <= number <= len(descriptions)
    ]
    if missing:
        raise InvalidInput(
            f"{href} has no band {', '.join(repr(band) for band in missing)}; "
            f"it has {len(descriptions)}: {', '.join(name or '(unnamed)' for name in descriptions)}"
        )
    return tuple(numbers)


def limit_cache() -> None:
    """Limit GDAL's block cache of this process; a worker calls it before it opens a raster.

    GDAL uses the first value that it reads until the process ends, by default 5 % of the memory:
    https://gdal.org/en/stable/user/configoptions.html#performance-and-caching
    """
    os.environ.setdefault("GDAL_CACHEMAX", str(CACHE_BYTES >> 20))  # GDAL's own unit: MiB


def gdal_version() -> str:
    """Return the version of GDAL."""
    return str(rasterio.__gdal_version__)


def _values(bands: Sequence[BandFacts], href: str) -> tuple[BandValues, ...]:
    """Return the meaning of each band's numbers; empty if they are the physical values."""
    try:
        values = tuple(
            BandValues(scale=band.scale, offset=band.offset, unit=band.unit) for band in bands
        )
    except ValidationError as error:
        raise RasterUnreadable(
            f"{href} has a band whose scale or offset is not a finite number; correct it, for "
            "example by gdal_edit.py -scale 1 -offset 0"
        ) from error
    return values if any(each != BandValues() for each in values) else ()


def _names_to_pick(
    bands: Sequence[str | None], contract: RasterContract | None
) -> tuple[str, ...] | None:
    """Return the names of the port's bands; None if the port or the image does not name bands."""
    if contract is None or contract.band_names is None or not any(bands):
        return None
    return contract.band_names

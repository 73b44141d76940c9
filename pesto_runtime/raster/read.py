"""Read windows and facts of rasters."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np
import rasterio
from rasterio.errors import RasterioError
from rasterio.windows import Window as RasterioWindow

from pesto_runtime.contract import ImageReference, Scene, Selection, Window
from pesto_runtime.contract.band_files import files_of, stacked_bands
from pesto_runtime.errors import InvalidInput, RasterUnreadable
from pesto_runtime.raster.block_cache import CellGrid
from pesto_runtime.raster.gdal import raster_settings
from pesto_runtime.raster.identity import identity_of, local_path
from pesto_runtime.raster.image import UNBOUNDED, Image, shifted
from pesto_runtime.raster.metadata import crs_text, read_bands, read_georeference
from pesto_runtime.raster.opening import (
    DRIVERS,
    Access,
    T,
    allowed_drivers,
    dtype_of,
    opened,
    opened_mask,
    patiently,
    reason_of_gdal,
)
from pesto_runtime.raster.picking import band_numbers, picked_numbers
from pesto_runtime.raster.scaling import scaled_image, values_of
from pesto_runtime.raster.side_facts import dataset_of_facts, unread_files
from pesto_runtime.raster.side_files import mask_name, side_files
from pesto_runtime.raster.stack import opened_stack
from pesto_runtime.raster.validity import dataset_mask, stated_validity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rasterio.io import DatasetReader

    from pesto_runtime.contract import RasterContract
    from pesto_runtime.places import AnyPath
    from pesto_runtime.raster.image import BandFacts, Bounds, Georeference


class RasterReader:
    """An open raster; to be used by one thread at a time, as GDAL datasets are not thread-safe.

    With a selection, its bands and its window are the whole raster: sizes, windows and band numbers
    are those of the selection.
    """

    def __init__(
        self,
        href: str,
        selection: Selection | None = None,
        *,
        access: Access | None = None,
    ) -> None:
        """Open a raster.

        Args:
            href: `file:///…`, an http(s) URL, or a path.
            selection: The bands and the window to use; None for all.
            access: How a service opens it; None to open it as the user of this process may: with
                the files of `side_files`, by the drivers of `allowed_drivers`.

        Raises:
            RasterUnreadable: the file is missing, empty, corrupt, or in another format; or a file
                beside it is.
        """
        self.href = href
        self.selection = selection or Selection()
        with ExitStack() as stack:
            self._dataset = self._facts = (
                opened_stack(href, _part)
                if stacked_bands(href) and access is None
                else opened(href, DRIVERS if access else allowed_drivers(), access)
            )
            self._is_usual = self._dataset.driver in DRIVERS or bool(stacked_bands(href))
            self._is_fetched = access is not None and access.opener is not None
            # Not as a context manager, which has GDAL's settings of this thread until it ends:
            # another thread may close it.
            stack.callback(self._dataset.close)
            path = local_path(href)
            files = dict(access.beside if access else side_files(path) if path else {})
            mask = files.pop(mask_name(path.name), None) if path else None
            if files and path is not None:
                self._facts = dataset_of_facts(self._dataset, path.name, files, stack)
            # As GDAL decides: a mask or an alpha band of the raster itself counts before the file.
            is_marked = stated_validity(self._dataset) in ("mask", "alpha")
            self._mask = None if is_marked or mask is None else opened_mask(mask, self._dataset)
            self._stack = stack.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the raster; a second call does nothing."""
        self._stack.close()
        if self._mask is not None:
            self._mask.close()

    def select(self, reference: ImageReference) -> None:
        """Use the bands and the window of a reference from now on.

        Raises:
            InvalidInput: the window is not inside the raster; a band does not exist, or its name
                is that of two bands.
        """
        dataset, bands, names = self._facts, reference.bands, None
        whole = Window(0, 0, dataset.width, dataset.height)
        if reference.window is not None:
            _require_inside(reference.window, whole, self.href)
        if isinstance(bands, dict):
            names, bands = tuple(bands), tuple(bands.values())
        numbers = bands and band_numbers(dataset.descriptions, bands, href=self.href)
        self.selection = Selection(bands=numbers, names=names, window=reference.window)

    @property
    def grid(self) -> CellGrid:
        """The cells of the file, over the window that is used."""
        height, width = self._dataset.block_shapes[0]
        return CellGrid.of((width, height), self._window)

    @property
    def _numbers(self) -> tuple[int, ...]:
        """The raster's numbers of the bands that are used."""
        return self.selection.bands or tuple(self._dataset.indexes)

    @property
    def _bands(self) -> tuple[str | None, ...]:
        """Names of the bands that are used; None for a band without one."""
        described = self._facts.descriptions
        return self.selection.names or tuple(described[number - 1] for number in self._numbers)

    @property
    def _window(self) -> Window:
        """The window that is used."""
        dataset = self._dataset
        return self.selection.window or Window(0, 0, dataset.width, dataset.height)

    def scene(self, *, identity: str = "") -> Scene:
        """Return the facts of the raster.

        Args:
            identity: The identity that it had before it was opened.

        Raises:
            RasterUnreadable: the bands have different dtypes, or one that is not numeric.
        """
        dataset, numbers, window = self._facts, self._numbers, self._window
        height, width = self._dataset.block_shapes[0]
        transform = None if dataset.transform.is_identity else tuple(dataset.transform)[:6]
        return Scene(
            href=self.href,
            identity=identity,
            width=window.width,
            height=window.height,
            bands=self._bands,
            dtype=dtype_of(self._dataset, self.href, numbers),
            nodata=dataset.nodatavals[numbers[0] - 1],
            crs=crs_text(dataset.crs),
            has_points=bool(dataset.gcps[0] or dataset.rpcs),
            transform=transform and shifted(transform, *window[:2]),
            block=(width, height),
            tags=dataset.tags(),
            validity="mask" if self._mask else stated_validity(self._dataset, dataset),
            selection=None if self.selection == Selection() else self.selection,
            values=values_of(self.bands(), self.href),
            driver="" if self._is_usual else self._dataset.driver,
        )

    def mask(self, window: Window) -> np.ndarray | None:
        """Read the mask in the raster or beside it, or its alpha band, as a bool array (row, col).

        Returns:
            True for a valid pixel; None for a raster with neither.

        Raises:
            RasterUnreadable: a block of the window is truncated or corrupt.
            Unreachable: the server of the raster is away.
        """
        try:
            moved = self.selection.moved(window)
            if self._mask is None:
                return self._patiently(lambda: dataset_mask(self._dataset, moved))
            marks: np.ndarray = self._mask.read(window=RasterioWindow(*moved))
            return np.asarray(marks.any(axis=0))
        except RasterioError as error:
            raise RasterUnreadable(
                f"the mask of {self.href} cannot be read at window {list(window)}: "
                f"{reason_of_gdal(error)}"
            ) from error

    @property
    def georeference(self) -> Georeference:
        """Position of the raster, and its dataset tags."""
        return read_georeference(self._facts).moved(*self._window[:2])

    def bands(self, numbers: Sequence[int] | None = None) -> tuple[BandFacts, ...]:
        """Return the facts of bands by 1-based number; None for all."""
        chosen = [self._numbers[number - 1] for number in numbers] if numbers else self._numbers
        return read_bands(self._facts, chosen)

    @property
    def overviews(self) -> tuple[int, ...]:
        """Factors of its overviews, for example (2, 4, 8); empty without overviews."""
        return tuple(self._dataset.overviews(1))

    def read(
        self,
        window: Window,
        *,
        bands: Sequence[int] | None = None,
        shape: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Read a window as an array (band, row, col).

        Args:
            window: A window inside the raster, pixels.
            bands: 1-based band numbers in the order wanted; None for all.
            shape: Rows and columns of a smaller array to read, nearest pixels of an overview; None
                for all pixels.

        Raises:
            RasterUnreadable: a block of the window is truncated or corrupt.
            Unreachable: the server of the raster is away.
        """
        numbers, moved = self.selection.numbers(bands), self.selection.moved(window)
        indexes = list(self._dataset.indexes if numbers is None else numbers)
        try:
            pixels: np.ndarray = self._patiently(
                lambda: self._dataset.read(
                    indexes,
                    window=RasterioWindow(*moved),
                    out_shape=shape and (len(indexes), *shape),
                ),
            )
        except RasterioError as error:
            raise RasterUnreadable(
                f"{self.href} cannot be read at window {list(window)}: {reason_of_gdal(error)}; "
                "is it truncated or still being written?"
            ) from error
        return pixels

    def _patiently(self, read: Callable[[], T]) -> T:
        return read() if self._is_fetched else patiently(files_of(self.href)[0], read)

    def image(
        self, window: Window | None = None, *, bands: Sequence[int | str] | None = None
    ) -> Image:
        """Read a window with its georeference.

        Raises:
            InvalidInput: the window is not inside the raster, or a band does not exist.
            RasterUnreadable: the pixels cannot be read.
        """
        whole = self._window._replace(col_off=0, row_off=0)
        window = window or whole
        _require_inside(window, whole, self.href)
        picked = band_numbers(self._bands, bands, href=self.href)
        pixels = self.read(window, bands=picked)
        numbers = [self._numbers[each - 1] for each in picked]
        offsets = self.selection.moved(window)[:2]
        found = image_of(self._facts, pixels, numbers=numbers, offsets=offsets)
        names = tuple(self._bands[each - 1] for each in picked)
        return replace(found, bands=names, mask=self.mask(window))


def read_image(
    image: str | ImageReference,
    *,
    window: Window | None = None,
    bands: Sequence[int | str] | None = None,
) -> Image:
    """Read a window of a raster, by default the whole raster.

    Args:
        image: The href of the raster, or a reference to a part that counts as the whole.
        window: The pixels to read.
        bands: Names or 1-based numbers, in the order wanted.

    Raises:
        InvalidInput: the window is not inside the raster, or a band does not exist.
        RasterUnreadable: the file is missing, empty, corrupt, truncated, or in another format.
    """
    with raster_settings(), _reader_of(image) as reader:
        return reader.image(window, bands=bands)


def read_for(
    image: str | ImageReference,
    contract: RasterContract | None,
    *,
    pick_window: Callable[[int, int], Window] | None = None,
    bounds: Bounds = UNBOUNDED,
    access: Access | None = None,
) -> Image:
    """Read a raster as a port receives it: its bands in order, physical values if `scaled`.

    Args:
        image: The href of the raster, or a reference to bands and a window of it.
        contract: The raster contract of the port.
        pick_window: Called with width and height if the reference has no window.
        bounds: Maximum size of the window.
        access: How it is opened, as of `RasterReader`.

    Raises:
        InvalidInput: the window is not inside the raster, a band does not exist, or the port names
            its bands and those of the raster have other names or none.
        RasterUnreadable: the raster cannot be read.
        TooLarge: the window exceeds the bounds.
    """
    with raster_settings(), _reader_of(image, access=access) as reader:
        scene = reader.scene()
        wanted = picked_numbers(scene, contract)
        window = None
        if reader.selection.window is None and pick_window is not None:
            window = pick_window(scene.width, scene.height)
        width, height = (scene.width, scene.height) if window is None else window[2:]
        count = len(scene.bands if wanted is None else wanted)
        bounds.require((count, height, width), scene.dtype)
        found = reader.image(window, bands=wanted)
        return scaled_image(found) if contract is not None and contract.scaled else found


def read_scene(image: str | ImageReference) -> Scene:
    """Read the facts and the identity of a raster, without its pixels.

    Args:
        image: The href of the raster, or a reference to a part that counts as the whole.

    Raises:
        InvalidInput: a band or the window of the reference does not exist.
        RasterUnreadable: the file is missing, empty, corrupt, or in another format or dtype.
    """
    identity = identity_of(image if isinstance(image, str) else image.href)
    with raster_settings(), _reader_of(image) as reader:
        scene = reader.scene(identity=identity)
    return scene.model_copy(update={"unread": unread_files(scene)})


def open_file(path: AnyPath) -> DatasetReader:
    """Open a product with rasterio alone, for a caller that reads it further on its own."""
    with raster_settings():
        return rasterio.open(str(path))


def _part(href: str) -> tuple[Scene, str]:
    with RasterReader(href) as reader:
        return reader.scene(), str(reader._dataset.files[0])


@contextmanager
def _reader_of(
    image: str | ImageReference,
    *,
    access: Access | None = None,
) -> Iterator[RasterReader]:
    """Open a raster, and select the bands and the window of its reference."""
    href = image if isinstance(image, str) else image.href
    with RasterReader(href, access=access) as reader:
        if isinstance(image, ImageReference):
            reader.select(image)
        yield reader


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
    place, facts = read_georeference(dataset).moved(*offsets), read_bands(dataset, numbers)
    return Image.of_facts(pixels, place, facts, nodata=dataset.nodatavals[numbers[0] - 1])


def _require_inside(window: Window, whole: Window, href: str) -> None:
    if not whole.contains(window):
        raise InvalidInput(
            f"window {list(window)} is not inside {href}, "
            f"which is {whole.width} x {whole.height} (width x height)"
        )

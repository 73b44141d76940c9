"""Open rasters, by the drivers that are allowed.

Only the drivers of `DRIVERS` are used, and those that the user of this process allows: a format
that can refer to other files (VRT) is not one of them. A service uses only `DRIVERS`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import rasterio
from rasterio.errors import RasterioError

from pesto_runtime.contract import NUMERIC_DTYPES
from pesto_runtime.errors import RasterUnreadable, shortened
from pesto_runtime.raster.identity import local_path
from pesto_runtime.remote import answers_ranges, gdal_authorization, has_server, require_reachable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from rasterio.io import DatasetReader

DRIVERS = ("GTiff", "PNG", "JPEG", "JP2OpenJPEG")
OPENED_NAME = "raster"
"""Name with which an opener is called for the raster itself."""
_ATTEMPTS = 3
_DENIED = re.compile(r"\b40[13]\b|Access ?Denied|InvalidAccessKeyId|SignatureDoesNotMatch")
"""In messages of GDAL about a server that refuses credentials, or has none."""
T = TypeVar("T")
_SYSTEMS = {"s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
_READ_AS = {"complex_int16": "complex64"}
"""GDAL's dtypes that numpy does not have -> the dtype of the array that rasterio reads."""


def allowed_drivers() -> tuple[str, ...]:
    """Return the drivers that the user of this process allows: `DRIVERS`, and `PESTO_DRIVERS`."""
    further = os.environ.get("PESTO_DRIVERS", "").split(",")
    return (*DRIVERS, *(each.strip() for each in further if each.strip()))


@dataclass(frozen=True)
class Access:
    """How a service opens a raster for a caller: by `DRIVERS`, and nothing else beside it.

    Attributes:
        beside: Name -> path of the files beside it whose facts count.
        opener: Opens it in place of GDAL, which then reads nothing from a network: called with
            `OPENED_NAME` or the name of a file beside it, and `mode`; returns a file.
    """

    beside: Mapping[str, Path]
    opener: Callable[..., object] | None = None

    def gdal_settings(self, href: str) -> dict[str, str]:
        """Return GDAL's settings by which it opens no other remote file than the raster."""
        scheme, _, name = href.partition("://")
        system = None if self.opener else _SYSTEMS.get(scheme)
        return {"CPL_VSIL_CURL_ALLOWED_FILENAME": system + name if system else "-"}


def opened(href: str, drivers: tuple[str, ...], access: Access | None = None) -> DatasetReader:
    """Open a raster by one of these drivers.

    Raises:
        RasterUnreadable: the file is missing, empty, corrupt, or in another format.
        Unreachable: its server is away.
    """
    path = local_path(href)
    if path is not None:
        _require_file(path, href)
    settings = gdal_authorization(href) if path is None else {}
    if access is not None:
        settings |= access.gdal_settings(href)
        if access.opener is not None:
            return _opened_through(access.opener, href, drivers, settings)
    return _opened_by_gdal(href, path, drivers, settings)


def _opened_by_gdal(
    href: str, path: Path | None, drivers: tuple[str, ...], settings: Mapping[str, str]
) -> DatasetReader:
    reasons: list[str] = []
    for driver in drivers:
        try:
            with rasterio.Env(**settings):
                if path is None and not reasons:  # each driver would wait for its server
                    return patiently(href, partial(rasterio.open, href, driver=driver))
                return rasterio.open(href if path is None else path, driver=driver)
        except RasterioError as error:
            reasons.append(reason_of_gdal(error))
        if path is None and _DENIED.search(reasons[-1]):
            raise RasterUnreadable(
                f"{href}: permission denied ({reasons[-1]}): check the credentials "
                "(docs/how-to/credentials.md)"
            )
    if path is None and not answers_ranges(href):
        raise RasterUnreadable(
            f"{href} cannot be read in parts: its server does not answer range requests (RFC 9110, "
            "section 14); download it, and give the file"
        )
    raise RasterUnreadable(
        f"{href} is not a raster that can be read ({', '.join(drivers)}): {reasons[0]}; a command "
        "takes further formats by --driver, a worker by PESTO_DRIVERS"
    )


def _require_file(path: Path, href: str) -> None:
    # Not Path.exists, which raises for long names. A pipe or a device would be read for ever.
    if not os.path.exists(path):  # noqa: PTH110
        raise RasterUnreadable(f"{href} does not exist")
    if not path.is_file():
        kind = "a folder" if path.is_dir() else "a device, a pipe or a socket"
        raise RasterUnreadable(f"{href} is not a file but {kind}")
    if path.stat().st_size == 0:
        raise RasterUnreadable(f"{href} is empty (0 bytes)")


def _opened_through(
    opener: Callable[..., object], href: str, drivers: tuple[str, ...], settings: Mapping[str, str]
) -> DatasetReader:
    reasons: list[str] = []
    for driver in drivers:
        try:
            with rasterio.Env(**settings):
                return rasterio.open(OPENED_NAME, driver=driver, opener=opener)
        except RasterioError as error:
            reasons.append(reason_of_gdal(error))
    raise RasterUnreadable(
        f"{shortened(href)} is not a raster that can be read ({', '.join(drivers)}): {reasons[0]}"
    )


def patiently(href: str, read: Callable[[], T]) -> T:
    """Read of a raster; up to three times if it is remote, once its server responds.

    GDAL repeats requests with the responses 429 and 5xx, but none that had no response.

    Raises:
        RasterioError: it cannot be read.
        Unreachable: its server is away for longer than the patience.
    """
    for _ in range(_ATTEMPTS - 1 if has_server(href) else 0):
        try:
            return read()
        except RasterioError:
            require_reachable(href)
    return read()


def opened_mask(path: Path, dataset: DatasetReader) -> DatasetReader:
    """Open the file beside a raster that has its mask; any value but 0 marks a valid pixel.

    Raises:
        RasterUnreadable: it is corrupt, or of another size than the raster.
    """
    mask = opened(str(path), DRIVERS)
    if mask.shape != dataset.shape:
        mask.close()
        raise RasterUnreadable(
            f"the mask {path} has {mask.width} x {mask.height} pixels, and its raster has "
            f"{dataset.width} x {dataset.height}: correct or remove it"
        )
    return mask


def reason_of_gdal(error: BaseException) -> str:
    """Return GDAL's own message of an error of rasterio."""
    cause = error.__cause__ or error
    return shortened(str(cause)).strip("'\"")


def dtype_of(dataset: DatasetReader, name: str, numbers: Sequence[int] | None = None) -> str:
    """Return the dtype of an open raster's pixels; integer pairs (CInt16) are read as complex64.

    Args:
        dataset: The raster.
        name: Its name, for messages.
        numbers: 1-based numbers of the bands that are used; None for all.

    Raises:
        RasterUnreadable: the bands have different dtypes, or one that is not numeric.
    """
    used = [dataset.dtypes[number - 1] for number in numbers or dataset.indexes]
    dtypes = sorted({_READ_AS.get(each, each) for each in used})
    if len(dtypes) != 1 or dtypes[0] not in NUMERIC_DTYPES:
        raise RasterUnreadable(
            f"{name} has bands of dtype {', '.join(dtypes)}; "
            f"all bands must have one of {', '.join(NUMERIC_DTYPES)}"
        )
    return str(dtypes[0])

"""Images to bytes and back: what survives, and what is refused."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.io import MemoryFile

from pesto_runtime.contract import NUMERIC_DTYPES
from pesto_runtime.errors import InvalidInput, RasterUnreadable, TooLarge, UnsupportedMedia
from pesto_runtime.raster.codec import decode_image, encode_image
from pesto_runtime.raster.image import Bounds, Image
from pesto_runtime.raster.picking import taken_for

if TYPE_CHECKING:
    from pathlib import Path

TIFF, PNG, NPY = "image/tiff", "image/png", "application/x-npy"
SHAPES = st.tuples(st.integers(1, 5), st.integers(1, 9), st.integers(1, 9))


def image_of(dtype: str, *, nodata: float | None = 5) -> Image:
    """Two bands with everything that an image can know."""
    pixels = np.random.default_rng(1).integers(0, 100, (2, 6, 7)).astype(dtype)
    return Image(
        pixels,
        crs="EPSG:32616",
        transform=(30.0, 0.0, 5.0, 0.0, -30.0, 7.0),
        nodata=nodata,
        bands=("red", None),
        scales=(2.0, 1.0),
        offsets=(0.0, -3.5),
        tags={"SENSOR": "OLI"},
    )


@pytest.mark.parametrize("dtype", NUMERIC_DTYPES)
def test_a_geotiff_keeps_everything_for_every_dtype(dtype: str) -> None:
    """Pixels, CRS, transform, nodata, names, scales, offsets and tags come back as they were."""
    image = image_of(dtype)
    back = decode_image(encode_image(image, TIFF))
    assert back.pixels.dtype == image.pixels.dtype
    assert np.array_equal(back.pixels, image.pixels)
    assert (back.crs, back.transform, back.nodata) == (image.crs, image.transform, image.nodata)
    assert (back.bands, back.scales, back.offsets) == (image.bands, image.scales, image.offsets)
    assert back.tags.items() >= image.tags.items()


def test_a_geotiff_claims_nothing_that_was_not_known() -> None:
    """Control: bare pixels come back without a place, nodata or names."""
    back = decode_image(encode_image(Image(np.ones((1, 2, 3), np.uint8)), TIFF))
    assert (back.crs, back.transform, back.nodata, back.bands) == (None, None, None, (None,))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.sampled_from(NUMERIC_DTYPES).flatmap(lambda d: hnp.arrays(d, SHAPES)))
def test_no_pixel_changes_in_npy_or_geotiff(pixels: np.ndarray) -> None:
    """Any value of any dtype survives bit for bit, not-a-number and infinities too."""
    for media_type in (TIFF, NPY):
        back = decode_image(encode_image(Image(pixels), media_type)).pixels
        assert back.dtype == pixels.dtype
        assert back.tobytes() == pixels.tobytes()


def test_not_a_number_is_a_nodata() -> None:
    """A float image with nodata NaN keeps it."""
    back = decode_image(encode_image(image_of("float32", nodata=float("nan")), TIFF))
    assert back.nodata is not None
    assert np.isnan(back.nodata)


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_keeps_pixels_of_up_to_four_bands(bands: int, dtype: str) -> None:
    """8 and 16 bits, lossless."""
    pixels = np.arange(bands * 6, dtype=dtype).reshape(bands, 2, 3)
    assert np.array_equal(decode_image(encode_image(Image(pixels), PNG)).pixels, pixels)


@pytest.mark.parametrize(("bands", "dtype"), [(5, "uint8"), (1, "int16"), (1, "float32")])
def test_png_refuses_what_it_would_change(bands: int, dtype: str) -> None:
    """Never a silent cast; the message says what to ask for."""
    with pytest.raises(InvalidInput, match="request image/tiff"):
        encode_image(Image(np.zeros((bands, 2, 2), dtype)), PNG)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (Image(np.zeros((2, 2))), "band, row, col"),
        (Image(np.zeros((1, 0, 2))), "at least one pixel"),
        (Image(np.zeros((1, 2, 2), bool)), "dtype bool"),
        (Image(np.zeros((1, 2, 2), np.uint8), nodata=-1), "beyond the valid range"),
        (Image(np.zeros((1, 2, 2), np.uint64), nodata=2**64 - 1), "exactly"),
        (Image(np.zeros((1, 2, 2), np.uint8), crs="EPSG:nonsense"), "cannot be written"),
    ],
)
def test_an_image_that_a_file_cannot_hold_is_refused(image: Image, reason: str) -> None:
    """Wrong axes, no pixels, dtypes and nodata that would come back another."""
    with pytest.raises(InvalidInput, match=reason):
        encode_image(image, TIFF)


def test_an_unknown_media_type_is_refused_with_those_that_are_known() -> None:
    """JPEG is read, never written: it loses."""
    with pytest.raises(UnsupportedMedia, match=TIFF):
        encode_image(image_of("uint8"), "image/jpeg")


def jpeg() -> bytes:
    """A real JPEG."""
    pixels = np.random.default_rng(1).integers(0, 255, (3, 64, 64)).astype(np.uint8)
    with MemoryFile() as memory:
        with memory.open(driver="JPEG", width=64, height=64, count=3, dtype="uint8") as dataset:
            dataset.write(pixels)
        return bytes(memory.getbuffer())


def noise() -> Image:
    """Pixels that do not compress, so that every byte of a file matters."""
    pixels = np.random.default_rng(1).integers(0, 65535, (3, 64, 64)).astype(np.uint16)
    return Image(pixels)


@pytest.mark.parametrize("kind", [TIFF, PNG, NPY, "image/jpeg"])
def test_a_truncated_file_is_never_half_an_image(kind: str) -> None:
    """Wherever the bytes end early there is an error, never grey pixels; whole ones are read."""
    data = jpeg() if kind == "image/jpeg" else encode_image(noise(), kind)
    assert decode_image(data).pixels.shape == (3, 64, 64)
    for end in (0, 1, 5, 20, 100, len(data) // 2, len(data) - 40):
        with pytest.raises(RasterUnreadable):
            decode_image(data[:end])


@pytest.mark.parametrize(
    "data",
    [
        b"hello, this is not an image",
        b'<VRTDataset rasterXSize="1" rasterYSize="1"/>',
        b"\x93NUMPY garbage",
        b"GIF89a\x01\x00\x01\x00\x00\x00\x00;",
    ],
)
def test_other_bytes_are_no_image(data: bytes) -> None:
    """Text, a VRT, formats outside the list: refused, and no name of our memory files leaks."""
    with pytest.raises(RasterUnreadable) as caught:
        decode_image(data)
    assert "vsimem" not in str(caught.value)


def test_a_vrt_inside_bytes_opens_no_file(tmp_path: Path) -> None:
    """A VRT names other files; as bytes it stays unread, though GDAL itself would follow it."""
    target = tmp_path / "secret.tif"
    target.write_bytes(encode_image(image_of("uint8"), TIFF))
    vrt = (
        '<VRTDataset rasterXSize="7" rasterYSize="6"><VRTRasterBand dataType="Byte" band="1">'
        f"<SimpleSource><SourceFilename>{target}</SourceFilename><SourceBand>1</SourceBand>"
        "</SimpleSource></VRTRasterBand></VRTDataset>"
    ).encode()
    with MemoryFile(vrt) as memory, memory.open() as dataset:  # the control: GDAL reads it
        assert dataset.read(1).any()
    with pytest.raises(RasterUnreadable):
        decode_image(vrt)


def test_npy_with_objects_is_never_unpickled() -> None:
    """A pickle inside .npy could run code."""
    file = io.BytesIO()
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(RasterUnreadable):
        decode_image(file.getvalue())


@pytest.mark.parametrize("array", [np.zeros(3), np.zeros((1, 1, 1, 1)), np.zeros((1, 2, 2), "U3")])
def test_npy_of_something_else_is_no_image(array: np.ndarray) -> None:
    """Axes and dtype are looked at."""
    file = io.BytesIO()
    np.save(file, array)
    with pytest.raises(RasterUnreadable, match="band, row, col"):
        decode_image(file.getvalue())


def test_npy_in_another_byte_or_axis_order_is_the_same_image() -> None:
    """Big-endian and column-major arrays become native and C-contiguous."""
    pixels = np.arange(24, dtype=np.int32).reshape(2, 3, 4)
    for other in (pixels.astype(">i4"), np.asfortranarray(pixels)):
        file = io.BytesIO()
        np.save(file, other)
        back = decode_image(file.getvalue(), media_type=NPY).pixels
        assert np.array_equal(back, pixels)
        assert back.flags.c_contiguous
        assert back.dtype.isnative


def test_bytes_sent_as_npy_must_be_npy() -> None:
    """A TIFF under that media type is a mistake of the sender's."""
    with pytest.raises(RasterUnreadable, match=r"not a \.npy"):
        decode_image(encode_image(image_of("uint8"), TIFF), media_type=NPY)


def test_a_small_file_of_a_huge_image_is_refused_before_it_is_decoded() -> None:
    """16384 x 16384 zeros take a few kB as a file; the limit is on pixels."""
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff", width=16384, height=16384, count=1, dtype="uint8", sparse_ok=True
        ):
            pass
        data = bytes(memory.getbuffer())
    with pytest.raises(TooLarge, match="268435456 bytes decoded; at most 1000000 bytes"):
        decode_image(data, bounds=Bounds(byte_count=1_000_000))


@pytest.mark.parametrize("media_type", [TIFF, NPY])
def test_bands_are_picked_by_number(media_type: str) -> None:
    """1-based, in the order asked for."""
    image = image_of("uint8")
    back = decode_image(encode_image(image, media_type), bands=[2, 1])
    assert np.array_equal(back.pixels, image.pixels[::-1])
    with pytest.raises(InvalidInput, match="no band 3"):
        decode_image(encode_image(image, media_type), bands=[3])


def test_a_nameless_image_is_taken_as_it_is_and_a_named_one_is_picked() -> None:
    """A port's names pick bands of an image that names its own, else they say nothing."""
    from pesto_runtime.contract import RasterContract

    contract = RasterContract(bands=("red",))
    named, nameless = image_of("uint8"), Image(np.zeros((2, 2, 2), np.uint8), bands=(None, None))
    assert taken_for(named, contract).pixels.shape[0] == 1
    assert taken_for(named, contract).scales == (2.0,)
    assert taken_for(nameless, contract) is nameless
    with pytest.raises(InvalidInput, match="nir"):
        taken_for(named, RasterContract(bands=("nir",)))


def test_gdal_reads_what_is_written(tmp_path: Path) -> None:
    """A file of ours is an ordinary GeoTIFF to anyone."""
    path = tmp_path / "a.tif"
    path.write_bytes(encode_image(image_of("int16"), TIFF))
    with rasterio.open(path) as dataset:
        assert (dataset.driver, dataset.crs.to_epsg(), dataset.nodata) == ("GTiff", 32616, 5)
        assert dataset.descriptions == ("red", None)

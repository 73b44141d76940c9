"""Cloud mask of a Landsat 8 scene, from published thresholds on three colours and one infrared."""

from typing import Annotated

import numpy as np

from pesto_runtime import Raster, TileInfo, process

NODATA = 255
DARKEST, MOST_COLOURED, FEWEST = 0.03, 0.7, 7


def reflectance(numbers: np.ndarray) -> np.ndarray:
    """Top-of-atmosphere reflectance of Landsat 8 digital numbers, sun angle not removed."""
    return 2.0e-5 * numbers - 0.1


def count_5x5(flags: np.ndarray) -> np.ndarray:
    """How many pixels of the 5 x 5 around each (row, col) are set; none lie beyond the array."""
    rows, cols = flags.shape
    padded = np.pad(flags, 2).astype(np.uint8)
    down = sum((padded[shift : shift + rows] for shift in range(1, 5)), padded[:rows])
    return sum((down[:, shift : shift + cols] for shift in range(1, 5)), down[:, :cols])


@process(version="1.0.0", margin=2, releases_gil=True)
def cloud_mask(
    scene: Annotated[np.ndarray, Raster(bands=["blue", "green", "red", "swir22"], dtype="uint16")],
    tile: TileInfo,
    threshold: Annotated[float, "haze-optimised transform above which a pixel is cloud"] = 0.0,
) -> Annotated[np.ndarray, Raster(name="cloud", bands=["cloud"], dtype="uint8", nodata=NODATA)]:
    """Flag clouds in Landsat 8 digital numbers: 1 cloud, 0 clear, 255 no data.

    A pixel is cloud where its haze-optimised transform, blue - 0.5 red - 0.08, is above the
    threshold (Zhang, Guindon and Cihlar 2002, Remote Sensing of Environment 82, 173-187), where it
    is white (whiteness below 0.7) and bright in band 7 (above 0.03), as Zhu and Woodcock (2012,
    Remote Sensing of Environment 118, 83-94) ask. It stays so where 7 of its 5 x 5 are cloudy.
    """
    blue, green, red, swir22 = reflectance(scene)
    mean = (blue + green + red) / 3
    spread = abs(blue - mean) + abs(green - mean) + abs(red - mean)
    white = spread < MOST_COLOURED * mean
    hazy = blue - 0.5 * red - 0.08 > threshold
    cloudy = hazy & white & (swir22 > DARKEST)
    cloudy &= count_5x5(cloudy) >= FEWEST
    empty = (scene == (0 if tile.nodata is None else tile.nodata)).all(axis=0)
    return np.where(empty, NODATA, cloudy).astype(np.uint8)[np.newaxis]

"""Boxes around the clouds of a mask: a detection, answered as GeoJSON in pixels of the window."""

from typing import Annotated

import numpy as np

from pesto_runtime import Raster, TileInfo, Vector, process

CLOUD = 1
LARGEST = 64
REACH = LARGEST // 2 + 1


def labelled(cloudy: np.ndarray) -> np.ndarray:
    """Number the components of flags (row, col) by their first pixel; corners touch, -1 is none."""
    rows, cols = cloudy.shape
    labels = np.where(cloudy, np.arange(cloudy.size).reshape(cloudy.shape), cloudy.size)
    while True:
        padded = np.pad(labels, 1, constant_values=cloudy.size)
        around = [padded[y : y + rows, x : x + cols] for y in range(3) for x in range(3)]
        smallest = np.where(cloudy, np.minimum.reduce(around), cloudy.size)
        smallest = np.append(smallest, cloudy.size)[smallest]  # the label's own label: far ahead
        if np.array_equal(smallest, labels):
            return np.where(cloudy, labels, -1)
        labels = smallest


def feature(low: list[int], high: list[int], pixels: int) -> dict[str, object]:
    """A box between two corners (x, y) as GeoJSON."""
    (x0, y0), (x1, y1) = low, high
    ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
    box = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": box, "properties": {"pixels": pixels}}


@process(version="1.0.0", margin=REACH)
def cloud_boxes(
    mask: Annotated[np.ndarray, Raster(bands=["cloud"], dtype="uint8", nodata=255)],
    tile: TileInfo,
) -> Annotated[dict[str, object], Vector(name="boxes", geometry="Polygon")]:
    """Put a box around every cloud of at most 64 x 64 pixels, and count its pixels.

    A box belongs to the tile that holds its centre. From there it reaches 32 pixels, and a 33rd
    shows that the cloud ends: that is the margin. A cloud that touches a side of the window which
    is none of the scene's belongs to another tile, or is too large, and is left out: so tiles find
    what the whole scene shows. Objects that are larger than that cannot be found tile by tile.
    """
    cloudy, read = mask[0] == CLOUD, tile.read
    pixels = np.argwhere(cloudy)[:, ::-1]  # (x, y)
    labels, sizes = np.unique(labelled(cloudy)[cloudy], return_inverse=True, return_counts=True)[1:]
    low, high = np.full((sizes.size, 2), cloudy.size), np.zeros((sizes.size, 2), int)
    np.minimum.at(low, labels, pixels)
    np.maximum.at(high, labels, pixels + 1)
    beyond = np.subtract(tile.scene_size, [read.col_stop, read.row_stop])
    first, last = np.minimum(read[:2], 1), read[2:] - np.minimum(beyond, 1)
    kept = ((low >= first) & (high <= last) & (high - low <= LARGEST)).all(axis=1)
    found = zip(low[kept].tolist(), high[kept].tolist(), sizes[kept].tolist(), strict=True)
    features = [feature(corner, other, size) for corner, other, size in found]
    return {"type": "FeatureCollection", "features": features}

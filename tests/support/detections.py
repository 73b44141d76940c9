"""Processes that detect: they answer GeoJSON in pixels of the window that they were given."""

from pathlib import Path
from typing import Annotated, TypedDict

import numpy as np
from scipy import ndimage

from pesto_runtime import Named, Raster, Vector, process

Collection = dict[str, object]
Grey = Raster(bands=["grey"], dtype="uint8")
Boxes = Vector(name="boxes", geometry="Polygon")
BROKEN_VALUE = 250


def boxes_of(image: np.ndarray, scale: int = 1) -> Collection:
    """A box around every component of pixels above 0, corners touching."""
    labels, count = ndimage.label(image[0], np.ones((3, 3)))
    features = []
    for number, (rows, cols) in enumerate(ndimage.find_objects(labels), start=1):
        x0, x1, y0, y1 = (scale * n for n in (cols.start, cols.stop, rows.start, rows.stop))
        ring = [[x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]]
        size = int((labels[rows, cols] == number).sum())
        features.append(feature("Polygon", [ring], pixels=size))
    assert len(features) == count
    return {"type": "FeatureCollection", "features": features}


def feature(kind: str, coordinates: object, **properties: object) -> Collection:
    """A feature."""
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


@process(version="1", margin=5)
def boxes(image: Annotated[np.ndarray, Grey]) -> Annotated[Collection, Boxes]:
    """Boxes around objects of up to 9 x 9: 4 pixels from the centre, and one where it ends."""
    return boxes_of(image)


@process(version="1", margin=4)
def boxes_short(image: Annotated[np.ndarray, Grey]) -> Annotated[Collection, Boxes]:
    """The same by a contract that says a pixel less: a wrong one."""
    return boxes_of(image)


@process(version="1", tileable="whole")
def boxes_whole(image: Annotated[np.ndarray, Grey]) -> Annotated[Collection, Boxes]:
    """The same, of a process that takes no tiles."""
    return boxes_of(image)


@process(version="1")
def boxes_mirrored(
    image: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8", margin=12, edge="reflect")],
) -> Annotated[Collection, Boxes]:
    """The same, seeing a mirror beyond the scene, and so every object near its edge twice."""
    return boxes_of(image)


class Enlarged(TypedDict):
    """An image of twice the pixels, and the boxes in those."""

    image: Annotated[np.ndarray, Raster(bands=["grey"], dtype="uint8", scale=2)]
    boxes: Annotated[Collection, Vector()]


@process(version="1", margin=5)
def enlarged(image: Annotated[np.ndarray, Grey]) -> Enlarged:
    """Every pixel four times, and boxes in the grid of those."""
    return {
        "image": image.repeat(2, axis=1).repeat(2, axis=2),
        "boxes": boxes_of(image, scale=2),
    }


@process(version="1", margin=9)
def centres(
    image: Annotated[np.ndarray, Grey],
) -> Annotated[Collection, Vector(name="centres", geometry="Point")]:
    """Centres of mass of objects of up to 9 x 9; ratios that no float is."""
    labels, count = ndimage.label(image[0], np.ones((3, 3)))
    found = ndimage.center_of_mass(image[0] > 0, labels, range(1, count + 1)) if count else []
    features = [feature("Point", [x + 0.5, y + 0.5]) for y, x in found]
    return {"type": "FeatureCollection", "features": features}


@process(version="1", margin=5)
def boxes_fragile(
    image: Annotated[np.ndarray, Grey], broken: str = ""
) -> Annotated[Collection, Boxes]:
    """Boxes, but no answer where the image holds a value, as long as a file exists."""
    if (image == BROKEN_VALUE).any() and Path(broken).exists():
        raise ZeroDivisionError("float division by zero")
    return boxes_of(image)


@process(version="1", margin=0)
def no_features(image: Annotated[np.ndarray, Grey]) -> Annotated[Collection, Vector(name="boxes")]:
    """Answer something else."""
    return {"type": "Nothing", "shape": list(image.shape)}


@process(version="1")
def count(boxes: Annotated[dict[str, object], Vector()]) -> Annotated[int, Named("count")]:
    """How many features there are."""
    features = boxes["features"]
    assert isinstance(features, list)
    return len(features)


@process(version="1", margin=0)
def brighter_than_count(
    image: Annotated[np.ndarray, Grey], boxes: Annotated[dict[str, object], Vector()]
) -> Annotated[np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8", nodata=255)]:
    """1 where a pixel is above the number of features of the whole scene."""
    features = boxes["features"]
    assert isinstance(features, list)
    return (image > len(features)).astype(np.uint8)

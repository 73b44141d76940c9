"""The features of a call on a whole image, as a run over it would have written them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pesto_runtime.activities.features import WindowPlacement, read_features
from pesto_runtime.activities.geojson import collection_text, located
from pesto_runtime.pipeline import image_scale
from pesto_runtime.raster import rescaled
from pesto_runtime.tiling import scaled_size

if TYPE_CHECKING:
    from pydantic import JsonValue

    from pesto_runtime.contract import Description, Port
    from pesto_runtime.raster import Image


def whole_collection(description: Description, port: Port, value: JsonValue, image: Image) -> str:
    """A vector output as GeoJSON in the CRS of the image that it was found in.

    Raises:
        ContractBroken: it is no FeatureCollection of what the port says.
    """
    _, rows, cols = image.pixels.shape
    scale = image_scale(description)
    features = read_features(
        value,
        WindowPlacement(0, 0, scaled_size((cols, rows), scale)),
        geometries=port.vector.geometry if port.vector else (),
        name=f"output {port.name!r}",
    )
    place = image.transform and rescaled(image.transform, float(scale.x), float(scale.y))
    ordered = sorted(features, key=lambda each: (each.block, each))
    found = (located(json.loads(each.content), place) for each in ordered)
    return "".join(collection_text(found, crs=image.crs))

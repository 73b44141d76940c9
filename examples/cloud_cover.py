"""Cloud cover of a mask of any size: a reduce, block by block, that sees every pixel once."""

from typing import Annotated

import numpy as np

from pesto_runtime import Named, Raster, process
from pesto_runtime.errors import NothingValid

CLOUD, NODATA = 1, 255


def finish(partial: dict[str, int]) -> Annotated[float, Named("fraction")]:
    """Turn the counts of all blocks into the cloudy part of the valid pixels, 0 to 1."""
    if partial["valid"] == 0:
        raise NothingValid("cloud-cover: the mask has no valid pixel, so it has no cloud cover")
    return partial["cloudy"] / partial["valid"]


@process(version="1.0.0", reduce={"cloudy": "sum", "valid": "sum"}, finish=finish)
def cloud_cover(
    mask: Annotated[np.ndarray, Raster(bands=["cloud"], dtype="uint8", nodata=NODATA)],
) -> dict[str, int]:
    """Measure how much of a mask is cloud, of its valid pixels.

    A fraction of fractions would depend on the blocks; integer counts do not, whatever their order.
    """
    return {
        "cloudy": int(np.count_nonzero(mask == CLOUD)),
        "valid": int(np.count_nonzero(mask != NODATA)),
    }

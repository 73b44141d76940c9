"""Show where on Earth a run is: CRS, bounds, resolution, a scale bar, north, a locator."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from pesto_runtime.report.markup import fact_list, text

if TYPE_CHECKING:
    from pesto_runtime.raster.place import Box, Place

_LONGEST_BAR = 0.3  # of the width of a picture
_NORTH_IS_UP = 5.0  # degrees
_PLURALS = {
    "metre": "metres", "degree": "degrees", "foot": "feet", "US survey foot": "US survey feet",
}  # fmt: skip


def scale_bar(metres: float) -> tuple[str, float]:
    """Return the text of a scale bar, and its share of the width of a picture.

    >>> scale_bar(109_800.0)
    ('20 km', 0.18214936247723132)

    Args:
        metres: Width of the picture on the ground.
    """
    power = 10.0 ** math.floor(math.log10(metres * _LONGEST_BAR))
    length = max(step * power for step in (1, 2, 5) if step * power <= metres * _LONGEST_BAR)
    words = f"{length / 1000:g} km" if length >= 1000 else f"{length:g} m"
    return words, length / metres


def place_facts(place: Place, size: tuple[int, int]) -> str:
    """Return the place of a scene as a list of facts, with a locator.

    Args:
        place: The place.
        size: Width and height of the scene, pixels.
    """
    left, bottom, right, top = place.bounds
    digits = coordinate_digits(min(place.resolution))
    unit = _PLURALS.get(place.unit, place.unit)
    pairs = [("CRS", text(place.code or "without a code"), text(place.name))]
    x, y = (f"{each:.6g}" for each in place.resolution)
    pixel = x if x == y else f"{x} × {y}"
    pairs.append(("Pixel", f'<span class="whole">{pixel}</span> {text(unit)}', _on_ground(place)))
    if place.lonlat:
        west, south, east, north = place.lonlat
        both = _two(
            f"{degrees(west, 'EW')} to {degrees(east, 'EW')}",
            f"{degrees(south, 'NS')} to {degrees(north, 'NS')}",
        )
        pairs.append(("Longitude, latitude", both, ""))
    bounds = _two(
        f"x {left:.{digits}f} to {right:.{digits}f}", f"y {bottom:.{digits}f} to {top:.{digits}f}"
    )
    pairs.append((f"Bounds, {unit}" if unit else "Bounds", bounds, ""))
    if place.ground:
        width, height = (side * each for side, each in zip(size, place.ground, strict=True))
        pairs.append(("Extent", f'<span class="whole">{_length(width)} × {_length(height)}</span>',
                      f"north is {_direction(place.north)}"))  # fmt: skip
    locator = _locator(place.lonlat) if place.lonlat else ""
    return f'<div class="place">{fact_list(pairs)}{locator}</div>'


def _two(first: str, second: str) -> str:
    return f'<span class="whole">{text(first)}</span><br><span class="whole">{text(second)}</span>'


def _direction(north: float) -> str:
    if abs(north) < _NORTH_IS_UP:
        return "up"
    side = "right" if north > 0 else "left"
    return (
        f'<svg class="north" viewBox="-8 -8 16 16" role="img" aria-label="arrow to the north">'
        f'<path transform="rotate({north:.1f})" d="M0-7L4 6L0 3L-4 6z"/></svg> '
        f"{abs(north):.0f}° to the {side} of up"
    )


def coordinate_digits(pixel: float) -> int:
    """Return the digits after the point of a coordinate: a tenth of a pixel.

    >>> coordinate_digits(10.0), coordinate_digits(0.0001)
    (0, 5)
    """
    return max(0, min(8, 1 - math.floor(math.log10(pixel))))


def _on_ground(place: Place) -> str:
    if place.ground is None or place.unit == "metre":
        return ""
    x, y = place.ground
    return f"≈ {x:.3g} × {y:.3g} m on the ground"


def _length(metres: float) -> str:
    return f"{metres / 1000:.3g} km" if metres >= 1000 else f"{metres:.3g} m"


def degrees(value: float, sides: str) -> str:
    r"""Format a longitude (`EW`) or a latitude (`NS`).

    >>> print(degrees(-74.3051703, "EW").replace("\N{NO-BREAK SPACE}", "_"))
    74.3052°_W
    """
    return f"{abs(value):.4f}°\u00a0{sides[0] if value >= 0 else sides[1]}"


def _locator(lonlat: Box) -> str:
    """Draw the bounds on a grid of 30 degrees of the whole Earth."""
    west, south, east, north = lonlat
    lines = "".join(f"M{lon} -90V90" for lon in range(-180, 181, 30))
    lines += "".join(f"M-180 {lat}H180" for lat in range(-90, 91, 30))
    x, y = west, -north
    width, height = max(east - west, 0), north - south
    label = (
        f"Locator: {degrees(west, 'EW')} to {degrees(east, 'EW')}, {degrees(south, 'NS')} to "
        f"{degrees(north, 'NS')}"
    )
    return (
        f'<svg class="locator" role="img" aria-label="{label}" viewBox="-181 -91 362 182">'
        f'<path class="grid" d="{lines}"/><path class="axis" d="M-180 0H180M0 -90V90"/>'
        f'<rect x="{x:.3f}" y="{y:.3f}" width="{width:.3f}" height="{height:.3f}"/>'
        f'<circle cx="{x + width / 2:.3f}" cy="{y + height / 2:.3f}" r="5"/></svg>'
    )

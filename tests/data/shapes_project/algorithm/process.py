"""The process: tells what it was given, and measures its area."""

# mypy: ignore-errors
# PESTO projects carry no types.


class Process:
    """A PESTO process in keyword style."""

    def process(self, area, areas=None, place=None, factor=0.5, mode=None):
        """Measure."""
        (ring,) = area["coordinates"]
        twice = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in zip(ring, ring[1:], strict=False))
        given = {"factor": factor, "mode": mode, "place": place, "count": len(areas or [])}
        return {"surface": abs(twice) / 2 * factor, "given": given, "outline": area}

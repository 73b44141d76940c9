"""The process: tells what it was given, and measures its area."""

# mypy: ignore-errors
# PESTO projects carry no types.

from itertools import pairwise


class Process:
    """A PESTO process in keyword style."""

    def process(self, area, areas=None, place=None, factor=0.5, mode=None):
        """Measure."""
        (ring,) = area["coordinates"]
        twice = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring))
        given = {"factor": factor, "mode": mode, "place": place, "count": len(areas or [])}
        return {"surface": abs(twice) / 2 * factor, "given": given, "outline": area}

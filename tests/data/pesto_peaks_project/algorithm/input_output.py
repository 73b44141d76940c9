"""What the project takes and gives, in PESTO's dataclass style."""

# mypy: ignore-errors
# ruff: noqa: RUF009
# PESTO projects carry no types, and import modules that nobody installs.

from dataclasses import dataclass

import numpy as np
from pesto.cli.fields import Definition, definition


@dataclass
class Input:
    """Inputs."""

    image: np.ndarray = definition(Definition.Image, required=True, description="8-bit image")


@dataclass
class Output:
    """Outputs."""

    peaks: dict = definition(Definition.Metadata, description="GeoJSON, pixels of the image")

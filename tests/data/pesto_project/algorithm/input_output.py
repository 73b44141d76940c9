"""What the project takes and gives, in PESTO's dataclass style."""

# mypy: ignore-errors
# ruff: noqa: RUF009
# PESTO projects carry no types, and import modules that nobody installs.

from dataclasses import dataclass

import numpy as np
from pesto.cli.fields import Definition, definition, field, user_definition


@dataclass
class Input:
    """Inputs; `offset` has its default here, `gain` in the schema, `label` nowhere."""

    image: np.ndarray = definition(Definition.Image, required=True, description="8-bit image")
    gain: float = field("Factor", default=None)
    offset: int = field("Added after the factor", default=7)
    label: str = field("Free text", default=None)
    options: dict = definition(Definition.Metadata, default_factory=dict)


@dataclass
class Output:
    """Outputs."""

    image: np.ndarray = definition(Definition.Image, description="Brighter image")
    report: dict = user_definition("report")

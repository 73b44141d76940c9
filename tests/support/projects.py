"""A small PESTO project, written into a folder, with one recorded call."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Image

if TYPE_CHECKING:
    from pathlib import Path

CODE = '''
import numpy as np
from pesto.common.pesto import Pesto


class Process:
    def process(self, image, factor=2.0):
        """Scale an image, and count."""
        factor = 10.0 if Pesto.is_profile_active("big") else factor
        return {
            "image": (image * factor).astype(image.dtype),
            "images": [np.full((1, 2, 2), n, "uint8") for n in range(12)],
            "mean": float(image.mean()) * factor,
            "sizes": [int(each) for each in image.shape],
            "word": Pesto.get_profile(),
        }
'''
PIXELS = (np.arange(48, dtype=np.uint16) * 5).reshape(1, 6, 8)
PLACE = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0)


def scene(factor: int = 1) -> Image:
    """The image of the recorded call, or its result."""
    return Image(PIXELS * np.uint16(factor), crs="EPSG:32631", transform=PLACE, nodata=7)


def write_project(folder: Path) -> Path:
    """Write the project."""
    documents = {
        "api/description.json": {
            "title": "Scaled", "name": "scaled", "version": "1.2.0", "family": "test",
            "description": "Scale.", "organization": "o", "email": "e@example.org",
            "resources": {"cpu": 1, "gpu": 0, "ram": 1}, "asynchronous": False,
        },
        "api/description.big.json": {"resources": {"gpu": 1, "ram": 8}},
        "api/input_schema.json": {
            "image": {"$ref": "#/definitions/Image"},
            "factor": {"type": "number", "default": 2}, "required": ["image"],
        },
        "api/output_schema.json": {
            "image": {"$ref": "#/definitions/Image"}, "images": {"$ref": "#/definitions/Images"},
            "mean": {"type": "number", "maximum": 10_000},
            "sizes": {"type": "array", "items": {"type": "integer"}},
            "word": {"type": "string"}, "required": ["image", "mean"],
        },
        "build/build.json": {"name": "scaled", "version": "1.2.0"},
        "build/requirements.json": {"environments": {}, "requirements": {}},
    }  # fmt: skip
    for name, document in documents.items():
        path = folder / "pesto" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1))
    (folder / "algorithm").mkdir(exist_ok=True)
    (folder / "algorithm" / "process.py").write_text(CODE)
    (folder / "algorithm" / "__init__.py").write_text("")
    write_case(folder / "pesto" / "tests" / "resources" / "test_1")
    return folder


def write_case(folder: Path) -> None:
    """Write the recorded call with its right outputs."""
    for side in ("input", "output/images"):
        (folder / side).mkdir(parents=True)
    (folder / "input" / "image.tif").write_bytes(encode_image(scene(), "image/tiff"))
    (folder / "output" / "image.tif").write_bytes(encode_image(scene(2), "image/tiff"))
    (folder / "output" / "mean.float").write_text(str(2 * PIXELS.mean()))
    (folder / "output" / "sizes.json").write_text("[1, 6, 8]")
    (folder / "output" / "word.string").write_text("1.2.0")
    for number in range(12):
        data = encode_image(Image(np.full((1, 2, 2), number, np.uint8)), "image/png")
        (folder / "output" / "images" / f"{number}.png").write_bytes(data)

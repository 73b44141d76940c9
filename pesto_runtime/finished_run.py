"""Open what a run has written: products, values and the report of an output folder."""

from __future__ import annotations

import base64
import html
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, cast

from pesto_runtime.errors import InvalidInput, NotFound, PestoError
from pesto_runtime.places import place_of
from pesto_runtime.run.catalogs import read_document

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import xarray
    from pydantic import JsonValue
    from rasterio.io import DatasetReader

    from pesto_runtime.places import AnyPath

_PREVIEW_SIDE = 320


@dataclass(frozen=True)
class Run:
    """A finished run: the content of its output folder.

    Attributes:
        folder: The output folder, on this machine or in a bucket.
    """

    folder: AnyPath

    @classmethod
    def of(cls, folder: str | AnyPath) -> Run:
        """Return the run that has finished in a folder.

        Raises:
            NotFound: no run has finished there.
        """
        run = cls(place_of(folder).absolute())
        if not (run.folder / "result.json").is_file():
            raise NotFound(f"{run.folder} has no result.json: no run has finished there")
        return run

    @cached_property
    def result(self) -> Mapping[str, JsonValue]:
        """The content of `result.json`."""
        document = read_document(self.folder / "result.json")
        return document if isinstance(document, dict) else {}

    @property
    def status(self) -> str:
        """`COMPLETE`, or `PARTIAL` for a run with holes."""
        return str(self.result["status"])

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(self._outputs)

    @property
    def values(self) -> dict[str, JsonValue]:
        """The JSON outputs by name."""
        return {name: each["value"] for name, each in self._outputs.items() if "value" in each}

    @property
    def report(self) -> AnyPath:
        """The file of the report."""
        return self.folder / "report.html"

    def path(self, name: str) -> AnyPath:
        """Return the file of an output; a `RemotePath` in a bucket.

        Raises:
            InvalidInput: there is no such output.
        """
        if name not in self._outputs:
            raise InvalidInput(f"the run has no output {name!r}; it has {', '.join(self.outputs)}")
        return self.folder / str(self._outputs[name]["path"])

    def open(self, name: str) -> DatasetReader:
        """Open an image output as a rasterio dataset; close it, or use it in a `with` block.

        Raises:
            InvalidInput: there is no such output, or it is not an image.
        """
        from pesto_runtime.raster.read import open_file

        return open_file(self._image(name))

    def read(self, name: str) -> np.ndarray:
        """Read an image output as an array (band, row, col).

        Raises:
            InvalidInput: there is no such output, or it is not an image.
        """
        from pesto_runtime.raster.read import read_image

        return read_image(str(self._image(name))).pixels

    def to_xarray(self, name: str) -> xarray.DataArray:
        """Open an image output as a DataArray (band, y, x) with its CRS; pixels load when used.

        Requires rioxarray: `pip install 'pesto-workflows[xarray]'`.

        Raises:
            InvalidInput: there is no such output, it is not an image, or rioxarray is missing.
        """
        path = self._image(name)
        try:
            import rioxarray
        except ModuleNotFoundError as error:
            raise InvalidInput(
                "to_xarray needs rioxarray: pip install 'pesto-workflows[xarray]'"
            ) from error
        from pesto_runtime.raster.gdal import raster_settings

        with raster_settings():
            return cast("xarray.DataArray", rioxarray.open_rasterio(str(path)))

    def __repr__(self) -> str:
        lines = [f"Run {self.status} in {self.folder}"]
        lines += [f"  {name}: {self._fact(name)}" for name in self._outputs]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return a table of the outputs with small pictures, for notebooks."""
        rows = "".join(
            f"<tr><td>{html.escape(name)}</td><td>{html.escape(self._fact(name))}</td>"
            f"<td>{self._picture(name)}</td></tr>"
            for name in self._outputs
        )
        report = html.escape(self.report.as_uri(), quote=True)
        return (
            f"<div><b>{html.escape(self.status)}</b> in {html.escape(str(self.folder))}, "
            f'<a href="{report}">report</a><table>{rows}</table></div>'
        )

    @cached_property
    def _outputs(self) -> dict[str, dict[str, JsonValue]]:
        outputs = self.result.get("outputs")
        found = outputs.items() if isinstance(outputs, dict) else ()
        return {name: each for name, each in found if isinstance(each, dict)}

    def _image(self, name: str) -> AnyPath:
        path = self.path(name)
        if path.suffix != ".tif":
            raise InvalidInput(f"output {name!r} is not an image: it is in {path}")
        return path

    def _fact(self, name: str) -> str:
        output = self._outputs[name]
        return str(output["value"]) if "value" in output else str(self.path(name))

    def _picture(self, name: str) -> str:
        from pesto_runtime.raster.preview import read_preview

        path = self.path(name)
        if path.suffix != ".tif":
            return ""
        try:
            drawn = read_preview(str(path), max_side=_PREVIEW_SIDE)
        except PestoError:  # too large to draw here, or deleted since
            return "the report has its picture"
        data = base64.b64encode(drawn.data).decode()
        return (
            f'<img alt="{html.escape(name)}" src="data:{drawn.media_type};base64,{data}" '
            'style="image-rendering:pixelated;max-width:320px">'
        )

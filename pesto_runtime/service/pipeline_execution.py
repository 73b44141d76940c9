"""Perform a call of a pipeline that is served as a process: run it over whole scenes.

It blocks: a worker process runs it by the local engine, in a temporary folder. Images are read and
products are sent in pieces, so that memory does not grow with the scene.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pesto_runtime.client.multipart import FORM_TYPE, Part, write_parts
from pesto_runtime.client.transport import traced
from pesto_runtime.contract import IMAGE_KINDS
from pesto_runtime.engines import RunRequest
from pesto_runtime.errors import (
    InvalidInput,
    PestoError,
    RunFailed,
    UnsupportedMedia,
)
from pesto_runtime.finished_run import Run
from pesto_runtime.hrefs import file_href
from pesto_runtime.processor.protocol import current_listener, listening
from pesto_runtime.run.costs import run_cost
from pesto_runtime.run.local import engine, sizing_of
from pesto_runtime.run.pipeline_inputs import read_inputs
from pesto_runtime.run.planning import count_tiles, plan
from pesto_runtime.service.execution import no_tile
from pesto_runtime.service.image_loader import reference_of, sent_bytes
from pesto_runtime.service.input_values import ValueValidator, known_values
from pesto_runtime.service.jobs.files import locked_temporary_folder
from pesto_runtime.service.outputs import (
    ResponseFormat,
    ResponseWriter,
    admitted,
    json_response,
    negotiate,
    write_to_href,
)
from pesto_runtime.service.request import Faults, read_payload
from pesto_runtime.service.runner import (
    JSON_TYPE,
    QUOTE_TYPE,
    TIFF_TYPE,
    CallResponse,
    is_batch,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.hrefs import Gate
    from pesto_runtime.processor.protocol import Listener
    from pesto_runtime.service.execution import OnTile
    from pesto_runtime.service.limits import Limits
    from pesto_runtime.service.pipeline_process import PipelineProcess
    from pesto_runtime.service.request import InputValue, ParsedRequest
    from pesto_runtime.service.runner import Payload

_PREFIX = "pesto-run-"
_PIECE_BYTES = 3 << 18
_MOST_REASONS = 3


@dataclass(frozen=True)
class PipelineExecution:
    """Performs the calls of a pipeline.

    Attributes:
        processor: The pipeline.
        gate: Access rules that an href must pass.
        limits: Of a call.
        values: Validates inputs that are no images.
    """

    processor: PipelineProcess
    gate: Gate
    limits: Limits
    values: ValueValidator

    @classmethod
    def of(cls, processor: PipelineProcess, gate: Gate, limits: Limits) -> PipelineExecution:
        """Prepare the calls of a pipeline."""
        return cls(processor, gate, limits, ValueValidator(processor.description))

    def perform(self, payload: Payload, *, on_tile: OnTile = no_tile) -> CallResponse:  # noqa: ARG002  # as of `Execution`
        """Run the pipeline, or plan it for a quote; arguments as of `Execution`.

        Raises:
            PestoError: the request is wrong, or the run failed.
        """
        with traced(payload.trace):
            return self._perform(payload)

    def _perform(self, payload: Payload) -> CallResponse:
        description, faults = self.processor.description, Faults()
        if is_batch(payload):
            raise InvalidInput(f"{description.name} is a pipeline; send one call per request")
        call = read_payload(payload, description, faults)
        payload.release()
        self._check(call, faults)
        out = admitted(description, call.options.out, self.gate, faults)
        form = _form(negotiate(description, payload.accept, out))
        with locked_temporary_folder(_PREFIX) as folder:
            inputs = self._inputs(call, folder, faults)
            faults.raise_any(f"inputs of {description.name!r}")
            self.processor.require_same()
            if payload.media_type == QUOTE_TYPE:
                return json_response(self._quote(inputs))
            return _Products(self._run(inputs, folder / "out"), form).response()

    def _check(self, call: ParsedRequest, faults: Faults) -> None:
        description = self.processor.description
        if self.limits.refuse_unknown is not False:
            known = ", ".join(port.name for port in description.inputs) or "none"
            for name in call.ignored(description):
                faults.add(f"/{name}", f"is not an input; inputs are {known}")
        options = call.options
        for name in ("tile", "partial", "finish", "roi"):
            if getattr(options, name):
                faults.add(f"/pesto/{name}", "is no option of a pipeline: it takes whole scenes")

    def _inputs(self, call: ParsedRequest, folder: Path, faults: Faults) -> dict[str, JsonValue]:
        """Return the inputs of the run: images as references that are admitted, or as files."""
        known = known_values(self.processor.description, call.values)
        self.values.validate(known, faults)
        found: dict[str, JsonValue] = {}
        for port in self.processor.description.inputs:
            if port.name not in known:
                continue
            value = known[port.name]
            if port.kind not in IMAGE_KINDS:
                found[port.name] = value  # type: ignore[assignment]  # JSON: not an image
                continue
            try:
                found[port.name] = self._image(value, folder / port.name)
            except PestoError as error:
                faults.add_error(f"/{port.name}", error)
        return found

    def _image(self, value: InputValue, file: Path) -> JsonValue:
        """Return the reference of an image; pixels of the request, and of the web, become a file.

        A run reads a scene window by window, many times, and by GDAL. GDAL has no fence: a file of
        a web server is fetched whole first.
        """
        reference = reference_of(value)
        if reference is None:
            file.write_bytes(sent_bytes(value))
            return file_href(file)
        href = self.gate.admit_read(reference.href)
        if urlsplit(href).scheme in ("http", "https"):
            from pesto_runtime.service.fetching import save  # loads httpx, for these images alone

            save(href, self.gate, file, most_bytes=self.limits.body_bytes)
            href = file_href(file)
        admitted_one = reference.model_copy(update={"href": href})
        found: dict[str, JsonValue] = admitted_one.model_dump(mode="json", exclude_none=True)
        return found

    def _run(self, inputs: Mapping[str, JsonValue], folder: Path) -> Run:
        process, listener = self.processor, current_listener()
        request = RunRequest(
            process.pipeline, process.base, inputs, folder, workers=self._workers, report="none"
        )
        with listening(_LinesOnly(listener), everywhere=True):
            result = engine.run(request, watcher=_Watcher(listener))
        if result["status"] != "COMPLETE":
            raise RunFailed(_reasons(folder, result))
        return Run.of(folder)

    @property
    def _workers(self) -> int:
        return max(1, (os.cpu_count() or 1) // self.limits.workers)

    def _quote(self, inputs: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
        """Return what a run takes: tiles, bytes, and memory and seconds on this machine."""
        process = self.processor
        read = read_inputs(process.pipeline, process.services, inputs)
        sizing = sizing_of(workers=self._workers, tile=None, max_tasks=64)
        planned = plan(process.pipeline, process.services, read, store="file:///", sizing=sizing)
        cost = run_cost(planned, workers=self._workers)
        return {
            "processID": process.description.name,
            "tiles": sum(count_tiles(phase) for phase in planned.plan.phases),
            "bytesRead": sum(each.bytes_read for each in planned.estimates),
            "memoryBytes": cost.memory_bytes,
            "seconds": round(cost.seconds, 3) if math.isfinite(cost.seconds) else None,
            "basis": cost.basis,
            "phases": [asdict(each) for each in planned.estimates],
            "warnings": [str(each) for each in planned.plan.warnings],
        }


@dataclass(frozen=True)
class _Products:
    """The products of a run, sent as outputs."""

    run: Run
    form: ResponseFormat

    def response(self) -> CallResponse:
        files = {name: Path(str(self.run.path(name))) for name in self.run.outputs}
        writer = ResponseWriter()
        if self.form.binary is not None:
            for piece in _pieces(files[self.form.binary]):
                writer.write(piece)
            return writer.response(self.form.media_type)
        if self.form.media_type == FORM_TYPE:
            return CallResponse(*write_parts(_part(name, each) for name, each in files.items()))
        for index, (name, file) in enumerate(files.items()):
            writer.write(b"," if index else b"{")
            writer.write(json.dumps(name).encode() + b":")
            self._write_json(writer, name, file)
        writer.write(b"}" if files else b"{}")
        return writer.response(JSON_TYPE)

    def _write_json(self, writer: ResponseWriter, name: str, file: Path) -> None:
        href = self.form.out.get(name)
        if href is not None:
            write_to_href(href, _pieces(file))
            writer.write(json.dumps(href).encode())
        elif file.suffix == ".tif":
            writer.write(b'"')
            writer.write_base64(_pieces(file))
            writer.write(b'"')
        else:
            writer.write(file.read_bytes().strip())


class _Watcher:
    """Forwards the progress of a run as that of the call."""

    def __init__(self, listener: Listener | None) -> None:
        self._listener, self._all, self._done = listener, 0, 0

    def begin(self, tiles: int) -> None:
        self._all = tiles

    def advance(self, tiles: int) -> None:
        self._done += tiles
        if self._listener is not None and tiles:
            self._listener.progress(float(min(self._done, self._all)), float(max(self._all, 1)))

    def warn(self, text: str) -> None:
        if self._listener is not None:
            self._listener.log(f"warning: {text}")


class _LinesOnly:
    """Forwards what processes log; the progress of one tile is not that of the call."""

    def __init__(self, listener: Listener | None) -> None:
        self._listener = listener

    def progress(self, done: float, total: float) -> None:
        """Ignore it."""

    def log(self, text: str) -> None:
        if self._listener is not None:
            self._listener.log(text)


def _form(form: ResponseFormat) -> ResponseFormat:
    """Return the form of a response: images are GeoTIFFs, as the run writes them.

    Raises:
        UnsupportedMedia: the image is wanted in another format.
    """
    if form.binary is not None and form.media_type != TIFF_TYPE:
        raise UnsupportedMedia(f"a pipeline's images are {TIFF_TYPE}, not {form.media_type}")
    return replace(form, image_type=TIFF_TYPE)


def _part(name: str, file: Path) -> Part:
    if file.suffix == ".tif":
        return Part(name, file.read_bytes(), TIFF_TYPE, file.name)
    return Part(name, file.read_bytes().strip(), JSON_TYPE)


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while piece := opened.read(_PIECE_BYTES):
            yield piece


def _reasons(folder: Path, result: Mapping[str, JsonValue]) -> str:
    """Return why a run is not complete: the first of its holes."""
    skipped = result["skipped"]
    file = folder / "holes.geojson"
    features: Sequence[Mapping[str, JsonValue]] = (
        json.loads(file.read_bytes())["features"] if file.is_file() else ()
    )
    reasons = [json.dumps(each.get("properties")) for each in features[:_MOST_REASONS]]
    return (
        f"{len(features)} tiles failed, and outputs {skipped} were not computed: "
        f"{'; '.join(reasons)}"
    )

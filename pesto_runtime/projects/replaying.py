"""Replay recorded calls and the examples of a description against a service, and report.

The report is lines of text, `results.json`, and JUnit XML. A service is a URL here; how it is
started is in `running_service`.
"""

from __future__ import annotations

import base64
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, cast
from xml.etree import ElementTree as ET

from pesto_runtime.client.client import Client
from pesto_runtime.contract import Tolerance
from pesto_runtime.contract.canonical import digest
from pesto_runtime.errors import BadField, PestoError, json_pointer
from pesto_runtime.projects.comparing import differences
from pesto_runtime.projects.recorded_cases import ImageFile
from pesto_runtime.raster.image import Image
from pesto_runtime.schema import schema_faults

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract import Description
    from pesto_runtime.contract.call import Example
    from pesto_runtime.projects.recorded_cases import RecordedCase

_TIFF = "image/tiff"
_MOST_SHOWN = 10


@dataclass(frozen=True)
class CaseResult:
    """The result of one case.

    Attributes:
        name: Its name.
        seconds: Time of its call.
        faults: Each difference from what was recorded, and each output that breaks its schema.
    """

    name: str
    seconds: float
    faults: tuple[BadField, ...] = ()

    @property
    def is_passed(self) -> bool:
        """Whether it has no fault."""
        return not self.faults


@dataclass(frozen=True)
class ReplayReport:
    """The results of all cases.

    Attributes:
        target: What was tested.
        name: Name and version of the process.
        profiles: Profiles with which it was loaded.
        results: One for each case.
    """

    target: str
    name: str
    profiles: tuple[str, ...] = ()
    results: tuple[CaseResult, ...] = field(default=())

    @property
    def failed(self) -> tuple[CaseResult, ...]:
        """The cases that failed."""
        return tuple(each for each in self.results if not each.is_passed)

    def lines(self) -> Iterator[str]:
        """Yield the report as text."""
        for each in self.results:
            yield f"{'passed' if each.is_passed else 'FAILED'}  {each.name}  {each.seconds:.2f} s"
            yield from (f"  {fault}" for fault in each.faults[:_MOST_SHOWN])
            if len(each.faults) > _MOST_SHOWN:
                yield f"  ... and {len(each.faults) - _MOST_SHOWN} more"
        yield f"{self.name}: {len(self.results)} cases, {len(self.failed)} failed"

    def to_json(self) -> dict[str, JsonValue]:
        """Return the content of `results.json`."""
        return {
            "target": self.target,
            "process": self.name,
            "profiles": list(self.profiles),
            "passed": len(self.results) - len(self.failed),
            "failed": len(self.failed),
            "cases": [
                {"name": each.name, "passed": each.is_passed, "seconds": round(each.seconds, 3),
                 "errors": [asdict(fault) for fault in each.faults]}
                for each in self.results
            ],
        }  # fmt: skip

    def to_junit(self) -> bytes:
        """Return the report as JUnit XML."""
        suite = ET.Element("testsuite", name=self.name, tests=str(len(self.results)),
                           failures=str(len(self.failed)), errors="0", skipped="0")  # fmt: skip
        for each in self.results:
            case = ET.SubElement(suite, "testcase", classname=self.name, name=each.name,
                                 time=f"{each.seconds:.3f}")  # fmt: skip
            if each.faults:
                text = "\n".join(map(str, each.faults))
                failure = ET.SubElement(case, "failure", message=str(each.faults[0]))
                failure.text = text
        root = ET.Element("testsuites")
        root.append(suite)
        written: bytes = ET.tostring(root, encoding="utf-8", xml_declaration=True)
        return written


def replay(
    url: str,
    cases: Sequence[RecordedCase],
    *,
    target: str,
    profiles: Sequence[str] = (),
    expected: Mapping[str, JsonValue] | None = None,
) -> ReplayReport:
    """Replay cases, and the examples of the description.

    Args:
        url: The service.
        cases: Recorded calls.
        target: For the report.
        profiles: For the report.
        expected: The recorded description, of which `_links` are not compared; None for none.

    Raises:
        PestoError: the service does not respond, or has no valid description.
    """
    with Client(url) as client:
        started = time.monotonic()
        description = client.describe()
        faults = tuple(_description_faults(description, expected))
        results = [CaseResult("description", time.monotonic() - started, faults)]
        results += [_example(client, number, each)
                    for number, each in enumerate(description.known.examples)]  # fmt: skip
        results += [_replayed(client, each) for each in cases]
    name = f"{description.name} {description.version}"
    return ReplayReport(target, name, tuple(profiles), tuple(results))


def call_of(client: Client, case: RecordedCase) -> dict[str, object]:
    """Return the outputs of a case: JSON values, images as `Image`.

    Raises:
        PestoError: the service refuses the call, or fails.
    """
    inputs = {name: _sent(value) for name, value in case.inputs.items()}
    return client.process(inputs, accept=_TIFF)


def _replayed(client: Client, case: RecordedCase) -> CaseResult:
    started = time.monotonic()
    try:
        outputs = call_of(client, case)
    except PestoError as error:
        faults = error.fields or (BadField("", error.detail),)
        return CaseResult(case.name, time.monotonic() - started, faults)
    seconds = time.monotonic() - started
    found = list(_schema_faults(client.describe(), outputs))
    for name, expected in case.outputs.items():
        pointer = json_pointer(name)
        if name not in outputs:
            found.append(BadField(pointer, "is recorded, and not returned"))
            continue
        tolerance = case.tolerances.get(name)
        found += differences(expected, outputs[name], pointer=pointer, tolerance=tolerance)
    return CaseResult(case.name, seconds, tuple(found))


def _example(client: Client, number: int, example: Example) -> CaseResult:
    started = time.monotonic()
    name = f"example {number}"
    try:
        outputs = client.process(example.inputs, accept=_TIFF)
    except PestoError as error:
        return CaseResult(name, time.monotonic() - started, (BadField("", str(error)),))
    seconds = time.monotonic() - started
    tolerance = Tolerance(atol=example.tolerance) if example.tolerance else None
    found = list(_schema_faults(client.describe(), outputs))
    for key, expected in example.outputs.items():
        pointer = json_pointer(key)
        found += differences(expected, outputs.get(key), pointer=pointer, tolerance=tolerance)
    return CaseResult(name, seconds, tuple(found))


def _schema_faults(description: Description, outputs: Mapping[str, object]) -> Iterator[BadField]:
    """Yield each output that is not required, or does not fit the schema of its port."""
    for port in description.outputs:
        pointer, value = json_pointer(port.name), outputs.get(port.name)
        if value is None:
            if port.required:
                yield BadField(pointer, "is required by the output schema, and not returned")
        elif port.kind in ("json", "vector"):
            schema = description.schema_of(port)
            yield from schema_faults(schema, cast("JsonValue", value), pointer=pointer)
        else:
            images = value if port.kind == "images" and isinstance(value, list) else [value]
            if not all(isinstance(each, Image) for each in images):
                yield BadField(pointer, "is not an image")
    for name in outputs:
        if description.output(name) is None:
            yield BadField(json_pointer(name), "is not in the output schema")


def _description_faults(
    description: Description, expected: Mapping[str, JsonValue] | None
) -> Iterator[BadField]:
    if expected is None:
        return
    document = description.to_json()
    for each in (document, expected := dict(expected)):
        each.pop("_links", None)
    if digest(document) != digest(expected):
        yield from differences(expected, document, pointer="")


def _sent(value: object) -> object:
    if isinstance(value, ImageFile):
        return base64.b64encode(value.data).decode("ascii")
    return [_sent(each) for each in value] if isinstance(value, list) else value

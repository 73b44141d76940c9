"""Read the outputs of a response: images become arrays, other outputs stay JSON values.

Images are decoded by `raster/codec.py`, forms are parsed by `multipart.py`.
"""

from __future__ import annotations

import binascii
import json
from typing import TYPE_CHECKING, TypeVar

from pesto_runtime.client.describing import References, has_references
from pesto_runtime.client.multipart import FORM_TYPE, media_type_of, read_parts
from pesto_runtime.client.sending import JSON, NPY, TIFF, accepted
from pesto_runtime.client.steps import json_of, misbehaved
from pesto_runtime.errors import (
    BadRequest,
    HrefRefused,
    PestoError,
    RasterUnreadable,
    ServiceMisbehaved,
    shortened,
)
from pesto_runtime.raster.codec import decode_image

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from pydantic import JsonValue

    from pesto_runtime.client.describing import Described
    from pesto_runtime.client.multipart import Part
    from pesto_runtime.client.sending import OutgoingCall
    from pesto_runtime.client.steps import Reply, Request, Steps
    from pesto_runtime.contract import Port
    from pesto_runtime.raster.image import Image

T = TypeVar("T")


def perform_calls(
    calls: Sequence[OutgoingCall],
    described: Described,
    references: References,
    *,
    where: str,
    write: Callable[[References], Request],
    perform: Callable[[Request], Steps[T]],
) -> Steps[T]:
    """Perform calls; if the service cannot read an href, send the pixels instead.

    Args:
        calls: The calls of one request.
        described: The service's description.
        references: The hrefs that it can be sent.
        where: Its address.
        write: Writes the request.
        perform: Sends it, and reads the response.

    Raises:
        PestoError: the error that the service returned, `Unreachable`, or `ServiceMisbehaved`.
    """
    # Before the request: a call of another thread may be refused the same scheme meanwhile.
    refers = any(has_references(each.inputs, references) for each in calls)
    try:
        return (yield from perform(write(references)))
    except (HrefRefused, RasterUnreadable) as error:
        if not refers or _is_about_writing(error):
            raise
        if isinstance(error, HrefRefused):
            for each in calls:
                references.refuse(each.inputs)
    return (yield from perform(write(_NoReferences(where, described))))


def read_answer(
    reply: Reply, call: OutgoingCall, described: Described, *, where: str
) -> dict[str, object]:
    """Read the outputs: images as arrays (band, row, col), or as `Image` if TIFF was requested.

    Raises:
        ServiceMisbehaved: the response does not have the requested form.
    """
    if reply.media_type == FORM_TYPE:
        return outputs_of_parts(parts_of(reply, where), call, described, where=where)
    wanted = accepted(call, described)
    if wanted in (NPY, TIFF):
        port = described.description.outputs[0]
        if reply.media_type != wanted:
            raise misbehaved(reply, where, f"not {wanted}")
        with_georeference = call.accept == TIFF
        return {
            port.name: decoded_image(
                reply.content, port, where, with_georeference=with_georeference
            )
        }
    document = json_of(reply, where)
    if not isinstance(document, dict):
        raise misbehaved(reply, where, "not a JSON object")
    return outputs_of_json(document, call, described, where=where)


def outputs_of_json(
    document: Mapping[str, JsonValue], call: OutgoingCall, described: Described, *, where: str
) -> dict[str, object]:
    """Read the outputs in a JSON object.

    Raises:
        ServiceMisbehaved: an output does not have the type of its port.
    """
    outputs: dict[str, object] = dict(document)
    if call.partial:
        return outputs
    for port in described.description.outputs:
        if port.name in document and port.name not in call.out:
            with_georeference = call.accept == TIFF
            outputs[port.name] = _value(
                document[port.name], port, where, with_georeference=with_georeference
            )
    return outputs


def outputs_of_parts(
    parts: Sequence[Part], call: OutgoingCall, described: Described, *, where: str
) -> dict[str, object]:
    """Read the outputs in the parts of a form: one each, and one per image of a list.

    Raises:
        ServiceMisbehaved: an output does not have the type of its port.
    """
    outputs: dict[str, object] = {}
    for part in parts:
        port = described.description.output(part.name)
        if part.media_type == JSON:
            outputs[part.name] = _json_of_part(part, where)
            continue
        if port is None:
            raise ServiceMisbehaved(f"{where} returned an unknown output {part.name!r}")
        image = decoded_image(part.data, port, where, with_georeference=call.accept == TIFF)
        several = outputs.setdefault(part.name, []) if port.kind == "images" else None
        if isinstance(several, list):
            several.append(image)
        else:
            outputs[part.name] = image
    return outputs


def parts_of(reply: Reply, where: str) -> list[Part]:
    """Return the parts of a form in a response.

    Raises:
        ServiceMisbehaved: the content is not a form.
    """
    if reply.content.startswith(b"--") and reply.content.count(b"\r\n") == 1:
        return []  # a form without outputs: only its last boundary
    try:
        return read_parts(reply.content, media_type_of(reply.headers.get("content-type", "")))
    except BadRequest as error:
        raise misbehaved(reply, where, f"a form that cannot be read ({error.detail})") from error


class _NoReferences(References):
    """Permits no href."""

    def admits(self, href: str) -> bool:  # noqa: ARG002  # the same for every href
        return False


def _is_about_writing(error: PestoError) -> bool:
    """Whether the service has refused an href to write to; pixels in the request do not help."""
    return any(each.pointer.startswith("/pesto/out") for each in error.fields)


def _value(value: JsonValue, port: Port, where: str, *, with_georeference: bool) -> object:
    if value is None or port.kind not in ("image", "images"):
        return value
    if port.kind == "images" and isinstance(value, list):
        return [_decoded(each, port, where, with_georeference=with_georeference) for each in value]
    return _decoded(value, port, where, with_georeference=with_georeference)


def _json_of_part(part: Part, where: str) -> JsonValue:
    try:
        value: JsonValue = json.loads(part.data)
    except ValueError as error:
        raise ServiceMisbehaved(f"{where}: output {part.name!r} is not JSON: {error}") from error
    return value


def _decoded(
    value: JsonValue, port: Port, where: str, *, with_georeference: bool
) -> np.ndarray | Image:
    if not isinstance(value, str):
        raise ServiceMisbehaved(
            f"{where}: output {port.name!r} is {shortened(value)}, not an image in base64"
        )
    try:
        data = binascii.a2b_base64(value)
    except (binascii.Error, ValueError) as error:
        raise ServiceMisbehaved(
            f"{where}: output {port.name!r} is {shortened(value)}, which is not base64"
        ) from error
    return decoded_image(data, port, where, with_georeference=with_georeference)


def decoded_image(
    data: bytes, port: Port, where: str, *, with_georeference: bool
) -> np.ndarray | Image:
    """Decode an image of a response: its pixels (band, row, col), or the whole `Image`.

    Raises:
        ServiceMisbehaved: the bytes are not an image.
    """
    try:
        image = decode_image(data)
    except RasterUnreadable as error:
        raise ServiceMisbehaved(
            f"{where}: output {port.name!r} is not an image: {error.detail}"
        ) from error
    return image if with_georeference else image.pixels

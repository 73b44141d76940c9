"""An answer read by the description: images to arrays, the rest as the JSON that it is."""

from __future__ import annotations

import binascii
from typing import TYPE_CHECKING, TypeAlias

from pesto_runtime import raster
from pesto_runtime.client.sending import (
    JSON,
    TIFF,
    References,
    accepted,
    has_references,
    request_of,
)
from pesto_runtime.client.steps import json_of, misbehaved
from pesto_runtime.errors import (
    HrefRefused,
    PestoError,
    RasterUnreadable,
    ServiceMisbehaved,
    shortened,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from pydantic import JsonValue

    from pesto_runtime.client.describing import Described
    from pesto_runtime.client.sending import Call
    from pesto_runtime.client.steps import Reply, Request, Steps
    from pesto_runtime.contract import Port

    Perform: TypeAlias = Callable[[Request], Steps[dict[str, object]]]


def calling(
    call: Call, described: Described, references: References, *, where: str, perform: Perform
) -> Steps[dict[str, object]]:
    """Perform a call; an href that the service may not read is read here and sent as pixels.

    Raises:
        PestoError: what the service answered, `Unreachable`, or `ServiceMisbehaved`.
    """
    request = request_of(call, described, references)
    try:
        return (yield from perform(request))
    except (HrefRefused, RasterUnreadable) as error:
        if not has_references(call, references) or _is_about_writing(error):
            raise
        if isinstance(error, HrefRefused):
            references.refuse(call.inputs)
    request = request_of(call, described, _NoReferences(where, described))
    return (yield from perform(request))


def read_answer(reply: Reply, call: Call, described: Described, *, where: str) -> dict[str, object]:
    """Read the outputs: images as arrays (band, row, col), or `Image` where TIFF was asked for.

    Raises:
        ServiceMisbehaved: the answer is not what was asked for.
    """
    wanted = accepted(call, described)
    is_kept_whole = call.accept == TIFF
    if wanted != JSON:
        port = described.description.outputs[0]
        if reply.media_type != wanted:
            raise misbehaved(reply, where, f"not {wanted}")
        return {port.name: decoded_image(reply.content, port, where, is_kept_whole=is_kept_whole)}
    document = json_of(reply, where)
    if not isinstance(document, dict):
        raise misbehaved(reply, where, "not a JSON object")
    outputs: dict[str, object] = dict(document)
    if call.partial:
        return outputs
    for port in described.description.outputs:
        if port.name in document and port.name not in call.out:
            outputs[port.name] = _value(
                document[port.name], port, where, is_kept_whole=is_kept_whole
            )
    return outputs


class _NoReferences(References):
    """Sends no href at all."""

    def admits(self, href: str) -> bool:  # noqa: ARG002  # whichever it is
        return False


def _is_about_writing(error: PestoError) -> bool:
    return any(each.pointer.startswith("/pesto/out") for each in error.fields)


def _value(value: JsonValue, port: Port, where: str, *, is_kept_whole: bool) -> object:
    if value is None or port.kind not in ("image", "images"):
        return value
    if port.kind == "images" and isinstance(value, list):
        return [_decoded(each, port, where, is_kept_whole=is_kept_whole) for each in value]
    return _decoded(value, port, where, is_kept_whole=is_kept_whole)


def _decoded(
    value: JsonValue, port: Port, where: str, *, is_kept_whole: bool
) -> np.ndarray | raster.Image:
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
    return decoded_image(data, port, where, is_kept_whole=is_kept_whole)


def decoded_image(
    data: bytes, port: Port, where: str, *, is_kept_whole: bool
) -> np.ndarray | raster.Image:
    """Read an image that came: its pixels (band, row, col), or all of it.

    Raises:
        ServiceMisbehaved: it is none.
    """
    try:
        image = raster.decode_image(data)
    except RasterUnreadable as error:
        raise ServiceMisbehaved(
            f"{where}: output {port.name!r} is not an image: {error.detail}"
        ) from error
    return image if is_kept_whole else image.pixels

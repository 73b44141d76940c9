"""Return the results of a job as an OGC request chose: raw or in a document, by value or reference.

OGC 18-062r2, sections 7.11.4 and 7.13; several raw results are `multipart/related` (RFC 2387).
"""

from __future__ import annotations

import base64
import json
import secrets
from typing import TYPE_CHECKING

from fastapi import Response
from fastapi.responses import FileResponse

from pesto_runtime.service.runner import JSON_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import JsonValue

    from pesto_runtime.service.jobs.files import JobFolder
    from pesto_runtime.service.jobs.states import Record, Result

_TEXT_TYPE = "text/plain; charset=utf-8"


class JobResults:
    """The results of one job that its request wants."""

    def __init__(self, record: Record, folder: JobFolder, urls: Mapping[str, str]) -> None:
        """Select the results.

        Args:
            record: The job, which is successful.
            folder: Where its files are.
            urls: Last part of the URL of a result -> its URL.
        """
        self._record, self._folder, self._urls = record, folder, urls
        choice = record.choice or {}
        wanted = choice.get("outputs")
        self._outputs = wanted if isinstance(wanted, dict) and wanted else None  # {} is all
        self._is_document = choice.get("response", "document") == "document"
        self._chosen = [
            (number, each)
            for number, each in enumerate(record.results)
            if not (each.is_deleted or each.is_none)
            and (self._outputs is None or each.output in self._outputs)
        ]

    def response(self) -> Response:
        """Return the response; reads files, so call it in a thread.

        Raises:
            StoreFailed: a file cannot be read.
        """
        if self._is_document:
            return Response(json.dumps(self.document()), media_type=JSON_TYPE)
        if len(self._chosen) == 1:
            return self._single(*self._chosen[0])
        return self._parts() if self._chosen else Response(status_code=204)

    def document(self) -> dict[str, JsonValue]:
        """Return output name -> value, qualified value or link; or a list of them."""
        found: dict[str, JsonValue] = {}
        for number, result in self._chosen:
            if result.index is None:
                found[result.output] = self._value(number, result)
            else:
                several = found.setdefault(result.output, [])
                several.append(self._value(number, result))  # type: ignore[union-attr]  # of an index: a list
        return found

    def _value(self, number: int, result: Result) -> JsonValue:
        if url := self._reference(result):
            return {"href": url, "type": result.media_type}
        data = self._folder.read_result(self._record.id, number)
        if result.media_type == JSON_TYPE:
            value: JsonValue = json.loads(data)
            return {"value": value} if isinstance(value, dict) else value
        text = base64.b64encode(data).decode("ascii")
        return {"value": text, "mediaType": result.media_type, "encoding": "base64"}

    def _reference(self, result: Result) -> str | None:
        """Return the URL of a result that is returned by reference."""
        if result.href is not None:
            return result.href
        choice = (self._outputs or {}).get(result.output)
        by_reference = isinstance(choice, dict) and choice.get("transmissionMode") == "reference"
        return self._urls[result.part] if by_reference else None

    def _single(self, number: int, result: Result) -> Response:
        if url := self._reference(result):
            link = f'<{url}>; rel="item"; type="{result.media_type}"'
            return Response(status_code=204, headers={"Link": link})
        if result.media_type != JSON_TYPE:
            path = self._folder.result_path(self._record.id, number)
            return FileResponse(path, media_type=result.media_type)
        data, media_type = self._raw(number, result)
        return Response(data, media_type=media_type)

    def _raw(self, number: int, result: Result) -> tuple[bytes, str]:
        """Return a result as a body: a text is not in JSON."""
        data, media_type = self._folder.read_result(self._record.id, number), result.media_type
        if media_type == JSON_TYPE and data.startswith(b'"'):
            return str(json.loads(data)).encode(), _TEXT_TYPE
        return data, media_type

    def _parts(self) -> Response:
        boundary = secrets.token_hex(16)
        content = b"".join(self._part(boundary, *each) for each in self._chosen)
        content += f"--{boundary}--\r\n".encode()
        return Response(content, media_type=f"multipart/related; boundary={boundary}")

    def _part(self, boundary: str, number: int, result: Result) -> bytes:
        url = self._reference(result)
        data, media_type = (b"", result.media_type) if url else self._raw(number, result)
        head = [f"--{boundary}", f"Content-Type: {media_type}", f"Content-ID: <{result.part}>"]
        head += [f"Content-Location: {url}"] if url else []
        return "\r\n".join([*head, "", ""]).encode() + data + b"\r\n"

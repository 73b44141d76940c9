"""Tell subscribers of an execution how it goes (OGC 18-062r2, conformance class `callback`)."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING

from pesto_runtime.errors import PestoError
from pesto_runtime.service.problems import MEDIA_TYPE as PROBLEM_TYPE
from pesto_runtime.service.runner import JSON_TYPE

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import JsonValue

    from pesto_runtime.hrefs import Gate
    from pesto_runtime.service.jobs.states import Record

_LOG = logging.getLogger(__name__)
_KINDS = ("successUri", "inProgressUri", "failedUri")


class Callbacks:
    """Sends a request per event to the addresses that a request named, below `--callback` alone."""

    def __init__(self, gate: Gate) -> None:
        """Start without events; the gate admits the addresses."""
        self._gate = gate
        self._sending: set[asyncio.Task[None]] = set()

    def require(self, choice: dict[str, JsonValue]) -> None:
        """Do nothing if all addresses of a request may be called.

        Raises:
            HrefRefused: one may not.
        """
        for kind in _KINDS:
            if (uri := _uri(choice, kind)) is not None:
                self._gate.admit_callback(uri)

    def began(self, record: Record, state: dict[str, JsonValue]) -> None:
        """Send the state of a job that was accepted."""
        self._send(record, "inProgressUri", lambda: (json.dumps(state).encode(), JSON_TYPE))

    def ended(self, record: Record, results: Callable[[], dict[str, JsonValue]]) -> None:
        """Send the results of a job that is over, or its error; `results` is called in a thread."""
        if record.state == "successful":
            self._send(record, "successUri", lambda: (json.dumps(results()).encode(), JSON_TYPE))
        elif record.error is not None:
            problem = json.dumps(record.error).encode()
            self._send(record, "failedUri", lambda: (problem, PROBLEM_TYPE))

    def _send(self, record: Record, kind: str, content: Callable[[], tuple[bytes, str]]) -> None:
        uri = _uri(record.choice, kind)
        if uri is None:
            return
        # The event loop has weak references to tasks only.
        task = asyncio.create_task(self._sent(record.id, uri, content))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _sent(self, job: str, uri: str, content: Callable[[], tuple[bytes, str]]) -> None:
        from pesto_runtime.service.fetching import post  # loads httpx, for these requests alone

        try:
            body, media_type = await asyncio.to_thread(content)
            await asyncio.to_thread(post, uri, self._gate, body, media_type)
        except PestoError as error:
            _LOG.warning("job %s: its subscriber was not told: %s", job, error)


def _uri(choice: dict[str, JsonValue] | None, kind: str) -> str | None:
    subscriber = (choice or {}).get("subscriber")
    found = subscriber.get(kind) if isinstance(subscriber, dict) else None
    return found if isinstance(found, str) else None

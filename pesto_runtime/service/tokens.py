"""Know the callers of a service by their tokens, and show each its own jobs alone."""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from pesto_runtime.errors import CredentialsRefused, InvalidInput, NotFound
from pesto_runtime.service.http import CALLER_KEY, PREFIX, headers_of
from pesto_runtime.service.problems import problem_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from starlette.types import ASGIApp, Receive, Scope, Send

_OPEN = frozenset({f"{PREFIX}/health"})
"""Paths without credentials: monitoring has none."""
_JOB = re.compile(rf"(?:{PREFIX})?/jobs/([^/]+)")
_LEAST_CHARS = 16


@dataclass(frozen=True)
class Callers:
    """The names of callers, by the SHA-256 of their tokens; no token is kept."""

    names: tuple[tuple[bytes, str], ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file with a caller per line: `NAME TOKEN`; `#` begins a comment.

        Raises:
            InvalidInput: it cannot be read, or a line is wrong; the message has no token.
        """
        try:
            lines = path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"--token-file {path} cannot be read: {error}") from error
        found: dict[bytes, str] = {}
        for number, line in enumerate(lines, 1):
            words = line.partition("#")[0].split()
            if not words:
                continue
            fault = _fault(words, found)
            if fault:
                raise InvalidInput(f"--token-file {path}, line {number}: {fault}")
            found[_digest(words[1])] = words[0]
        if not found:
            raise InvalidInput(f"--token-file {path} has no line `NAME TOKEN`")
        return cls(tuple(found.items()))

    def name_of(self, authorization: str) -> str | None:
        """Return the name of the caller with these credentials; None if there is none.

        It takes the same time for every token (CWE-208).
        """
        scheme, _, token = authorization.partition(" ")
        given, found = _digest(token.strip()), None
        for digest, name in self.names:
            if hmac.compare_digest(digest, given):
                found = name
        return found if scheme.lower() == "bearer" else None


class CallerGuard:
    """ASGI middleware: refuse requests without a known token, and those for jobs of others."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        callers: Callers,
        owner_of: Callable[[str], Awaitable[str | None]],
        mounts: Sequence[str] = ("",),
    ) -> None:
        """Wrap an application.

        Args:
            app: Serves the requests.
            callers: Who may send them.
            owner_of: Returns the caller whose job this is; None if there is no such job.
            mounts: Paths below which there are the endpoints of a process.
        """
        self._app, self._callers, self._owner_of = app, callers, owner_of
        self._mounts = sorted(mounts, key=len, reverse=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = self._below_mount(scope["path"]) if scope["type"] == "http" else ""
        if scope["type"] != "http" or path in _OPEN:
            await self._app(scope, receive, send)
            return
        name = self._callers.name_of(headers_of(scope).get("authorization", ""))
        if name is None:
            refusal = CredentialsRefused(
                "this service knows its callers: send `Authorization: Bearer TOKEN`"
            )
            # RFC 6750 section 3
            response = problem_response(refusal, {"WWW-Authenticate": 'Bearer realm="pesto"'})
            await response(scope, receive, send)
            return
        scope[CALLER_KEY] = name
        job = _JOB.match(path)
        if job is not None and await self._owner_of(job[1]) != name:
            # As for a job that does not exist: nobody learns of the jobs of others.
            await problem_response(NotFound(f"there is no job {job[1]}"))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _below_mount(self, path: str) -> str:
        """Return a path without the name of a process at its start, as the router sees it."""
        return next((path[len(m) :] for m in self._mounts if path.startswith(f"{m}/")), path)


def _fault(words: list[str], found: dict[bytes, str]) -> str | None:
    """Return what is wrong with a line."""
    if len(words) != 2:
        return "must be `NAME TOKEN`"
    if len(words[1]) < _LEAST_CHARS:
        return f"the token of {words[0]} has under {_LEAST_CHARS} characters"
    if words[0] in found.values() or _digest(words[1]) in found:
        return f"{words[0]}, or its token, is there twice"
    return None


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogateescape")).digest()

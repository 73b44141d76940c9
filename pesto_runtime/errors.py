"""Define every error of the package, with its HTTP status and its problem document.

An error also has the exit code of the command line, and states whether a retry can help
(`retryable`). It does not decide how often and when to retry: engines and clients do.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Self

from pesto_runtime.masking import masked

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from pydantic import JsonValue

_VALUE_CHARS, _MOST_FIELDS = 120, 20


@dataclass(frozen=True, slots=True)
class BadField:
    """One wrong field of a request, a contract or a pipeline.

    Attributes:
        pointer: JSON pointer (RFC 6901) to the field; empty for the whole document.
        detail: The fault and the way to correct it.
        value: The start of the wrong value as text; None if the value is absent.
    """

    pointer: str
    detail: str
    value: str | None = None

    def __str__(self) -> str:
        return f"{self.pointer or '/'}: {self.detail}"

    def masked(self) -> BadField:
        """Return the field without the credentials of URLs in it."""
        return replace(self, detail=masked(self.detail), value=self.value and masked(self.value))


def shortened(value: object) -> str:
    """Write a value as text of about 120 characters at most, so that a message stays readable.

    >>> shortened([1, 2])
    '[1, 2]'
    >>> len(shortened("x" * 10_000_000))
    123
    """
    if isinstance(value, (str, bytes, bytearray)):
        text = repr(value[:_VALUE_CHARS])
        return text if len(value) <= _VALUE_CHARS else text[:_VALUE_CHARS] + "..."
    text = repr(value)
    return text if len(text) <= _VALUE_CHARS else text[:_VALUE_CHARS] + "..."


def json_pointer(*parts: object) -> str:
    """Write keys and indices as a JSON pointer (RFC 6901).

    >>> json_pointer("bands", 0, "a/b")
    '/bands/0/a~1b'
    """
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in parts)


class PestoError(Exception):
    """Base class of all errors of this package; URLs in it are `masked`.

    Attributes:
        slug: Stable name of the kind of error, the last part of the problem's `type`.
        title: The kind of error in words.
        status: HTTP status of a response with this error.
        exit_code: Exit code of the command line: 1 failed, 2 refused (usage, contract, input).
        retryable: Whether the same request can succeed later.
        detail: The fault, with the values and the way out.
        fields: Every wrong field, if the error is about fields.
        retry_after_s: Seconds after which a retry is welcome, if the service stated them.
    """

    slug: ClassVar[str] = "failed"
    title: ClassVar[str] = "Failed"
    status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(
        self, detail: str, *, fields: Iterable[BadField] = (), retry_after_s: float | None = None
    ) -> None:
        super().__init__(masked(detail))
        self.detail = masked(detail)
        self.fields = tuple(each.masked() for each in fields)
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        lines = [self.detail, *(f"  {field}" for field in self.fields[:_MOST_FIELDS])]
        if len(self.fields) > _MOST_FIELDS:
            lines.append(f"  ... and {len(self.fields) - _MOST_FIELDS} more")
        return "\n".join(lines)

    @classmethod
    def of(cls, what: str, fields: Iterable[BadField]) -> Self:
        """Combine wrong fields into one error; `what` names the object that contains them."""
        found = tuple(fields)
        plural = "" if len(found) == 1 else "s"
        return cls(f"{what}: {len(found)} error{plural}", fields=found)

    def prefixed(self, where: str) -> Self:
        """Return the same error with a place before its detail: a stage, a tile, a file."""
        error = type(self)(
            f"{where}: {self.detail}", fields=self.fields, retry_after_s=self.retry_after_s
        )
        error.retryable = self.retryable  # type: ignore[misc]  # a problem document may overrule it
        return error

    def to_problem(self) -> dict[str, JsonValue]:
        """Write the error as a problem document (RFC 9457) that also carries `retryable`."""
        problem: dict[str, JsonValue] = {
            "type": f"urn:pesto:error:{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "retryable": self.retryable,
        }
        if self.fields:
            problem["errors"] = [asdict(field) for field in self.fields[:_MOST_FIELDS]]
        return problem


class InvalidInput(PestoError):
    """A request or an argument does not fit the contract."""

    slug, title, status, exit_code = "invalid-input", "Invalid input", 422, 2


class InvalidContract(PestoError):
    """A description, an overlay or an authored function contradicts itself or the schema."""

    slug, title, status, exit_code = "invalid-contract", "Invalid contract", 422, 2


class InvalidPipeline(PestoError):
    """A pipeline does not type-check; `fields` has every reason."""

    slug, title, status, exit_code = "invalid-pipeline", "Invalid pipeline", 422, 2


class NotFound(PestoError):
    """No such process, job, result or path."""

    slug, title, status, exit_code = "not-found", "Not found", 404, 2


class MethodNotAllowed(PestoError):
    """The path exists, but not for this HTTP method."""

    slug, title, status, exit_code = "method-not-allowed", "Method not allowed", 405, 2


class Damaged(NotFound):
    """An object of the run store is not as it was written; it counts as missing."""

    slug, title, status, exit_code, retryable = "damaged", "Object damaged", 500, 1, True


class Gone(PestoError):
    """A job was dismissed, or its results are no longer stored."""

    slug, title, status, exit_code = "gone", "Gone", 410, 2


class NotReady(PestoError):
    """A job has no results yet; request them later."""

    slug, title, status, retryable = "not-ready", "Not ready", 404, True


class KeyConflict(PestoError):
    """An Idempotency-Key was used before, with another request."""

    slug, title, status, exit_code = "key-conflict", "Key conflict", 409, 2


class JobInterrupted(PestoError):
    """The service ended while a job ran, and must not repeat the job by itself."""

    slug, title, status, retryable = "job-interrupted", "Job interrupted", 503, True


class BadRequest(PestoError):
    """The request cannot be understood at all: not JSON, not a known body."""

    slug, title, status, exit_code = "bad-request", "Bad request", 400, 2


class TooLarge(PestoError):
    """The request or its images are over the service's limits."""

    slug, title, status, exit_code = "too-large", "Too large", 413, 2


class TooSlow(PestoError):
    """A caller sends its request too slowly."""

    slug, title, status, retryable = "too-slow", "Too slow", 408, True


class UnsupportedMedia(PestoError):
    """The service does not accept this media type."""

    slug, title, status, exit_code = "unsupported-media", "Unsupported media type", 415, 2


class HrefRefused(PestoError):
    """An href that the gate does not admit: wrong scheme, or not below an allowed prefix."""

    slug, title, status, exit_code = "href-refused", "Href refused", 422, 2


class RasterUnreadable(PestoError):
    """A raster is missing, empty, corrupt, truncated or of a refused format."""

    slug, title, status, exit_code = "raster-unreadable", "Raster unreadable", 422, 2


class GridMismatch(PestoError):
    """Two rasters that must share one grid do not."""

    slug, title, status, exit_code = "grid-mismatch", "Grids differ", 422, 2


class SceneChanged(PestoError):
    """A scene is no longer the one that was planned: replaced, overwritten or deleted."""

    slug, title, status = "scene-changed", "Scene changed", 409


class ProcessChanged(PestoError):
    """The code of a process is no longer the one that was planned, or differs between workers."""

    slug, title, status = "process-changed", "Process changed", 409


class OtherVersion(PestoError):
    """A plan was made by a version of the package whose plans or products are other ones."""

    slug, title, status = "other-version", "Other version", 409


class NothingValid(PestoError):
    """A reduce did not find a valid pixel."""

    slug, title, status, exit_code = "nothing-valid", "Nothing valid to reduce", 422, 1


class AlgorithmFailed(PestoError):
    """The author's code raised an exception; a retry would raise it again."""

    slug, title, status = "algorithm-failed", "The algorithm failed", 500


class ContractBroken(PestoError):
    """A process returned outputs that do not fit its contract."""

    slug, title, status = "contract-broken", "The process broke its contract", 500


class ServiceMisbehaved(PestoError):
    """A service returned a response outside the PESTO protocol."""

    slug, title, status = "service-misbehaved", "The service misbehaved", 502


class CredentialsRefused(PestoError):
    """A service requires credentials, or refuses those of the request."""

    slug, title, status, exit_code = "credentials-refused", "Credentials refused", 401, 2


class Busy(PestoError):
    """The service's queue is full; retry after `retry_after_s`."""

    slug, title, status, retryable = "busy", "Busy", 503, True


class OverQuota(Busy):
    """A caller has as many calls, jobs or stored bytes as it may have; other callers go on."""

    slug, title, status = "over-quota", "Over quota", 429


class Unreachable(PestoError):
    """The service does not respond: connection refused, reset, timed out, or without workers."""

    slug, title, status, retryable = "unreachable", "Service unreachable", 503, True


class StoreFailed(PestoError):
    """The run store or an output cannot be written: permission, disk full."""

    slug, title, status = "store-failed", "Cannot write", 507


class StoreRefused(PestoError):
    """The output directory cannot be used: not a directory, not writable, or in use."""

    slug, title, status, exit_code = "store-refused", "Output refused", 409, 2


class FolderInUse(StoreRefused):
    """Another run owns the output folder, or its finished result would be overwritten."""

    slug, title = "folder-in-use", "Folder in use"


class Interrupted(PestoError):
    """The run was stopped by request; finished blocks stay stored."""

    slug, title, status, exit_code = "interrupted", "Interrupted", 503, 130


class LimitReached(PestoError):
    """A run was stopped before it exceeds a limit; `stopped` says what is done and what is left."""

    slug, title, status, exit_code = "limit-reached", "Limit reached", 503, 3
    stopped: Mapping[str, JsonValue] | None = None


class TilesFailed(PestoError):
    """Tiles of a chunk failed finally; the others are stored."""

    slug, title, status = "tiles-failed", "Tiles failed", 500


class RunFailed(PestoError):
    """A run ended without its outputs; the detail has the reasons."""

    slug, title, status = "run-failed", "Run failed", 500


def _kinds(kind: type[PestoError] = PestoError) -> Iterator[type[PestoError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _kinds(child)


def error_from_problem(
    problem: Mapping[str, JsonValue], *, status: int, retry_after_s: float | None = None
) -> PestoError:
    """Convert a problem document, or a plain `{"detail": …}`, back to its error.

    The problem's `type` decides; if it is absent or unknown, the status does (`_kind_of_status`). A
    `retryable` in the document overrules the kind. Texts are shortened: they may be megabytes.
    """
    slug = str(problem.get("type", "")).rpartition(":")[2]
    kind = {each.slug: each for each in _kinds()}.get(slug) or _kind_of_status(status)
    detail = problem.get("detail") or problem.get("title") or f"HTTP {status}"
    fields = tuple(_fields(problem))
    error = kind(_cut(str(detail)), fields=fields, retry_after_s=retry_after_s)
    if isinstance(retryable := problem.get("retryable"), bool):
        error.retryable = retryable  # type: ignore[misc]  # of this instance only
    return error


def reason_of(problem: Mapping[str, JsonValue]) -> str:
    """Return the detail of a problem document, with the first of its wrong fields.

    >>> fields = [{"pointer": "/a", "detail": "b"}, {"pointer": "/c", "detail": "d"}]
    >>> reason_of({"detail": "2 errors", "errors": fields})
    '2 errors; /a: b'
    """
    detail = str(problem.get("detail") or problem.get("type") or "")
    return "; ".join([detail, *map(str, islice(_fields(problem), 1))])


def _kind_of_status(status: int) -> type[PestoError]:
    known: dict[int, type[PestoError]] = {
        400: BadRequest, 401: CredentialsRefused, 403: CredentialsRefused, 404: NotFound,
        405: MethodNotAllowed, 407: CredentialsRefused, 408: TooSlow, 413: TooLarge,
        415: UnsupportedMedia, 429: Busy, 502: Unreachable, 503: Busy, 504: Unreachable,
    }  # fmt: skip
    return known.get(status, InvalidInput if 400 <= status < 500 else AlgorithmFailed)


def _fields(problem: Mapping[str, JsonValue]) -> Iterator[BadField]:
    errors = problem.get("errors")
    for each in errors[:_MOST_FIELDS] if isinstance(errors, list) else []:
        if isinstance(each, dict):
            value = each.get("value")
            yield BadField(
                _cut(str(each.get("pointer", ""))),
                _cut(str(each.get("detail", ""))),
                None if value is None else _cut(str(value), _VALUE_CHARS + 3),
            )


def _cut(text: str, most: int = 4 * _VALUE_CHARS) -> str:
    return text if len(text) <= most else text[: most - 3] + "..."

"""One tree of errors: each knows its status, its exit code and whether asking again can help."""

import pickle
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pesto_runtime import errors
from pesto_runtime.errors import (
    BadField,
    Busy,
    InvalidInput,
    PestoError,
    error_from_problem,
    json_pointer,
    shortened,
)

if TYPE_CHECKING:
    from pydantic import JsonValue

KINDS = sorted(
    (each for each in vars(errors).values()
     if isinstance(each, type) and issubclass(each, PestoError)),
    key=lambda kind: kind.__name__,
)  # fmt: skip
TABLE = {
    "PestoError": ("failed", 500, 1, False),
    "InvalidInput": ("invalid-input", 422, 2, False),
    "InvalidContract": ("invalid-contract", 422, 2, False),
    "InvalidPipeline": ("invalid-pipeline", 422, 2, False),
    "NotFound": ("not-found", 404, 2, False),
    "MethodNotAllowed": ("method-not-allowed", 405, 2, False),
    "BadRequest": ("bad-request", 400, 2, False),
    "TooLarge": ("too-large", 413, 2, False),
    "TooSlow": ("too-slow", 408, 1, True),
    "UnsupportedMedia": ("unsupported-media", 415, 2, False),
    "HrefRefused": ("href-refused", 422, 2, False),
    "RasterUnreadable": ("raster-unreadable", 422, 2, False),
    "GridMismatch": ("grid-mismatch", 422, 2, False),
    "SceneChanged": ("scene-changed", 409, 1, False),
    "OtherVersion": ("other-version", 409, 1, False),
    "ProcessChanged": ("process-changed", 409, 1, False),
    "Damaged": ("damaged", 500, 1, True),
    "LimitReached": ("limit-reached", 503, 3, False),
    "FolderInUse": ("folder-in-use", 409, 2, False),
    "NothingValid": ("nothing-valid", 422, 1, False),
    "AlgorithmFailed": ("algorithm-failed", 500, 1, False),
    "ContractBroken": ("contract-broken", 500, 1, False),
    "ServiceMisbehaved": ("service-misbehaved", 502, 1, False),
    "CredentialsRefused": ("credentials-refused", 401, 2, False),
    "Busy": ("busy", 503, 1, True),
    "OverQuota": ("over-quota", 429, 1, True),
    "Unreachable": ("unreachable", 503, 1, True),
    "StoreFailed": ("store-failed", 507, 1, False),
    "StoreRefused": ("store-refused", 409, 2, False),
    "Interrupted": ("interrupted", 503, 130, False),
    "TilesFailed": ("tiles-failed", 500, 1, False),
    "RunFailed": ("run-failed", 500, 1, False),
    "Gone": ("gone", 410, 2, False),
    "NotReady": ("not-ready", 404, 1, True),
    "KeyConflict": ("key-conflict", 409, 2, False),
    "JobInterrupted": ("job-interrupted", 503, 1, True),
}
MEGABYTES = "x" * 10_000_000


def test_the_table_is_the_tree() -> None:
    """Slug, status, exit code and retryable of every error; a new one must be written down."""
    table = {k.__name__: (k.slug, k.status, k.exit_code, k.retryable) for k in KINDS}
    assert table == TABLE


def test_slugs_and_titles_are_unique() -> None:
    """A slug names one kind: else a problem could not be turned back."""
    assert len({kind.slug for kind in KINDS}) == len(KINDS)
    assert len({kind.title for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_problem_turns_back_into_the_error_it_was(kind: type[PestoError]) -> None:
    """Kind, detail, fields and retryable survive the wire."""
    fields = [BadField("/a/0", "must be number", "'x'"), BadField("", "is required")]
    error = kind("it went wrong", fields=fields)
    back = error_from_problem(error.to_problem(), status=kind.status, retry_after_s=2.5)
    assert type(back) is kind
    assert (back.detail, back.fields) == (error.detail, error.fields)
    assert (back.retryable, back.retry_after_s) == (kind.retryable, 2.5)
    assert str(back) == str(error)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("retryable", [True, False])
def test_retryable_in_a_problem_overrules_the_kind(kind: type[PestoError], retryable: bool) -> None:
    """A client follows `retryable`, and passes on what it followed; its kind stays as it was."""
    problem = kind("x").to_problem() | {"retryable": retryable}
    back = error_from_problem(problem, status=kind.status)
    assert (type(back), back.retryable) == (kind, retryable)
    assert back.to_problem()["retryable"] is retryable
    assert kind.retryable is TABLE[kind.__name__][3]


@pytest.mark.parametrize("kind", KINDS)
def test_pickling_keeps_everything(kind: type[PestoError]) -> None:
    """An error crosses processes whole, an overruled `retryable` too."""
    problem = kind("detail", fields=[BadField("/a", "d", "1")]).to_problem()
    problem["retryable"] = not kind.retryable
    error = error_from_problem(problem, status=kind.status, retry_after_s=7)
    back = pickle.loads(pickle.dumps(error))  # noqa: S301  # of our own making
    assert type(back) is kind
    assert (back.detail, back.fields, back.retry_after_s, back.retryable) == (
        "detail", (BadField("/a", "d", "1"),), 7, not kind.retryable
    )  # fmt: skip


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "BadRequest"), (404, "NotFound"), (405, "MethodNotAllowed"), (409, "InvalidInput"),
     (413, "TooLarge"), (415, "UnsupportedMedia"), (422, "InvalidInput"), (429, "Busy"),
     (500, "AlgorithmFailed"), (501, "AlgorithmFailed"), (502, "Unreachable"), (503, "Busy"),
     (504, "Unreachable")],
)  # fmt: skip
@pytest.mark.parametrize("problem", [{}, {"type": "about:blank"}, {"type": "urn:other:thing"}])
def test_without_a_type_that_we_know_the_status_decides(
    status: int, kind: str, problem: dict[str, str]
) -> None:
    """A service that is not ours returns a status, and perhaps a text."""
    back = error_from_problem({**problem, "detail": "text"}, status=status)
    assert (type(back).__name__, back.detail) == (kind, "text")
    assert error_from_problem({}, status=status).detail == f"HTTP {status}"


@pytest.mark.parametrize("errors_key", [None, 3, "x", [1, None, "x"], [{}], {"a": 1}])
def test_garbage_in_a_problem_is_no_crash(errors_key: object) -> None:
    """What a broken service writes is read as far as it goes."""
    back = error_from_problem({"detail": ["not", "text"], "errors": errors_key}, status=500)  # type: ignore[dict-item]  # garbage on purpose
    assert back.detail == "['not', 'text']"
    assert len(back.fields) <= 1


@pytest.mark.parametrize(
    "value",
    [MEGABYTES, MEGABYTES.encode(), [MEGABYTES], {"a": MEGABYTES}, bytearray(10_000_000), 10**4000],
    ids=["text", "bytes", "list", "dict", "bytearray", "number"],
)
def test_ten_megabytes_make_a_short_message(value: object) -> None:
    """A value is quoted by its beginning."""
    error = InvalidInput.of("request", [BadField("/image", "must be a URI", shortened(value))])
    assert len(shortened(value)) <= 123
    assert len(str(error)) + len(str(error.to_problem())) < 1024


def test_ten_megabytes_of_another_make_a_short_message() -> None:
    """A remote service's texts are cut too, and so is their number."""
    field: dict[str, JsonValue] = {"pointer": "/a", "detail": MEGABYTES, "value": MEGABYTES}
    fields: list[JsonValue] = [field] * 1000
    one = error_from_problem({"detail": MEGABYTES}, status=500)
    assert len(str(one)) < 1024
    many = error_from_problem({"detail": MEGABYTES, "errors": fields}, status=422)
    assert len(str(many)) < 20_000


@given(st.text(max_size=200))
@settings(deadline=None, derandomize=True)
def test_a_short_value_is_quoted_whole(text: str) -> None:
    """Shortening cuts only what is long."""
    assert shortened(text[:20]) == repr(text[:20])
    assert len(shortened(text)) <= 123


def test_a_message_names_twenty_fields_and_counts_the_rest() -> None:
    """A page of errors, not a flood."""
    error = InvalidInput.of("request", [BadField(f"/{n}", "bad") for n in range(25)])
    assert error.detail == "request: 25 errors"
    assert str(error).count("bad") == 20
    assert str(error).endswith("... and 5 more")
    assert InvalidInput.of("request", [BadField("", "bad")]).detail == "request: 1 error"


def test_an_override_belongs_to_one_error() -> None:
    """Negative control of the overrides: another error of the kind keeps its own."""
    error_from_problem(Busy("x").to_problem() | {"retryable": False}, status=503)
    assert Busy("y").retryable is True


@pytest.mark.parametrize(
    ("parts", "pointer"),
    [((), ""), (("",), "/"), (("a/b", "m~n"), "/a~1b/m~0n"), ((0, "~1"), "/0/~01")],
)
def test_pointers_are_escaped_as_rfc_6901_says(parts: tuple[object, ...], pointer: str) -> None:
    """`~` first, then `/`; the empty pointer is the whole document."""
    assert json_pointer(*parts) == pointer

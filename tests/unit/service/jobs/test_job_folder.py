"""Files of jobs: whole or not there, and nobody else's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import InvalidInput, StoreFailed, StoreRefused
from pesto_runtime.service.jobs.api import JobHeaders, parse_job_headers
from pesto_runtime.service.jobs.files import JobFolder, default_folder
from pesto_runtime.service.jobs.results import JobRequest, Piece, results_of
from pesto_runtime.service.runner import Payload

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECES = (Piece("image", b"II*\0", "image/tiff"), Piece("../../etc", b"1", "application/json"))


def order(body: bytes = b"body", media_type: str = "image/tiff", **changes: object) -> JobRequest:
    """A request."""
    payload = Payload(body, media_type, {"threshold": "0.5"}, "image/tiff")
    return JobRequest(payload, **changes)  # type: ignore[arg-type]  # the test's own


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[JobFolder]:
    """A folder for jobs."""
    opened = JobFolder(tmp_path / "jobs")
    yield opened
    opened.close()


def test_a_request_comes_back_as_it_was(folder: JobFolder) -> None:
    """Body, headers, query and where its caller was."""
    rest = folder.write_request("a", order())
    assert folder.read_request("a", rest) == order()
    folder.delete_request("a")
    with pytest.raises(StoreFailed, match="No such file"):
        folder.read_request("a", rest)


def test_results_are_named_by_number_and_replace_those_of_a_run_before(folder: JobFolder) -> None:
    """So that no name of an output leads out of the folder."""
    folder.write_request("a", order())
    folder.write_results("a", (PIECES[1], PIECES[0], PIECES[0]))
    folder.write_results("a", PIECES)
    assert folder.read_results("a", results_of(PIECES)) == PIECES
    assert sorted(path.name for path in folder.result_path("a", 0).parent.iterdir()) == ["0", "1"]


def test_two_services_do_not_share_a_folder(folder: JobFolder) -> None:
    """The second would run the jobs of the first; it may once that has let go."""
    with pytest.raises(StoreRefused, match="another service"):
        JobFolder(folder.root)
    folder.close()
    JobFolder(folder.root).close()
    folder._lock = JobFolder(folder.root)._lock


def test_only_files_of_unknown_jobs_are_swept(folder: JobFolder) -> None:
    """What else a user keeps in the folder is left alone."""
    (folder.root / "precious").mkdir()
    folder.write_request("a", order())
    folder.write_request("b", order())
    folder.sweep(["a"])
    assert (folder.root / "precious").is_dir()
    assert sorted(path.name for path in (folder.root / "files").iterdir()) == ["a"]


def test_a_temporary_folder_goes_with_its_service() -> None:
    """As is wanted of a service on any port: nobody finds it again."""
    folder = JobFolder(None)
    folder.write_request("a", order())
    folder.close()
    assert not folder.root.exists()


def test_the_default_folder_is_one_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """Per process and port, below the state directory."""
    monkeypatch.setenv("XDG_STATE_HOME", "/state")
    assert default_folder("mask", 80) == Path("/state/pesto-workflows/jobs/mask-80")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert default_folder("mask", 80).is_relative_to("/home/me/.local/state")


def test_a_digest_tells_requests_apart() -> None:
    """By body, query, media types; not by who asks, nor by a boundary that changes each time."""
    assert order().digest() == order(key="k", lease_s=3.0).digest()
    assert order().digest() != order(b"other").digest()
    assert order().digest() != order(media_type="image/png").digest()
    forms = [
        order(b"--%b\r\nx\r\n--%b--" % (name, name), f'multipart/form-data; boundary="{text}"')
        for name, text in ((b"one", "one"), (b"two", "two"))
    ]
    assert forms[0].digest() == forms[1].digest()


def test_headers_ask_for_jobs() -> None:
    """Prefer, Idempotency-Key and X-Pesto-Lease; what is not understood is not asked for."""
    headers = {"prefer": "respond-async, wait=500", "idempotency-key": '"k"', "x-pesto-lease": "3"}
    all_set = JobHeaders(respond_async=True, wait_s=30.0, key="k", lease_s=3.0)
    assert parse_job_headers(headers) == all_set
    unknown = parse_job_headers({"prefer": "return=minimal, wait=soon"})
    assert unknown == JobHeaders() == parse_job_headers({})


@pytest.mark.parametrize(
    "headers",
    [{"idempotency-key": ""}, {"idempotency-key": "k" * 256}, {"x-pesto-lease": "0"},
     {"x-pesto-lease": "soon"}, {"x-pesto-lease": "nan"}, {"x-pesto-lease": "-1"}],
)  # fmt: skip
def test_headers_that_make_no_sense_are_refused(headers: dict[str, str]) -> None:
    """A promise that cannot be kept is not made."""
    with pytest.raises(InvalidInput):
        parse_job_headers(headers)

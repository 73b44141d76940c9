"""Log lines: how many of one place are written, and what is taken out of them."""

from __future__ import annotations

import io
import json
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.service import logs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.service.logs import LogFormat


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is written, with a clock that the test moves."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("json", stream=stream)
    yield stream
    root.handlers[:], root.level = before, level


def test_a_flood_from_one_place_is_counted_not_written(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twenty in ten seconds; other places, and lines of access, are not affected."""
    now = 100.0
    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: now))
    log = logging.getLogger("pesto_runtime.service.test")
    for number in range(50):
        log.error("request %d is wrong", number)
        log.info("access %d", number)
    log.error("another place")
    lines = [json.loads(line)["message"] for line in written.getvalue().splitlines()]
    assert [each for each in lines if "wrong" in each] == [
        f"request {number} is wrong" for number in range(20)
    ]
    assert sum("access" in each for each in lines) == 50
    assert lines[-1] == "another place"


def test_the_first_line_of_a_period_has_the_count(
    written: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same place in the code."""
    now = 0.0
    monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: now))
    log = logging.getLogger("pesto_runtime.service.test")
    for number in range(35):
        now = 11.0 if number == 33 else now
        log.warning("line %d", number)
    lines = [json.loads(line)["message"] for line in written.getvalue().splitlines()]
    assert lines[19:] == [
        "line 19", "line 33 (13 such lines before this one were left out)", "line 34",
    ]  # fmt: skip


def test_credentials_of_urls_are_not_written(written: io.StringIO) -> None:
    """Whoever logs them: GDAL does so with its own names of files."""
    logging.getLogger("rasterio._env").warning("CPLE %s", "/vsicurl/http://h/a.tif?token=secret")
    assert "secret" not in written.getvalue()
    assert "token=" in written.getvalue()


@pytest.mark.parametrize("form", ["json", "text"])
@pytest.mark.usefixtures("written")
def test_credentials_in_tracebacks_are_not_written(form: LogFormat) -> None:
    """An exception of a library has the URL that it was given."""
    stream = io.StringIO()
    logs.configure(form, stream=stream)
    try:
        int("https://me:secret@h/a.tif?token=hidden")
    except ValueError:
        logging.getLogger("pesto_runtime").exception("failed")
    line = stream.getvalue()
    assert "https://…@h/a.tif?token=…" in line
    assert "hidden" not in line
    assert "secret" not in line

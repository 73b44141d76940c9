"""The pages do what they say: every block of README and docs runs, and shows its real output."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.schema import schema_faults
from tests.docs.markdown import RUN, Block, blocks, pages, title_of
from tests.docs.session import Session, commands, compare
from tests.support.schema_files import schema_document

if TYPE_CHECKING:
    from pathlib import Path

_JSON = [block for page in pages() for block in blocks(page) if block.language == "json"]


def _is_run(block: Block) -> bool:
    means_something = block.language in RUN or {"file", "prints"} & set(block.marks)
    return bool(means_something) and "not run" not in block.marks


@pytest.mark.integration
@pytest.mark.parametrize("page", pages(), ids=title_of)
def test_a_page_runs_from_top_to_bottom(page: Path, tmp_path: Path):
    """Every block that is not marked otherwise runs, and shows what it really shows."""
    found = [block for block in blocks(page) if _is_run(block)]
    if any("curl " in block.text for block in found) and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    with Session(page, tmp_path) as session:
        for block in found:
            session.run(block)


@pytest.mark.parametrize("block", _JSON, ids=lambda block: f"{title_of(block.page)}:{block.line}")
def test_json_on_a_page_is_json_and_fits_the_schema_it_names(block: Block):
    """A JSON block parses; one that names a schema validates against the file in schemas/."""
    if "not run" in block.marks:
        pytest.skip(block.marks["not run"])
    document = json.loads(block.text)
    if "schema" in block.marks:
        faults = schema_faults(schema_document(block.marks["schema"]), document)
        assert [str(fault) for fault in faults] == []


@pytest.mark.parametrize("page", pages(), ids=title_of)
def test_what_is_not_run_says_why(page: Path):
    """A block that is only for reading gives a reason, so that none is left out by mistake."""
    for block in blocks(page):
        assert block.marks.get("not run") != "", f"{block.where}: no reason given"


def test_an_output_that_differs_from_the_page_is_noticed():
    """The control: another word, or a line too many, fails; seconds and hashes may differ."""
    shown = "COMPLETE in 0.2 s: 4 tiles\n  mask  sha256 1a2e35dd88463a18\n..."
    compare(shown, "COMPLETE in 1.75 s: 4 tiles\n  mask  sha256 0123456789abcdef\nmore\n", "here")
    for wrong in ("PARTIAL in 0.2 s: 4 tiles\n", "COMPLETE in 0.2 s: 5 tiles\n", ""):
        with pytest.raises(AssertionError, match="the page shows"):
            compare("COMPLETE in 0.2 s: 4 tiles", wrong, "here")
    with pytest.raises(AssertionError, match="the page shows"):
        compare("one line", "one line\nanother\n", "here")


def test_a_command_that_fails_without_the_page_saying_so_is_noticed(tmp_path: Path):
    """The control: an exit code that is not 0 fails, unless `echo $?` shows it."""
    page = tmp_path / "page.md"
    page.write_text("```console\n$ false\n```\n")
    (folder := tmp_path / "work").mkdir()
    with Session(page, folder) as session:
        session.run(Block(page, 2, "console", "$ false\n$ echo $?\n1\n"))
        with pytest.raises(AssertionError, match="exit code 1"):
            session.run(next(blocks(page)))


def test_a_command_over_several_lines_is_one():
    """A backslash at the end of a line continues the command; the rest is its output."""
    assert list(commands("$ a \\\n  b\nout\n$ c\n")) == [("a \\\n  b", "out"), ("c", "")]

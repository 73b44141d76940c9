"""The pages use the words of the glossary, and none of the words that it excludes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.docs.markdown import ROOT, pages, prose, title_of

if TYPE_CHECKING:
    from pathlib import Path

GLOSSARY = ROOT / "docs" / "glossary.md"


@pytest.mark.parametrize("page", [page for page in pages() if page != GLOSSARY], ids=title_of)
def test_a_page_has_no_word_that_the_glossary_excludes(page: Path):
    """The column "do not say" of the glossary is a list of words that no page uses."""
    assert excluded_in(prose(page), excluded_words(GLOSSARY.read_text())) == []


def test_an_excluded_word_is_noticed():
    """The control: a word of the table is found, also at the start of a sentence, not in code."""
    words = excluded_words("| say | do not say |\n|---|---|\n| report | `told`, `let go` |\n")
    assert words == ["told", "let go"]
    assert excluded_in("Told twice. Then let\ngo of it; `told` is code.", words) == [
        "told",
        "let go",
    ]
    assert excluded_in("It is reported, and untold numbers remain.", words) == []


def excluded_words(glossary: str) -> list[str]:
    """Words in backticks in the second column of the table "say, do not say"."""
    (rows,) = re.findall(r"^\| say \| do not say \|\n\|-.*\n((?:\|.*\n)+)", glossary, re.MULTILINE)
    return [
        word for row in rows.splitlines() for word in re.findall(r"`([^`]+)`", row.split("|")[2])
    ]


def excluded_in(text: str, words: list[str]) -> list[str]:
    """Those of the words that a text has outside its inline code."""
    plain = " ".join(re.sub(r"`[^`]*`", "", text).lower().split())
    return [word for word in words if re.search(rf"\b{re.escape(word)}\b", plain)]

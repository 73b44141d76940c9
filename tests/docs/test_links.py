"""Links on pages lead somewhere, on the code host as on the site; no site is built for it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.docs.markdown import ROOT, pages, prose, title_of

if TYPE_CHECKING:
    from pathlib import Path

_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
_ALSO = ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "SECURITY.md")
_LINKED = [*pages(), *(ROOT / name for name in _ALSO)]


@pytest.mark.parametrize("page", _LINKED, ids=title_of)
def test_a_relative_link_leads_somewhere(page: Path):
    """Every link without a scheme is a file of the project, and its anchor a heading of it."""
    assert dead_links(page) == []


def test_a_dead_link_is_noticed(tmp_path: Path):
    """The control: a missing file, a missing anchor and a missing image are each reported."""
    (tmp_path / "other.md").write_text("## A `b` c-d, e?\n")
    (page := tmp_path / "page.md").write_text(
        "# Title\n[a](other.md#a-b-c-d-e) [b](#title) [c](https://example.com/none)\n"
        "[d](none.md) [e](other.md#none) [f](#none) ![g](none.png)\n"
        "```python\na[0](none)\n```\n"
    )
    assert dead_links(page) == ["none.md", "other.md#none", "#none", "none.png"]


def dead_links(page: Path) -> list[str]:
    """The relative links of a page whose file or heading does not exist."""
    links = ["".join(found) for found in _LINK.findall(prose(page))]
    return [link for link in links if not _is_external(link) and not _leads(link, page)]


def _is_external(link: str) -> bool:
    return "://" in link or link.startswith("mailto:")


def _leads(link: str, page: Path) -> bool:
    path, _, anchor = link.partition("#")
    target = page.parent / path if path else page
    return target.exists() and (not anchor or anchor in _anchors(target))


def _anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).strip().replace(" ", "-") for text in headings}

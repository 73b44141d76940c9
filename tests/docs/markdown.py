"""Pages of README and docs, and the fenced blocks in them. Reads; runs nothing.

A comment on the line before a block marks it:

- `<!-- not run: reason -->`: it is for reading only.
- `<!-- file: name.py -->`: it is the content of a file in the page's working directory.
- `<!-- schema: name -->`: it fits `schemas/name.json`.
- `<!-- prints -->`: it is what the Python block before it prints.

`<!-- needs: page.md -->` anywhere in a page gives it the files of another page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[2]
RUN = ("python", "console", "bash", "json")
_MARK = re.compile(r"<!--\s*([a-z ]+?)\s*(?::\s*(.*?))?\s*-->")
_KNOWN = ("not run", "file", "schema", "prints")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: Its file.
        line: Of its first line of text, from 1.
        language: As the fence says; empty where it says none.
        text: Between the fences, with its last newline.
        marks: Mark -> what stands behind its colon.
    """

    page: Path
    line: int
    language: str
    text: str
    marks: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Where it stands, as an editor opens it."""
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """README, CONTRIBUTING and every page of docs."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if page.exists()]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, in order."""
    lines = page.read_text().splitlines()
    marks: dict[str, str] = {}
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if line.startswith("```"):
            end = lines.index("```", number)
            text = "".join(f"{each}\n" for each in lines[number:end])
            yield Block(page, number + 1, line[3:].strip(), text, dict(marks))
            number = end + 1
            marks = {}
        elif match := _MARK.fullmatch(line.strip()):
            marks |= {match[1]: match[2] or ""} if match[1] in _KNOWN else {}
        elif line.strip():
            marks = {}


def needed(page: Path) -> list[Path]:
    """Pages whose files a page builds on."""
    found = re.findall(r"<!-- needs: (\S+) -->", page.read_text())
    return [page.parent / name for name in found]


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def title_of(page: Path) -> str:
    """How a test names a page."""
    return page.relative_to(ROOT).as_posix()

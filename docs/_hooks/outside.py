"""Make pages of the project that are not in docs/ pages of the site, and lead links to them.

Links in the sources are those of the code host: relative to the file. A file outside docs/ has its
own path in the site too, so that only links that cross the border of docs/ are changed. A file that
is not a page, as a schema, is copied into the site when a page links to it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
_PAGES = ("CHANGELOG.md", "CODE_OF_CONDUCT.md", "CONTRIBUTING.md", "SECURITY.md")
_RESULTS = "benchmarks/**/RESULTS.md"
_INSTEAD = {"README.md": "docs/index.md"}
_LINK = re.compile(r"(?<=\]\()([^)\s#:]+)(?=[)#])")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Write out entries of the navigation that end in `/*`: all pages of a folder, by name."""
    if config.nav is not None:
        config.nav = _written_out(config.nav, Path(config.docs_dir))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that stand outside docs/."""
    for path in (*_PAGES, *_results()):
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Change the links that cross the border of docs/, and add the files that they lead to."""
    here = page.file.src_uri
    source = here if page.file.generated_by else f"docs/{here}"

    def changed(found: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join(posixpath.dirname(source), found[0]))
        target = _INSTEAD.get(path, path)
        if {target.startswith("docs/"), source.startswith("docs/")} == {True}:
            return found[0]
        if not (ROOT / target).is_file():
            return found[0]
        uri = target.removeprefix("docs/")
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / target)))
        return posixpath.relpath(uri, posixpath.dirname(here) or ".")

    return _LINK.sub(changed, markdown)


def _results() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob(_RESULTS))


def _written_out(entries: list[object], docs: Path) -> list[object]:
    found: list[object] = []
    for entry in entries:
        if isinstance(entry, dict):
            found.append(
                {
                    title: _written_out(part, docs) if isinstance(part, list) else part
                    for title, part in entry.items()
                }
            )
        elif isinstance(entry, str) and entry.endswith("/*"):
            folder = docs / entry[:-2]
            pages = sorted(page.relative_to(docs).as_posix() for page in folder.glob("*.md"))
            found += [page for page in pages if not page.endswith("/index.md")]
        else:
            found.append(entry)
    return found

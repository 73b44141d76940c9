"""The control of `make site`: what would be wrong on the site fails its build, each by name."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from tests.docs.markdown import ROOT

if TYPE_CHECKING:
    from pathlib import Path

_PLANTED = """
[a](none.md) [b](../contract/index.md#none) [c](../../CHANGELOG.md#none)
[d](../../schemas/none.json)
"""
_NOTICED = (
    r"not included in the \"nav\" configuration:(\s+- \S+)*\s+- how-to/planted\.md",
    r"'none\.md'.*not found",
    r"'\.\./contract/index\.md#none'.* does not contain an anchor",
    r"'\.\./CHANGELOG\.md#none'.* does not contain an anchor",
    r"'\.\./\.\./schemas/none\.json'.*not found",
)


@pytest.mark.integration
def test_a_dead_link_or_a_lost_page_fails_the_build(tmp_path: Path):
    """The build names the page outside the navigation and each dead link, and fails."""
    recipe = re.search(r"mkdocs (build .*)", (ROOT / "Makefile").read_text())
    assert recipe
    for name in ("docs", "benchmarks"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("reference"))
    for file in (ROOT / "mkdocs.yml", *ROOT.glob("*.md")):
        shutil.copy(file, tmp_path)
    (tmp_path / "docs" / "how-to" / "planted.md").write_text(_PLANTED)
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", *recipe[1].split()],
        cwd=tmp_path, text=True, capture_output=True, check=False, timeout=100,
    )  # fmt: skip
    assert built.returncode == 1
    assert [each for each in _NOTICED if not re.search(each, built.stderr)] == []

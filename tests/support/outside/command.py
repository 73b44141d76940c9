"""The `pesto` command inside this process, by the entry point that `pyproject.toml` declares."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import sys
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.file_server import serving, use

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROOT = Path(__file__).parents[3]
DATA = ROOT / "tests" / "data" / "outside"
PROCESSES = f"{DATA}/processes.py"


def entry_points() -> list[EntryPoint]:
    """Every entry point that `pyproject.toml` declares, scripts included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups: Mapping[str, Mapping[str, str]] = {
        "console_scripts": project["scripts"],
        **project["entry-points"],
    }
    return [
        EntryPoint(name, value, group)
        for group, entries in groups.items()
        for name, value in entries.items()
    ]


def entry_point(group: str, name: str) -> object:
    """Load one entry point."""
    (found,) = (each for each in entry_points() if (each.group, each.name) == (group, name))
    return found.load()


def pesto(*words: object, code: int = 0) -> str:
    """Run a command, require its exit code, and return its standard output."""
    out, before, argv = io.StringIO(), signal.getsignal(signal.SIGTERM), sys.argv
    sys.argv = ["pesto", *map(str, words)]
    try:
        with contextlib.redirect_stdout(out):
            entry_point("console_scripts", "pesto")()  # type: ignore[operator]  # a function
    except SystemExit as end:
        if (end.code or 0) != code:
            raise RuntimeError(f"{' '.join(sys.argv)}: exit code {end.code}, not {code}") from end
    finally:
        sys.argv = argv
        signal.signal(signal.SIGTERM, before)
    return out.getvalue()


@contextlib.contextmanager
def fixed_scenes(folder: Path) -> Iterator[Mapping[str, str]]:
    """Scenes whose hrefs and identities are the same on every machine: name -> href.

    Both are part of block keys. A file has an inode, which nobody can choose; an object of S3 has a
    hash of its content.
    """
    hrefs, bucket = {}, folder / "served" / "scenes"
    bucket.mkdir(parents=True)
    for scene in (*DATA.glob("*.tif"), ROOT / "examples" / "data" / "landsat8_cloudy.tif"):
        shutil.copy(scene, bucket)
        hrefs[scene.stem] = f"s3://scenes/{scene.name}"
    with (
        serving(bucket.parent, folder / "requests.log") as server,
        pytest.MonkeyPatch.context() as m,
    ):
        use(server.gdal_variables, m)
        m.chdir(folder)
        yield hrefs

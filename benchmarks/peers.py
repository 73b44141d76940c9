"""An environment of its own for EOScale, whose dependencies would change those of the project.

Two peers do not take part, because on 2026-11-28 neither the package index nor Debian 12 has them:
`gdal raster pipeline` needs GDAL 3.11 (Debian has 3.6, rasterio's wheels have no programs, `gdal`
is sources only); pyotb needs the Python bindings of an Orfeo ToolBox, and Debian's has none.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

VERSION = "1.0.0"
_SHARED = ("numpy", "rasterio", "scipy")


def eoscale_python(folder: Path, *, install: bool) -> Path | None:
    """An interpreter that has EOScale and the project's own numpy, rasterio and scipy.

    Args:
        folder: Where the environment is, or is made.
        install: Whether to make it where it is missing.

    Returns:
        None where there is none, or it could not be installed; says why on stderr.
    """
    python = folder / "bin" / "python"
    if not _has(python) and install:
        _install(folder, python)
    return python.absolute() if _has(python) else None


def _has(python: Path) -> bool:
    if not python.exists():
        return False
    asked = f"import eoscale; assert eoscale.__version__ == '{VERSION}'"
    return not subprocess.run([python, "-c", asked], check=False, capture_output=True).returncode


def _install(folder: Path, python: Path) -> None:
    venv.create(folder, with_pip=True)
    wanted = [f"{name}=={version(name)}" for name in _SHARED]
    command = [str(python), "-m", "pip", "install", "--quiet", f"eoscale=={VERSION}", *wanted]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        print(f"EOScale is left out, pip failed: {done.stderr.strip()[-300:]}", file=sys.stderr)

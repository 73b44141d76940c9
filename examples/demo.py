"""The demo: three services over HTTP, discovered and chained over a cloudy Landsat 8 scene.

Run by `make demo`. Everything it does, it does by the commands that it prints.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import rasterio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ROOT = Path(__file__).resolve().parent.parent
PESTO = Path(sys.executable).with_name("pesto")
SERVED = ("cloud_mask", "sieve", "cloud_cover")
SCENE = Path("examples/data/landsat8_cloudy.tif")
QUALITY = Path("examples/data/landsat8_bqa.tif")
CLOUD_CONFIDENCE_SHIFT, CLOUD = 14, 3


def main(out: Path) -> None:
    """Serve, discover, run, compare."""
    with served(SERVED) as urls:
        catalog = str(out / "catalog")
        pesto("discover", *urls, "--save", catalog)
        pesto("run", "workflows/cloud_cover.json", "--services", catalog,
              "-i", f"scene={SCENE}", "-o", str(out), "--fresh")  # fmt: skip
    say(f"\n{agreement(out / 'mask.tif')}")
    say(f"open {out / 'report.html'}")


@contextmanager
def served(names: Sequence[str]) -> Iterator[list[str]]:
    """Serve examples on free ports; answers their URLs once all are ready, ends them after use."""
    with ExitStack() as servers:
        started = []
        for name in names:
            command = ["serve", f"examples/{name}.py:{name}", "--port", "0"]
            say(f"$ pesto {shlex.join(command)} &")
            server = subprocess.Popen(  # noqa: S603  # our own command
                [PESTO, *command], cwd=ROOT, stderr=subprocess.PIPE, text=True
            )
            servers.enter_context(server)
            servers.callback(server.terminate)
            started.append(server)
        yield [ready(server) for server in started]


def ready(server: subprocess.Popen[str]) -> str:
    """Wait until a service says where it is."""
    told = []
    for line in server.stderr or ():
        told.append(line)
        if match := re.search(r"serving .* on (http://\S+)/api/v1", line):
            return match[1]
    sys.exit(f"a service did not start:\n{''.join(told)}")


def pesto(*arguments: str) -> None:
    """Run a command of ours, and end with its exit code where it fails."""
    say(f"$ pesto {shlex.join(arguments)}")
    code = subprocess.run([PESTO, *arguments], cwd=ROOT, check=False).returncode  # noqa: S603  # our own command
    if code:
        sys.exit(code)


def agreement(mask: Path) -> str:
    """Compare a cloud mask with the scene's quality band, pixel by pixel."""
    with rasterio.open(ROOT / mask) as made, rasterio.open(ROOT / QUALITY) as quality:
        cloud = made.read(1) == 1
        truth = quality.read(1) >> CLOUD_CONFIDENCE_SHIFT == CLOUD
    hit = np.count_nonzero(cloud & truth)
    f1 = 2 * hit / (np.count_nonzero(cloud) + np.count_nonzero(truth))
    return (
        f"agreement with the USGS quality band: F1 {f1:.3f} on cloud, "
        f"{(cloud == truth).mean():.1%} of pixels (an all-clear mask: F1 0, {(~truth).mean():.1%})"
    )


def say(text: str) -> None:
    """Tell the reader of the demo."""
    print(text, flush=True)  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out"))

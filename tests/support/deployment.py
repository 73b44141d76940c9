"""A service of a small author's file on a fixed port: stopped, edited, and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from tests.support.commands import PESTO, ROOT, waited

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = '''
import time
from pathlib import Path
from typing import Annotated
import numpy as np
from pesto_runtime import Named, Raster, process

Grey = Raster(bands=["grey"], dtype="uint8")


def told():
    with Path({log!r}).open("a") as file:
        file.write("call\\n")
    time.sleep({seconds})


@process(version={version!r}, margin={margin})
def shade(image: Annotated[np.ndarray, Grey]) -> Annotated[
    np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8")
]:
    """Add a number."""
    told()
    return image + {added}


def divided(partial: dict[str, int]) -> Annotated[float, Named("mean")]:
    """Divide the sums."""
    return {added} + partial["sum"] / partial["count"]


@process(version={version!r}, reduce={{"sum": "sum", "count": "sum"}}, finish=divided)
def shade_mean(image: Annotated[np.ndarray, Grey]) -> dict[str, int]:
    """Mean of a raster."""
    return {{"sum": int(image.sum(dtype=np.int64)), "count": image.size}}


@process(version={version!r}, margin=0, batched=True, max_batch_size=4)
def shade_batch(image: Annotated[np.ndarray, Grey]) -> Annotated[
    np.ndarray, Raster(name="image", bands=["grey"], dtype="uint8")
]:
    """Add a number; up to four images per request."""
    return image + {added}
'''


def free_port() -> int:
    """Return a port that no process uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


@dataclass
class Deployment:
    """A service that can be stopped, given other code, and started again where it was.

    Attributes:
        folder: Contains the author's file, and the log of its calls.
        function: The process of the file that is served.
        port: Its port.
        process: The running service; None while it is stopped.
    """

    folder: Path
    function: str = "shade"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/api/v1"

    @property
    def target(self) -> str:
        """Its function, as a target."""
        return f"{self.folder}/shades.py:{self.function}"

    @property
    def calls(self) -> int:
        """How often `shade` was called, by any code."""
        log = self.folder / "calls"
        return len(log.read_text().splitlines()) if log.exists() else 0

    def write(
        self, *, added: int = 1, version: str = "1", margin: int = 0, seconds: float = 0.0
    ) -> None:
        """Write the author's file."""
        self.folder.mkdir(exist_ok=True)
        text = SOURCE.format(
            log=str(self.folder / "calls"),
            added=added,
            version=version,
            margin=margin,
            seconds=seconds,
        )
        (self.folder / "shades.py").write_text(text)

    def start(self) -> None:
        """Start the service; it need not be ready."""
        words = ["serve", self.target, "--port", str(self.port), "--workers", "1", "--allow", "/"]
        self.process = subprocess.Popen(
            [*PESTO, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def ready(self) -> None:
        """Start the service, and wait until it is ready."""
        self.start()
        waited(self._is_ready, 90)

    def kill(self) -> None:
        """SIGKILL it."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", trust_env=False).text == "OK"
        except httpx.HTTPError:
            return False


@contextmanager
def deployed(folder: Path, function: str = "shade", **code: object) -> Iterator[Deployment]:
    """A service that is ready; killed at the end."""
    deployment = Deployment(folder, function)
    deployment.write(**code)  # type: ignore[arg-type]  # as given
    try:
        deployment.ready()
        yield deployment
    finally:
        deployment.kill()


def document(*processes: str) -> dict[str, object]:
    """A pipeline whose first stage reads the scene, and each other one the stage before."""
    ids = [f"s{number}" for number in range(len(processes))]
    reads = ["$inputs.scene", *(f"${each}.image" for each in ids)]
    return {
        "name": "shades",
        "inputs": {"scene": "image"},
        "stages": [
            {"id": each, "process": process, "inputs": {"image": read}}
            for each, process, read in zip(ids, processes, reads, strict=False)
        ],
        "outputs": {"made": f"${ids[-1]}.{'mean' if 'mean' in processes[-1] else 'image'}"},
    }

"""Run the service of an image on a free port of this machine, and stop it at the end.

Docker and podman run it as a container; buildah, which has no daemon, runs its entry point.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from pesto_runtime.errors import NotFound, RunFailed
from pesto_runtime.projects.containerfile import DIGEST_LABEL, PORT
from pesto_runtime.projects.image_building import BUILDERS

if TYPE_CHECKING:
    from collections.abc import Iterator

_IMAGE = re.compile(r"[a-z0-9][a-z0-9._/:-]*:(\w[\w.-]*)")
_STOP_S = 60.0
_UNNAMED = "<none>"


def is_image(target: str) -> bool:
    """Whether a text is NAME:VERSION of an image, and no target: a version is no function's name.

    >>> is_image("scaled:1.2.0-gpu"), is_image("scaled.py:scaled"), is_image("package:function")
    (True, False, False)
    """
    found = _IMAGE.fullmatch(target)
    return found is not None and not found[1].isidentifier()


@contextmanager
def running_image(image: str) -> Iterator[str]:
    """Return the URL of the service of an image, which may not be ready yet.

    Raises:
        NotFound: no engine on this machine has the image.
        RunFailed: the image cannot be run.
    """
    engine = next((name for name in BUILDERS if _has_image(name, image)), None)
    if engine is None:
        raise NotFound(
            f"none of {', '.join(BUILDERS)} has the image {image}; `pesto build` makes it"
        )
    if engine == "buildah":
        with _run_by_buildah(image) as url:
            yield url
        return
    container = _output(engine, "run", "-d", "--rm", "-p", f"127.0.0.1::{PORT}", image)
    try:
        address = _output(engine, "port", container, f"{PORT}/tcp").splitlines()[0]
        yield f"http://{address}"
    finally:
        _output(engine, "stop", container)


@contextmanager
def _run_by_buildah(image: str) -> Iterator[str]:
    container = _output("buildah", "from", "--pull-never", image)
    try:
        document = json.loads(_output("buildah", "inspect", container))
        config = document["OCIv1"]["config"]
        entry = [*(config.get("Entrypoint") or []), *(config.get("Cmd") or [])]
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = str(free.getsockname()[1])
        words = [port if each == str(PORT) else each for each in entry]
        with subprocess.Popen(  # noqa: S603  # buildah, and the entry point of the image
            ["buildah", "run", container, "--", *words],  # noqa: S607
            stdout=2, start_new_session=True,
        ) as process:  # fmt: skip
            try:
                yield f"http://127.0.0.1:{port}"
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(_STOP_S)
    finally:
        _output("buildah", "rm", container)


def built_images() -> list[tuple[str, str, str, str]]:
    """Return the images of `pesto build` on this machine: name, version, engine, id."""
    found = []
    for engine in filter(shutil.which, BUILDERS):
        name = "{{.Name}}" if engine == "buildah" else "{{.Repository}}"
        words = [engine, "images", "--filter", f"label={DIGEST_LABEL}",
                 "--format", f"{name} {{{{.Tag}}}} {{{{.ID}}}}"]  # fmt: skip
        done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603  # as below
        lines = [] if done.returncode else map(str.split, done.stdout.splitlines())
        found += [(line[0], line[1], engine, line[2]) for line in lines if line[0] != _UNNAMED]
    return found


def _has_image(engine: str, image: str) -> bool:
    if shutil.which(engine) is None:
        return False
    words = (engine, "images", "-q", image)
    done = subprocess.run(words, capture_output=True, check=False)  # noqa: S603  # as below
    return done.returncode == 0 and bool(done.stdout.strip())


def _output(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603  # the engine
    if done.returncode:
        raise RunFailed(f"{' '.join(words[:2])}: {done.stderr.strip()[-300:]}")
    return done.stdout.strip()

"""Build an image from a context by buildah, docker or podman."""

from __future__ import annotations

import shutil
import subprocess
import uuid
from typing import TYPE_CHECKING

from pesto_runtime.errors import NotFound, RunFailed
from pesto_runtime.projects.containerfile import rebuilding

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pesto_runtime.projects.build_context import BuildContext

BUILDERS = ("buildah", "docker", "podman")


def build_image(
    context: BuildContext, *, level: str | None = None, options: Sequence[str] = ()
) -> str:
    """Build an image, and return the builder's name; its output goes to stderr.

    Args:
        context: The context.
        level: Cache level up to which layers are reused, `C1` to `C3`; all equal layers if None.
        options: Further options of the builder.

    Raises:
        NotFound: there is no builder.
        RunFailed: the build failed.
    """
    builder = next((name for name in BUILDERS if shutil.which(name)), None)
    if builder is None:
        raise NotFound(
            f"none of {', '.join(BUILDERS)} is installed; --context-only writes {context.folder} "
            "for a build elsewhere"
        )
    words = [builder, "build", "-t", context.tag, "-f", str(context.folder / "Containerfile")]
    # Buildah's own format has no HEALTHCHECK, and it caches layers only on request.
    words += ["--format", "docker", "--layers"] if builder == "buildah" else []
    argument = rebuilding(level)
    words += ["--build-arg", f"{argument}={uuid.uuid4().hex}"] if argument else []
    done = subprocess.run(  # noqa: S603  # the builder, with options of its user
        [*words, *options, str(context.folder)], stdout=2, check=False
    )
    if done.returncode:
        raise RunFailed(f"{builder} failed with exit code {done.returncode}; its log has the step")
    return builder

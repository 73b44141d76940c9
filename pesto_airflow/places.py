"""Where a task reads and writes: absolute, as a worker's working directory is nobody's choice."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.errors import InvalidInput, shortened
from pesto_runtime.hrefs import looks_like_href

if TYPE_CHECKING:
    from collections.abc import Mapping


def require_absolute_path(name: str, path: str | Path) -> Path:
    """A path that a task may write to.

    Raises:
        InvalidInput: it is relative; names it, and the way out.
    """
    if not Path(path).is_absolute():
        raise _refused([f"{name} {shortened(str(path))}"], "an absolute path")
    return Path(path)


def require_absolute_images(images: Mapping[str, str]) -> None:
    """Hold images that a task reads to the same; an href is as good as a path.

    Args:
        images: Input name -> path or href.

    Raises:
        InvalidInput: some are relative; names each, and the way out.
    """
    relative = [
        f"input {name!r} {shortened(image)}"
        for name, image in images.items()
        if not looks_like_href(image) and not Path(image).is_absolute()
    ]
    if relative:
        raise _refused(relative, "an absolute path or an href")


def _refused(relative: list[str], wanted: str) -> InvalidInput:
    verb = "is a relative path" if len(relative) == 1 else "are relative paths"
    return InvalidInput(
        f"{', '.join(relative)} {verb}, and would be looked for in the working directory of "
        f"whatever worker runs the task; give {wanted}"
    )

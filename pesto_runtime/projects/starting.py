"""Make a new project from a template: a folder of files with `$name` and other placeholders.

A file `NAME.tmpl` becomes `NAME`; others are copied as they are. Placeholders are those of Python's
`string.Template`, also in names: `$name`, `$identifier`, `$title`, `$organization`, `$email`.
"""

from __future__ import annotations

import keyword
import re
import shutil
import tempfile
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import numpy as np

from pesto_runtime.errors import BadField, InvalidInput, NotFound, StoreFailed, StoreRefused
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Image

if TYPE_CHECKING:
    from collections.abc import Mapping

STYLES = ("function", "project")
_TEMPLATES = Path(__file__).parent / "templates"
_SUFFIX = ".tmpl"
_NAME = re.compile(r"[a-z][a-z0-9-]*")
_THRESHOLD = 100
_CASES = {"function": ("tests/resources", "scene"), "project": ("pesto/tests/resources", "image")}


def start_project(
    folder: Path, *, style: str = "function", template: Path | None = None,
    facts: Mapping[str, str] | None = None,
) -> list[Path]:  # fmt: skip
    """Write a new project; nothing is written if there is an error.

    Args:
        folder: A folder that does not exist, or is empty; its name is that of the process.
        style: One of `STYLES`; not used with a template.
        template: A folder of the user's own template.
        facts: `organization`, `email`, `title`; texts for the placeholders.

    Returns:
        The files, sorted.

    Raises:
        InvalidInput: the name is not lower-case letters, digits and hyphens, or is reserved; or a
            placeholder of the template is unknown.
        NotFound: there is no such template.
        StoreRefused: the folder has files.
        StoreFailed: it cannot be written.
    """
    values = _placeholders(folder.resolve().name, facts or {})
    source = template or _TEMPLATES / style
    if not source.is_dir():
        raise NotFound(f"{source}: there is no such template; {' and '.join(STYLES)} are built in")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise StoreRefused(f"{folder} exists and is not empty; choose another name")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".pesto-init-") as work:
            made = Path(work) / folder.name
            _fill(source, made, values)
            if template is None:
                _write_case(made, style)
            if folder.exists():
                folder.rmdir()
            made.rename(folder)
    except (KeyError, ValueError) as error:
        raise InvalidInput(
            f"{source}: a placeholder is unknown or malformed ({error}); there are "
            f"{', '.join(values)}; a dollar sign is $$"
        ) from error
    except OSError as error:
        raise StoreFailed(f"{folder}: {error.strerror or error}") from error
    return sorted(file for file in folder.rglob("*") if file.is_file())


def _placeholders(name: str, facts: Mapping[str, str]) -> dict[str, str]:
    identifier = name.replace("-", "_")
    if not _NAME.fullmatch(name) or keyword.iskeyword(identifier):
        fault = BadField(
            "/name", "must be lower-case letters, digits and hyphens, and no word of Python"
        )
        raise InvalidInput.of(f"the name {name!r}", [fault])
    for key, text in facts.items():
        if any(each in text for each in '"\\\n'):
            fault = BadField(f"/{key}", "must not contain quotes, backslashes or line ends", text)
            raise InvalidInput.of("facts of the project", [fault])
    return {
        "name": name,
        "identifier": identifier,
        "title": name.replace("-", " ").capitalize(),
        "organization": "example",
        "email": "nobody@example.org",
        **{key: text for key, text in facts.items() if text},
    }


def _fill(source: Path, folder: Path, values: Mapping[str, str]) -> None:
    for file in sorted(source.rglob("*")):
        if not file.is_file() or "__pycache__" in file.parts:
            continue
        relative = Template(str(file.relative_to(source))).safe_substitute(values)
        target = folder / relative.removesuffix(_SUFFIX)
        target.parent.mkdir(parents=True, exist_ok=True)
        if relative.endswith(_SUFFIX):
            text = Template(file.read_text(encoding="utf-8")).substitute(values)
            target.write_text(text, encoding="utf-8")
        else:
            shutil.copyfile(file, target)


def _write_case(folder: Path, style: str) -> None:
    """Write the recorded call of a built-in template: an image, and its pixels above 100."""
    resources, name = _CASES[style]
    pixels = np.arange(0, 192, dtype=np.uint8).reshape(1, 12, 16)
    mask = (pixels > _THRESHOLD).astype(np.uint8)
    case = folder / resources / "test_1"
    for side, images in (("input", {name: pixels}), ("output", {"mask": mask})):
        (case / side).mkdir(parents=True)
        for key, array in images.items():
            data = encode_image(Image(array), "image/png")
            (case / side / f"{key}.png").write_bytes(data)
    if style == "project":
        (case / "output" / "marked.int").write_text(str(int(mask.sum())))

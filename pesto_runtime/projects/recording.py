"""Write the outputs of calls as the recorded outputs of their cases, for `pesto test --record`."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

from pesto_runtime.client.client import Client
from pesto_runtime.errors import PestoError, StoreFailed
from pesto_runtime.projects.replaying import call_of
from pesto_runtime.raster.codec import encode_image
from pesto_runtime.raster.image import Image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pesto_runtime.projects.recorded_cases import RecordedCase

_TEXTS = {str: ".string", bool: ".bool", int: ".int", float: ".float"}


def record(url: str, cases: Sequence[RecordedCase]) -> list[Path]:
    """Call a service with the inputs of each case, and replace its recorded outputs.

    Returns:
        The files that were written.

    Raises:
        PestoError: a call fails; cases before it are recorded.
        StoreFailed: a file cannot be written.
    """
    written: list[Path] = []
    with Client(url) as client:
        for case in cases:
            try:
                outputs = call_of(client, case)
            except PestoError as error:
                raise error.prefixed(f"case {case.name}") from error
            try:
                written += _replaced(case.folder / "output", outputs)
            except OSError as error:
                raise StoreFailed(f"{case.folder}: {error.strerror or error}") from error
    return written


def _replaced(folder: Path, outputs: dict[str, object]) -> list[Path]:
    part = folder.with_name("output.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    names = [_write(part, name, value) for name, value in outputs.items() if value is not None]
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return [folder / name for name in names]


def _write(folder: Path, name: str, value: object) -> str:
    if isinstance(value, Image):
        (folder / f"{name}.tif").write_bytes(encode_image(value, "image/tiff"))
        return f"{name}.tif"
    if isinstance(value, list) and value and all(isinstance(each, Image) for each in value):
        (folder / name).mkdir()
        for number, each in enumerate(value):
            _write(folder / name, str(number), each)
        return name
    suffix = _TEXTS.get(type(value), ".json")
    is_text = suffix == ".string"
    text = value if is_text and isinstance(value, str) else json.dumps(value, indent=2)
    (folder / f"{name}{suffix}").write_text(text, encoding="utf-8")
    return f"{name}{suffix}"

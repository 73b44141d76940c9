"""Read the recorded calls of a PESTO project: `pesto/tests/resources/test_*/{input,output}`.

A file is one value, named by its stem; a folder is a list, in the order of the numbers in its
names. `tolerance.json` beside `input` may allow differences: `{"NAME": {"atol": 0.1}}`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from pesto_runtime.contract import Tolerance, bad_fields
from pesto_runtime.errors import BadField, InvalidInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

EXPECTED_DESCRIPTION = "expected_describe.json"
_CASE = "test_*"
_TOLERANCES = "tolerance.json"
_NUMBERS = re.compile(r"(\d+)")
_READ: Mapping[str, Callable[[str], JsonValue]] = {
    ".string": str,
    ".txt": str,
    ".float": float,
    ".number": float,
    ".int": int,
    ".integer": int,
    ".bool": lambda text: {"true": True, "false": False}[text.strip().lower()],
    ".json": json.loads,
    ".geojson": json.loads,
}


@dataclass(frozen=True)
class ImageFile:
    """An image of a case, as the bytes of its file.

    Attributes:
        path: The file.
        data: Its content.
    """

    path: Path
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class RecordedCase:
    """One recorded call.

    Attributes:
        name: Name of its folder.
        folder: The folder.
        inputs: Input name -> JSON value, `ImageFile`, or list of these.
        outputs: Output name -> the same.
        tolerances: Output name -> allowed difference.
    """

    name: str
    folder: Path
    inputs: Mapping[str, object]
    outputs: Mapping[str, object]
    tolerances: Mapping[str, Tolerance]


def recorded_cases(folder: Path) -> list[RecordedCase]:
    """Read the cases of a folder; a folder that does not exist has none.

    Raises:
        InvalidInput: files cannot be read; the error lists all of them.
    """
    faults: list[BadField] = []
    cases = [
        _case(each, folder, faults)
        for each in sorted(folder.glob(_CASE), key=_in_order)
        if each.is_dir()
    ]
    if faults:
        raise InvalidInput.of(f"recorded cases of {folder}", faults)
    return cases


def expected_description(folder: Path, profiles: Sequence[str] = ()) -> dict[str, JsonValue] | None:
    """Return the recorded description, that of the profiles if there is one; None without a file.

    Raises:
        InvalidInput: the file is not JSON.
    """
    suffix = "".join(f".{each}" for each in profiles)
    names = [f"expected_describe{suffix}.json", *([] if profiles else [EXPECTED_DESCRIPTION])]
    for name in names:
        file = folder / name
        if file.is_file():
            try:
                found: dict[str, JsonValue] = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise InvalidInput(f"{file}: is not JSON: {error}") from error
            return found
    return None


def resources_of(target_folder: Path) -> Path:
    """Return the folder of the cases of a project, or of a folder with a file of functions.

    Raises:
        NotFound: the folder does not exist.
    """
    if not target_folder.is_dir():
        raise NotFound(f"{target_folder}: there is no such folder")
    project = target_folder / "pesto" / "tests" / "resources"
    is_project = (target_folder / "pesto").is_dir()
    return project if is_project else target_folder / "tests" / "resources"


def _case(folder: Path, root: Path, faults: list[BadField]) -> RecordedCase:
    sides = []
    for side in ("input", "output"):
        values: dict[str, object] = {}
        files = sorted((folder / side).iterdir()) if (folder / side).is_dir() else []
        for file in files:
            try:
                values[_name(file)] = _value(file)
            except (OSError, ValueError, KeyError) as error:
                pointer = f"/{file.relative_to(root)}"
                faults.append(BadField(pointer, f"cannot be read: {_reason(error)}"))
        sides.append(values)
    inputs, outputs = sides
    return RecordedCase(folder.name, folder, inputs, outputs, _tolerances(folder, faults))


def _tolerances(folder: Path, faults: list[BadField]) -> dict[str, Tolerance]:
    file = folder / _TOLERANCES
    if not file.is_file():
        return {}
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
        return TypeAdapter(dict[str, Tolerance]).validate_python(document)
    except ValidationError as error:
        faults.extend(bad_fields(error, prefix=f"/{folder.name}/{_TOLERANCES}"))
    except ValueError as error:
        faults.append(BadField(f"/{folder.name}/{_TOLERANCES}", f"cannot be read: {error}"))
    return {}


def _value(path: Path) -> object:
    if path.is_dir():
        return [_value(each) for each in sorted(path.iterdir(), key=_in_order)]
    read = _READ.get(path.suffix.lower())
    if read is None:
        return ImageFile(path, path.read_bytes())
    return read(path.read_text(encoding="utf-8"))


def _name(path: Path) -> str:
    return path.name if path.is_dir() else path.stem


def _in_order(path: Path) -> list[tuple[int, int | str]]:
    """Return a key by which 2 comes before 10."""
    parts = _NUMBERS.split(path.name)
    return [(0, int(each)) if each.isdigit() else (1, each) for each in parts]


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return "must be true or false"
    return str(getattr(error, "strerror", None) or error)

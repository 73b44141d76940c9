"""Put finished files into an output folder, and withdraw those of an earlier run.

On a disk, a file is completed in the workspace and then moved; in a bucket, it is written at its
place. What is written is in `run/publishing.py`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import StoreFailed
from pesto_runtime.places import RemotePath
from pesto_runtime.run.result import ITEM, RESULT, SUFFIXES, read_result

if TYPE_CHECKING:
    from collections.abc import Set

    from pydantic import JsonValue

    from pesto_runtime.contract import Plan
    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.workspace import AnyWorkspace

HOLES, REPORT = "holes.geojson", "report.html"


def require_replaceable(folder: Path, outputs: Set[str]) -> None:
    """Require that no directory has the name of a file that will be published.

    Raises:
        StoreFailed: names the directory; nothing has been deleted yet.
    """
    for name in (*outputs, HOLES, REPORT, RESULT):
        if (folder / name).is_dir():
            raise StoreFailed(f"{folder / name} is a directory: move it, then run again")


def withdraw(plan: Plan, folder: AnyPath, *, keep: Set[str]) -> None:
    """Delete the result of an earlier run, then the files that only it had, and skipped outputs.

    The result goes first, so that no reader takes the new files for those of the old result.

    Args:
        plan: The plan of the new run.
        folder: The output folder.
        keep: Names of the files that the new run writes.

    Raises:
        OSError: the folder is not writable.
        PestoError: the store is away, or refuses.
    """
    earlier = read_result(folder)
    state = earlier and (earlier.document["run"], earlier.document["status"])
    if isinstance(folder, RemotePath) and state == (plan.run, "COMPLETE"):
        # Without a lock, a repeated task may have published this run just now: its result stays,
        # since the same bytes replace its outputs.
        return
    found = () if earlier is None else earlier.outputs.values()
    names = {str(each["path"]) for each in found}
    kept = {name.rpartition(".")[0] for name in keep}
    for name in set(Pipeline.parse(plan.pipeline).outputs) - kept:
        names |= {f"{name}{suffix}" for suffix in SUFFIXES}
    (folder / RESULT).unlink(missing_ok=True)
    for name in (*({*names, ITEM} - keep), HOLES, REPORT):
        (folder / name).unlink(missing_ok=True)


def move(part: AnyPath) -> None:
    """Move a complete file from the workspace into its folder; an object is there already.

    Raises:
        OSError: the folder is not writable.
    """
    if isinstance(part, Path):
        part.replace(part.parents[1] / part.name)


def json_text(document: JsonValue, *, margin: str = "\n") -> str:
    """Return `json.dumps(document, indent=2, allow_nan=False)`, long flat lists a lot faster.

    Python's encoder in C does not indent; but it writes the separator that it is given.

    >>> print(json_text({"bins": [1, 2]}))
    {
      "bins": [
        1,
        2
      ]
    }
    """
    if not isinstance(document, (dict, list)) or not document:
        return json.dumps(document, allow_nan=False)
    inner = margin + "  "
    values = document.values() if isinstance(document, dict) else document
    if set(map(type, values)).isdisjoint((dict, list)):
        text = json.dumps(document, allow_nan=False, separators=(f",{inner}", ": "))
        return f"{text[0]}{inner}{text[1:-1]}{margin}{text[-1]}"
    texts = (json_text(each, margin=inner) for each in values)
    if isinstance(document, list):
        return f"[{inner}{f',{inner}'.join(texts)}{margin}]"
    members = (f"{json.dumps(key)}: {each}" for key, each in zip(document, texts, strict=True))
    return f"{{{inner}{f',{inner}'.join(members)}{margin}}}"


def write_json(workspace: AnyWorkspace, name: str, document: dict[str, JsonValue]) -> None:
    """Write a JSON file that a power cut does not empty.

    Raises:
        OSError: the disk is full, or the folder is not writable.
        PestoError: the store is away, or refuses.
    """
    path, text = workspace.parts / name, json_text(document) + "\n"
    if isinstance(path, RemotePath):
        path.write_text(text)
        return
    with path.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    move(path)

"""Write the tables of the page: stages, phases, holes, inputs, outputs and their files."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from pesto_runtime.report import markup
from pesto_runtime.report.markup import code, table, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.places import AnyPath
    from pesto_runtime.report.facts import HoleFacts, OutputFacts, RunFacts, StageFacts

_MOST_INPUT_CHARS = 400
_MOST_HOLES = 50
MOST_FILE_BYTES, MOST_FILES_BYTES = 8 << 20, 16 << 20
"""Bytes of one file that the page carries, and of all of them, before base64 adds a third."""

_MEDIA = {
    ".tif": "image/tiff", ".json": "application/json", ".geojson": "application/geo+json",
}  # fmt: skip


@dataclass
class FileLinks:
    """Links to the files of a run: beside the page, or carried by it.

    Attributes:
        folder: The output folder.
        embeds: Whether the page carries files that are small enough.
    """

    folder: AnyPath
    embeds: bool
    _carried: int = field(default=0, init=False)

    def link(self, name: str) -> str:
        """Return a link to a file of the output folder."""
        if self.embeds:
            data = self._read(name)
            if data is not None:
                self._carried += len(data)
                media = _MEDIA.get(name[name.rfind(".") :], "application/octet-stream")
                href = f"data:{media};base64,{base64.b64encode(data).decode()}"
                return f'<a download="{text(name)}" href="{href}">{text(name)}</a>'
        # `./` first: without it, a name such as `javascript:x` or `//host` would be a URL of its
        # own.
        beside = " <small>beside this page: too large for it</small>" if self.embeds else ""
        return f'<a href="./{text(quote(name))}">{text(name)}</a>{beside}'

    def _read(self, name: str) -> bytes | None:
        """Read a small file of the folder; None for any other."""
        path = self.folder / name
        try:
            is_beside = path.resolve().parent == self.folder.resolve() and path.is_file()
            if not is_beside or path.stat().st_size > MOST_FILE_BYTES:
                return None
            if self._carried + path.stat().st_size > MOST_FILES_BYTES:
                return None
            return path.read_bytes()
        except (OSError, ValueError):
            return None


def stages_table(run: RunFacts, kinds: Mapping[str, str]) -> str:
    """Return the table of stages; empty without any."""
    rows = [
        [
            text(name),
            text(kinds.get(name, "")),
            f"{text(stage.process)} {text(stage.version)}",
            "<br>".join(code(where) for where in stage.where),
            markup.count(stage.calls),
            f"{stage.seconds:.2f}",
            _cpu_seconds(stage),
        ]
        for name, stage in run.stages.items()
    ]
    head = ("Stage", "Kind", "Process", "Ran at", "Calls", "Seconds", "CPU seconds")
    return table("Stages: summed over all workers", head, rows, numeric=3) if rows else ""


def _cpu_seconds(stage: StageFacts) -> str:
    """Return the CPU seconds of a function; a service's own are not known to the run."""
    is_service = any(where.startswith(("http://", "https://")) for where in stage.where)
    return "–" if is_service else f"{stage.cpu_seconds:.2f}"


def phases_table(run: RunFacts) -> str:
    """Return the table of phases; empty without any."""
    rows = [
        [
            str(number),
            text(phase.kind),
            text(" → ".join(dict.fromkeys((*phase.stages, *phase.reduces)))),
            f"{phase.tile[0]} × {phase.tile[1]}" if phase.tile and phase.chunks else "–",
            markup.count(phase.chunks) if phase.chunks else "–",
            "not run" if phase.seconds is None else f"{phase.seconds:.2f}",
        ]
        for number, phase in enumerate(run.phases, start=1)
    ]
    head = ("Phase", "Kind", "Stages", "Tile, px", "Chunks", "Seconds")
    return table("Phases: stages that ran together", head, rows, numeric=3) if rows else ""


def holes_table(holes: Sequence[HoleFacts], total: int, files: FileLinks) -> str:
    """Return the table of holes; a click on one shows it in the viewer. Empty without any."""
    rows = [[_place(hole), text(hole.stage), text(hole.error)] for hole in holes[:_MOST_HOLES]]
    if not rows:
        return ""
    rest = total - len(rows)
    more = (
        f"<p>… and {markup.count(rest)} more in {files.link('holes.geojson')}.</p>"
        if rest > 0
        else ""
    )
    head = ("Column, row, width, height", "Stage", "Reason")
    return table("Holes: tiles that could not be computed", head, rows) + more


def inputs_table(run: RunFacts) -> str:
    """Return the table of inputs; empty without any."""
    rows = [[text(name), _input(value)] for name, value in run.inputs.items()]
    return table("Inputs", ("Input", "Value"), rows) if rows else ""


def _input(value: JsonValue) -> str:
    if isinstance(value, dict) and isinstance(href := value.get("href"), str):
        return code(href)
    words = json.dumps(value, ensure_ascii=False)
    return code(words if len(words) <= _MOST_INPUT_CHARS else words[:_MOST_INPUT_CHARS] + " …")


def _place(hole: HoleFacts) -> str:
    window = ",".join(map(str, hole.window))
    place = f'<span class="whole">{text(hole.place)}</span>'
    return f'<a href="#map" data-window="{window}">{place}</a>' if window else place


def outputs_table(outputs: Mapping[str, OutputFacts], files: FileLinks) -> str:
    """Return the table of files with their checksums; vectors also have a count of features."""
    has_vectors = any(output.features is not None for output in outputs.values())
    rows = [
        [
            text(name),
            files.link(output.path),
            f'<code class="sum">{text(output.sha256)}</code>',
            *([_or_dash(output.features, markup.count)] if has_vectors else []),
            _or_dash(output.bytes, markup.size),
        ]
        for name, output in outputs.items()
    ]
    head = ("Output", "File", "SHA-256", *(["Features"] if has_vectors else []), "Size")
    return table("Outputs", head, rows, numeric=1 + has_vectors) if rows else ""


def _or_dash(amount: int | None, words: Callable[[int], str]) -> str:
    return "–" if amount is None else words(amount)

"""The tables of a report: stages, phases, holes, inputs, outputs, versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

from pesto_runtime.report import markup
from pesto_runtime.report.markup import code, table, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.report.facts import HoleFacts, OutputFacts, RunFacts

_MOST_HOLES = 50
_MOST_CHARS = 400


def link(path: str) -> str:
    """A link to a file beside the report; never to anything else, whatever the name says."""
    return f'<a href="./{text(quote(path))}">{text(path)}</a>'


def stages_table(facts: RunFacts, kinds: Mapping[str, str]) -> str:
    """What every stage is, where it ran and what it took."""
    rows = [
        [
            text(name),
            text(kinds.get(name, "")),
            f"{text(stage.process)} {text(stage.version)}",
            "<br>".join(code(where) for where in stage.where),
            markup.count(stage.calls),
            f"{stage.seconds:.2f}",
            f"{stage.cpu_seconds:.2f}",
        ]
        for name, stage in facts.stages.items()
    ]
    head = ("Stage", "Kind", "Process", "Ran at", "Calls", "Seconds", "CPU seconds")
    return table("Stages: summed over all workers", head, rows, numeric=3) if rows else ""


def phases_table(facts: RunFacts) -> str:
    """What ran together, and how it was cut up."""
    rows = [
        [
            str(number),
            text(phase.kind),
            text(" → ".join(dict.fromkeys((*phase.stages, *phase.reduces)))),
            f"{phase.tile[0]} × {phase.tile[1]}" if phase.tile and phase.chunks else "–",
            markup.count(phase.chunks) if phase.chunks else "–",
            "not run" if phase.seconds is None else f"{phase.seconds:.2f}",
        ]
        for number, phase in enumerate(facts.phases, start=1)
    ]
    head = ("Phase", "Kind", "Stages", "Tile, px", "Chunks", "Seconds")
    return table("Phases: stages that ran together", head, rows, numeric=3) if rows else ""


def holes_table(holes: Sequence[HoleFacts], total: int) -> str:
    """Where tiles failed, and why."""
    rows = [[text(hole.place), text(hole.stage), text(hole.error)] for hole in holes[:_MOST_HOLES]]
    if not rows:
        return ""
    left = total - len(rows)
    more = f"<p>… and {markup.count(left)} more in {link('holes.geojson')}.</p>" if left > 0 else ""
    head = ("Column, row, width, height", "Stage", "Reason")
    return table("Holes: tiles that could not be computed", head, rows) + more


def inputs_table(facts: RunFacts) -> str:
    """What the run was given."""
    rows = [[text(name), _input(value)] for name, value in facts.inputs.items()]
    return table("Inputs", ("Input", "Value"), rows) if rows else ""


def _input(value: JsonValue) -> str:
    if isinstance(value, dict) and isinstance(href := value.get("href"), str):
        return code(href)
    return code(_shortened(json.dumps(value, ensure_ascii=False)))


def _shortened(words: str) -> str:
    return words if len(words) <= _MOST_CHARS else words[:_MOST_CHARS] + " …"


def outputs_table(outputs: Mapping[str, OutputFacts]) -> str:
    """The files, and the sums to check them by; of vectors, how many features."""
    has_vectors = any(output.features is not None for output in outputs.values())
    rows = [
        [
            text(name),
            link(output.path),
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


def versions_line(facts: RunFacts) -> str:
    """What made the pixels, in small print."""
    parts = [f"{text(name)} {text(version)}" for name, version in facts.versions.items()]
    return "".join(
        f"<p>{name}: {', '.join(told)}.</p>"
        for name, told in (("Made with", parts), ("CPU", [text(each) for each in facts.cpu]))
        if told
    )

"""How findings, plans and results look on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_runtime.activities import Planned

_MIB = 1 << 20


def show_warnings(warnings: Sequence[object]) -> None:
    """Tell warnings on stderr."""
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)


def show_plan(planned: Planned, *, workers: int) -> None:
    """Tell what every phase will take; nominal figures."""
    show_warnings(planned.plan.warnings)
    seconds = memory = 0.0
    for number, (phase, cost) in enumerate(
        zip(planned.plan.phases, planned.estimates, strict=True), start=1
    ):
        names = " + ".join([*phase.stages, *phase.reduces])
        typer.echo(f"phase {number} ({phase.kind}): {names}")
        if phase.chunks:
            typer.echo(
                f"  {cost.tiles} tiles of {phase.tile[0]} x {phase.tile[1]} in {cost.chunks} chunks"
                f", {cost.bytes_read / _MIB:.1f} MiB in, {cost.bytes_made / _MIB:.1f} MiB out"
            )
        seconds += cost.seconds / max(1, min(workers, cost.chunks))
        memory = max(memory, cost.memory_bytes * workers)
    typer.echo(
        f"about {memory / _MIB:.0f} MiB and {seconds:.1f} s with {workers} workers "
        "(nominal: expect it within a factor of three)"
    )


def show_result(result: Mapping[str, JsonValue], folder: Path) -> None:
    """Tell what came of a run, and where it is."""
    tiles, outputs = result["tiles"], result["outputs"]
    if not isinstance(tiles, dict) or not isinstance(outputs, dict):
        return
    typer.echo(
        f"{result['status']} in {result['seconds']} s: {tiles['computed']} tiles computed, "
        f"{tiles['reused']} reused, {tiles['holes']} holes"
    )
    for name, output in outputs.items():
        if isinstance(output, dict):
            told = output["value"] if "value" in output else f"sha256 {output['sha256']}"
            if "features" in output:
                told = f"{output['features']} features, {told}"
            typer.echo(f"  {name:<12} {folder / str(output['path'])}  {told}")
    if result["status"] != "COMPLETE":
        names = result["skipped"]
        skipped = ", ".join(map(str, names)) if isinstance(names, list) and names else "none"
        typer.echo(f"  holes        {folder / 'holes.geojson'}; outputs skipped: {skipped}")
    typer.echo(f"  report       {folder / 'report.html'}")

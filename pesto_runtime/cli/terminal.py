"""Print the results of commands, and keep the output of an author's code apart from them."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager, redirect_stdout
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_runtime.places import AnyPath
    from pesto_runtime.run.costs import RunCost
    from pesto_runtime.run.planning import Planned

_MIB = 1 << 20


@contextmanager
def author_output_on_stderr() -> Iterator[None]:
    """Send the output of an author's code to stderr, also that of libraries in C."""
    sys.stdout.flush()
    saved = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(saved, 1)
        os.close(saved)


def show_warnings(warnings: Sequence[object]) -> None:
    """Print warnings on stderr."""
    for warning in warnings:
        typer.echo(f"warning: {warning}", err=True)


def show_plan(
    planned: Planned, costs: Sequence[RunCost], *, executor: str, currency: str | None
) -> None:
    """Print tiles and bytes of every phase, and estimated memory, seconds and money of the run.

    Args:
        planned: The plan.
        costs: Of the run, then with other numbers of workers.
        executor: Kind of workers.
        currency: Of the prices; None without prices.
    """
    show_warnings(planned.plan.warnings)
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
    run, *others = costs
    takes = f"{run.memory_bytes / _MIB:.0f} MiB and {run.seconds:.1f} s{_money(run, currency)}"
    typer.echo(f"about {takes} with {run.workers} {executor} on this machine ({run.basis})")
    curve = "; ".join(f"{o.workers}: {o.seconds:.1f} s{_money(o, currency)}" for o in others)
    if curve:
        typer.echo(f"with other numbers of workers, a core each: {curve}")


def _money(cost: RunCost, currency: str | None) -> str:
    return "" if currency is None else f", {cost.price:.4g} {currency}".rstrip()


def show_campaign(result: Mapping[str, JsonValue], folder: AnyPath) -> None:
    """Print the status of a campaign and of each scene."""
    counts, scenes = result["counts"], result["scenes"]
    if not isinstance(counts, dict) or not isinstance(scenes, dict):
        return
    listed = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    typer.echo(f"{result['status']}: {listed}; {folder / 'campaign.json'} has all scenes")
    for name, scene in scenes.items():
        if isinstance(scene, dict):
            told = scene["error"] if "error" in scene else folder / name
            typer.echo(f"  {scene['status']:<8} {name:<20} {told}")
    stopped = result.get("stopped")
    if isinstance(stopped, dict):
        typer.echo(f"  {stopped['detail']}")
    if (folder / "campaign.html").exists():
        typer.echo(f"  report   {folder / 'campaign.html'}")


def show_result(result: Mapping[str, JsonValue], folder: AnyPath) -> None:
    """Print the status of a run and the paths of its outputs."""
    tiles, outputs = result["tiles"], result["outputs"]
    if not isinstance(tiles, dict) or not isinstance(outputs, dict):
        return
    typer.echo(
        f"{result['status']} in {result['seconds']} s: {tiles['computed']} tiles computed, "
        f"{tiles['reused']} reused, {tiles['holes']} holes"
        + (f", {result['verified_tiles']} verified" if result.get("verified_tiles") else "")
    )
    for name, output in outputs.items():
        if isinstance(output, dict):
            facts = output["value"] if "value" in output else f"sha256 {output['sha256']}"
            if "features" in output:
                facts = f"{output['features']} features, {facts}"
            typer.echo(f"  {name:<12} {folder / str(output['path'])}  {facts}")
    if result["status"] != "COMPLETE":
        names = result["skipped"]
        skipped = ", ".join(map(str, names)) if isinstance(names, list) and names else "none"
        typer.echo(f"  holes        {folder / 'holes.geojson'}; outputs skipped: {skipped}")
    if (folder / "report.html").exists():
        typer.echo(f"  report       {folder / 'report.html'}")

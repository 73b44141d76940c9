"""Define `pesto probe`: measure a process, and compare the result with its contract."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from pesto_runtime.cli.options import (
    AsJson,
    Credentials,
    InputTexts,
    Profiles,
    pairs,
    profile_names,
)
from pesto_runtime.cli.terminal import author_output_on_stderr
from pesto_runtime.credentials import use_credentials
from pesto_runtime.errors import ContractBroken, RunFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


def probe(
    target: Annotated[str, typer.Argument(help="URL of a service, or a target.")],
    profile: Profiles = None,
    inputs: InputTexts = None,
    limit: Annotated[
        int, typer.Option(min=1, max=1024, help="Largest margin to look for, pixels.")
    ] = 64,
    seconds: Annotated[
        float, typer.Option(min=1, help="Time after which no further experiment starts.")
    ] = 30,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the data.")] = 0,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also measure the memory of a call.")
    ] = False,
    credentials: Credentials = None,
    as_json: AsJson = False,
) -> None:
    """Measure margin, alignment, scale and exactness of a process; fail if its contract lies."""
    from pesto_runtime.probing.probe import probe as measured
    from pesto_runtime.run.builds import profiled_target

    target = profiled_target(target, profile_names(profile))
    use_credentials(credentials)
    with author_output_on_stderr(), _progress(hidden=as_json or not sys.stderr.isatty()) as on_step:
        report = measured(
            target, pairs(inputs, option="-i"), limit=limit, seconds=seconds, seed=seed,
            memory=memory, on_step=on_step,
        )  # fmt: skip
    typer.echo(json.dumps(report.to_json(), indent=2) if as_json else "\n".join(report.lines()))
    for remark in report.remarks:
        typer.echo(f"remark: {remark}", err=True)
    if report.faults:
        raise ContractBroken.of(
            f"{report.description.name}: its contract says less than was measured", report.faults
        )
    if not report.is_complete:
        raise RunFailed(
            f"{report.description.name}: not measured to the end: {report.measured.calls} calls in "
            f"{seconds:g} s are not all experiments, and a larger margin may be needed; give more "
            "time by --seconds"
        )


@contextmanager
def _progress(*, hidden: bool) -> Iterator[Callable[[int, int], None]]:
    columns = (TextColumn("measuring"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), disable=hidden) as bar:
        task = bar.add_task("measuring", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)

"""`pesto process`: one call of a target or a service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pesto_runtime.cli.options import AsJson, InputTexts, pairs


def process(
    target: Annotated[str, typer.Argument(help="URL of a service, or a target.")],
    inputs: InputTexts = None,
    outputs: Annotated[
        list[str] | None, typer.Option("-o", "--out", help="NAME=PATH; writes an output.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Call a process once, on whole images; JSON outputs are told, images need -o."""
    from pesto_runtime.activities import call_once

    paths = {name: Path(text) for name, text in pairs(outputs, option="-o").items()}
    values = call_once(target, pairs(inputs, option="-i"), keep=paths)
    typer.echo(json.dumps(values, indent=None if as_json else 2))

"""Define `pesto describe`, `discover` and `process`: commands for single processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pesto_runtime.cli.options import (
    AsJson,
    Credentials,
    Drivers,
    InputTexts,
    Profiles,
    allow_drivers,
    input_values,
    pairs,
    profile_names,
)
from pesto_runtime.cli.terminal import author_output_on_stderr
from pesto_runtime.credentials import use_credentials

if TYPE_CHECKING:
    from pesto_runtime.contract import Description, Port


def describe(
    target: Annotated[str, typer.Argument(help="URL of a service, or a target.")],
    profile: Profiles = None,
    credentials: Credentials = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the description as JSON.")] = False,
) -> None:
    """Show inputs, outputs and tiling properties of a process."""
    from pesto_runtime.run.builds import profiled_target
    from pesto_runtime.run.services import find

    use_credentials(credentials)
    with author_output_on_stderr():
        found = find((profiled_target(target, profile_names(profile)),))
    if as_json:
        typer.echo(json.dumps(found.said.to_json(), indent=2))
        return
    _show(found.said)
    typer.echo(f"digest  {found.said.digest}\nbuild   {found.service.build}")


def discover(
    urls: Annotated[list[str], typer.Argument(help="URLs of services.")],
    save: Annotated[Path, typer.Option(help="Folder for a NAME@VERSION.json of each service.")],
    credentials: Credentials = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the files as JSON.")] = False,
) -> None:
    """Save the descriptions of services as a catalog, for --services."""
    from pesto_runtime.run.services import discover

    use_credentials(credentials)
    files = [str(path) for path in discover(urls, save)]
    typer.echo(json.dumps(files) if as_json else "\n".join(files))


def process(
    target: Annotated[str, typer.Argument(help="URL of a service, or a target.")],
    profile: Profiles = None,
    inputs: InputTexts = None,
    outputs: Annotated[
        list[str] | None, typer.Option("-o", "--out", help="NAME=PATH; file of an output.")
    ] = None,
    driver: Drivers = None,
    credentials: Credentials = None,
    as_json: AsJson = False,
) -> None:
    """Call a process once, on whole images; print JSON outputs, write images to -o."""
    from pesto_runtime.run.builds import profiled_target
    from pesto_runtime.run.single_call import call_once

    target = profiled_target(target, profile_names(profile))
    allow_drivers(driver)
    use_credentials(credentials)
    paths = {name: Path(text) for name, text in pairs(outputs, option="-o").items()}
    texts = input_values(inputs)
    with author_output_on_stderr():
        values = call_once(target, texts, keep=paths)
    typer.echo(json.dumps(values, indent=None if as_json else 2))


def _show(description: Description) -> None:
    typer.echo(f"{description.name} {description.version}  ({description.tileable})")
    if description.known.description:
        typer.echo(f"  {description.known.description.strip().splitlines()[0]}")
    for heading, ports in (("inputs", description.inputs), ("outputs", description.outputs)):
        typer.echo(heading)
        for port in ports:
            typer.echo(f"  {port.name:<16} {_port(port)}")


def _port(port: Port) -> str:
    from pesto_runtime.schema import type_phrase

    if port.raster is None:
        kind = port.kind if port.kind != "json" else type_phrase(port.schema)
        if port.vector is not None and port.vector.geometry:
            kind += f": {', '.join(port.vector.geometry)}"
        default = f", default {port.schema['default']!r}" if port.has_default else ""
        return f"{kind}{default}" + ("" if port.required or default else ", optional")
    facts = {"bands": port.raster.bands, **port.raster.to_json()}
    texts = [f"{name} {value}" for name, value in facts.items() if value is not None]
    return f"{port.kind}: {', '.join(texts)}"

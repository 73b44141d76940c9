"""Define `pesto list`: processes of projects and catalogs, and images of this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from pesto_runtime.cli.options import AsJson, Credentials  # read at run time
from pesto_runtime.cli.terminal import author_output_on_stderr
from pesto_runtime.credentials import use_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pesto_runtime.pipeline.fitting_scenes import SceneFacts
    from pesto_runtime.run.listing import Listed


def list_processes(
    places: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PLACE]...",
            help="Catalog (file, folder of `pesto discover`, s3://….json, https://….json), or a "
            "folder with PESTO projects; by default this folder.",
        ),
    ] = None,
    scene: Annotated[
        str | None, typer.Option(help="Image: say which processes can take it, and why not others.")
    ] = None,
    sensor: Annotated[str, typer.Option(help="Sensor of the scene, as LANDSAT-8.")] = "",
    level: Annotated[str, typer.Option(help="Level of the scene, as L1TP.")] = "",
    images: Annotated[
        bool, typer.Option("--images", help="List the images of pesto build on this machine.")
    ] = False,
    credentials: Credentials = None,
    as_json: AsJson = False,
) -> None:
    """List processes of projects and catalogs, all versions; or images."""
    use_credentials(credentials)
    found = _images() if images else _processes(places or ["."], _facts(scene, sensor, level))
    if as_json:
        typer.echo(json.dumps([each.to_json() for each in found], indent=2))
        return
    for line in process_lines(found):
        typer.echo(line)


def process_lines(found: Sequence[Listed]) -> Iterator[str]:
    """Yield the lines that show processes, and why they cannot take a scene."""
    width = max((len(f"{each.name} {each.version}") for each in found), default=0)
    for each in found:
        fits = "" if each.reasons is None else "no   " if each.reasons else "yes  "
        name = f"{each.name} {each.version}".ljust(width)
        yield f"{fits}{name}  {each.target or '-'}  {each.title}".rstrip()
        yield from (f"       {reason}" for reason in each.reasons or ())


def _processes(places: Sequence[str], facts: SceneFacts | None) -> list[Listed]:
    from pesto_runtime.places import place_of
    from pesto_runtime.run.listing import listed

    with author_output_on_stderr():
        return [each for place in places for each in listed(place_of(place), facts)]


def _facts(scene: str | None, sensor: str, level: str) -> SceneFacts | None:
    if scene is None:
        return None
    from pesto_runtime.raster.read import read_scene
    from pesto_runtime.run.listing import scene_facts

    return scene_facts(read_scene(scene), sensor=sensor, level=level)


def _images() -> list[Listed]:
    from pesto_runtime.projects.running_image import built_images
    from pesto_runtime.run.listing import Listed

    return [
        Listed(name, version, engine, digest) for name, version, engine, digest in built_images()
    ]

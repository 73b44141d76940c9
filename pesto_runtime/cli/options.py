"""Define the options that several commands share, and read `NAME=VALUE` texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Sequence

PipelineFile: TypeAlias = Annotated[Path, typer.Argument(help="Pipeline, as JSON.")]
InputTexts: TypeAlias = Annotated[
    list[str] | None, typer.Option("-i", "--input", help="NAME=VALUE; an image is a path or href.")
]
ServiceTexts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("-s", "--service", help="NAME=TARGET_OR_URL, or a URL; repeat it for replicas."),
]
CatalogPath: TypeAlias = Annotated[
    Path | None,
    typer.Option("--services", help="{name: target} as JSON, or a folder of `pesto discover`."),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Tile: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Side of a tile, pixels.")]
Workers: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Chunks at once.")]
MaxTasks: TypeAlias = Annotated[int, typer.Option(min=1, max=256, help="Most chunks per phase.")]


def pairs(texts: Sequence[str] | None, *, option: str) -> dict[str, str]:
    """Read `NAME=VALUE` texts.

    Raises:
        InvalidInput: a text has no `=`, or a name occurs twice.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(f"{option} {text!r} is not NAME=VALUE")
        if name in found:
            raise InvalidInput(f"{option} gives {name!r} twice")
        found[name] = value
    return found

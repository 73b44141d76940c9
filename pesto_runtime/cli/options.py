"""Define the options that several commands share, and read `NAME=VALUE` texts."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pydantic import JsonValue

    from pesto_runtime.contract.prices import SpendingLimits

PipelineFile: TypeAlias = Annotated[
    str, typer.Argument(metavar="PIPELINE", help="Pipeline, as JSON, also s3://….json.")
]
PipelineText: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="PIPELINE_OR_TARGET",
        help="Pipeline, as JSON, also s3://….json; or one process: FILE.py:FUNCTION, a project's "
        "folder, or a URL.",
    ),
]
InputTexts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "-i",
        "--input",
        help="NAME=VALUE; an image is a path or href. NAME=@FILE reads the value from a file; "
        "repeat NAME for a list.",
    ),
]
SceneList: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--scenes",
        metavar="LIST",
        help="Run over many scenes: a folder, a pattern such as 'in/*.tif', a text file with an "
        "href in each line, or a JSON list.",
    ),
]
ServiceTexts: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("-s", "--service", help="NAME=TARGET_OR_URL, or a URL; repeat it for replicas."),
]
Catalog: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--services",
        metavar="PATH",
        help="{name: target} as JSON, or a folder of `pesto discover`; also s3://….",
    ),
]
Credentials: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--credentials",
        metavar="FILE",
        help="Credentials of services and web servers, as JSON; by default PESTO_CREDENTIALS.",
    ),
]
WindowText: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--window",
        metavar="COL_OFF,ROW_OFF,WIDTH,HEIGHT",
        help="Cut all images to a window, pixels.",
    ),
]
AreaText: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--aoi",
        metavar="AREA",
        help="Cut all images to an area: WEST,SOUTH,EAST,NORTH in degrees, or a GeoJSON file.",
    ),
]
Profiles: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "-p",
        "--profile",
        metavar="NAME...",
        help="Profiles of a PESTO project, in order: -p P1 P2 after the target, -p P1,P2, or "
        "-p P1 -p P2.",
    ),
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Compress: TypeAlias = Annotated[
    str,
    typer.Option(help="Codec of image outputs: deflate[:1-12], zstd[:1-22] or none."),
]
Cache: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="Cache of blocks that runs share: a folder, or s3://…. What it has is not computed.",
    ),
]
PriceFile: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--prices",
        metavar="FILE",
        help="What this machine costs: core_hour, gb_hour, gb_transferred, as JSON.",
    ),
]
Tile: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Side of a tile, pixels.")]
Workers: TypeAlias = Annotated[int | None, typer.Option(min=1, help="Chunks at once.")]
MaxTasks: TypeAlias = Annotated[int, typer.Option(min=1, max=256, help="Most chunks per phase.")]
Drivers: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--driver",
        help="Further GDAL driver by which images may be opened, as VRT; repeat it for several.",
    ),
]


def profile_names(texts: Sequence[str] | None) -> list[str]:
    """Return the profiles of `-p` in order, from names that commas or blanks may separate.

    >>> profile_names(["gpu,big", "fast"])
    ['gpu', 'big', 'fast']
    """
    return [name for text in texts or () for name in text.replace(",", " ").split()]


def allow_drivers(names: Sequence[str] | None) -> None:
    """Allow this process, and those that it starts, further drivers: `PESTO_DRIVERS`."""
    given = [*os.environ.get("PESTO_DRIVERS", "").split(","), *(names or ())]
    if names:
        os.environ["PESTO_DRIVERS"] = ",".join(dict.fromkeys(each for each in given if each))


def pairs(texts: Sequence[str] | None, *, option: str) -> dict[str, str]:
    """Read `NAME=VALUE` texts.

    Raises:
        InvalidInput: a text has no `=`, or a name occurs twice.
    """
    found: dict[str, str] = {}
    for name, value in _named(texts, option):
        if name in found:
            raise InvalidInput(f"{option} gives {name!r} twice")
        found[name] = value
    return found


def input_values(texts: Sequence[str] | None) -> dict[str, JsonValue]:
    """Read the values of `-i`: `NAME=VALUE`, `NAME=@FILE`; a repeated name is a list.

    `@FILE` is the text of the file. `@@` starts a value with one `@`.

    Raises:
        InvalidInput: a text has no `=`, or a file cannot be read or is not text.
    """
    found: dict[str, JsonValue] = {}
    for name, text in _named(texts, "-i"):
        value = _from_file(name, text[1:]) if text[:1] == "@" != text[1:2] else text
        value = value[1:] if text.startswith("@@") else value
        before = found.get(name)
        if isinstance(before, list):
            before.append(value)
        else:
            found[name] = value if before is None else [before, value]
    return found


def _named(texts: Sequence[str] | None, option: str) -> Iterator[tuple[str, str]]:
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise InvalidInput(f"{option} {text!r} is not NAME=VALUE")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(f"{option} {name}=… is not UTF-8") from error
        yield name, value


def _from_file(name: str, path: str) -> str:
    """Return the text of a file, without the mark of its encoding and blanks around it."""
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InvalidInput(f"-i {name}=@{path}: {error.strerror or error}") from error
    try:
        return data.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise InvalidInput(
            f"-i {name}=@{path}: is not text (UTF-8); the path of an image is given without @"
        ) from error


def run_limits(
    deadline: str | None, budget: float | None, prices: str | None
) -> SpendingLimits | None:
    """Read the limits of a run; None if there are none.

    Raises:
        InvalidInput: a duration or the file of prices is wrong, or a budget has no prices.
    """
    from pesto_runtime.contract.prices import Prices, SpendingLimits
    from pesto_runtime.places import place_of
    from pesto_runtime.run.spending import read_prices, seconds_of

    if budget is not None and prices is None:
        raise InvalidInput(
            "--budget is an amount of money: give the prices of this machine, too (--prices FILE)"
        )
    found = read_prices(place_of(prices)) if prices else Prices()
    if deadline is None and budget is None:
        return None
    return SpendingLimits(None if deadline is None else seconds_of(deadline), budget, found)


class Executor(StrEnum):
    """Kind of the local engine's workers."""

    threads = "threads"
    processes = "processes"

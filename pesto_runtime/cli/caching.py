"""Define `pesto cache`: list and prune a cache of blocks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pesto_runtime.cli.options import AsJson, Credentials  # read at run time
from pesto_runtime.credentials import use_credentials
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from pesto_runtime.run.cache_pruning import CacheEntry

app = typer.Typer(
    help="List and prune a cache of `pesto run --cache`.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Place = Annotated[str, typer.Argument(metavar="CACHE", help="Folder of the cache; also s3://….")]


@app.command("ls")
def list_cache(cache: _Place, credentials: Credentials = None, as_json: AsJson = False) -> None:
    """List what a cache has: bytes, last use, process and scene; the last used at the end."""
    from pesto_runtime.run.cache_pruning import listed_cache

    use_credentials(credentials)
    entries = listed_cache(_existing(cache))
    if as_json:
        typer.echo(json.dumps([_document(each) for each in entries], indent=2))
        return
    for each in entries:
        used = f"{each.used.astimezone():%Y-%m-%d %H:%M}"
        process = each.process or "-"
        typer.echo(
            f"{each.key[:12]}  {_shown(each.size):>9}  {used}  {process}  {each.scene}".rstrip()
        )
    typer.echo(f"{_shown(sum(each.size for each in entries))} of {len(entries)} keys")


@app.command("prune")
def prune(
    cache: _Place,
    max_size: Annotated[
        str | None,
        typer.Option("--max-size", metavar="SIZE", help="Most bytes that stay: 500MB, 20GiB, 0."),
    ] = None,
    max_age: Annotated[
        str | None,
        typer.Option("--max-age", metavar="AGE", help="Longest time without use: 36h, 30d, 8w."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Delete nothing, and show what would be deleted.")
    ] = False,
    credentials: Credentials = None,
    as_json: AsJson = False,
) -> None:
    """Delete what was not used for a time, then what was used least recently above a size.

    Runs may use the cache meanwhile: they compute what is gone. In a bucket, the time of writing
    counts.
    """
    from pesto_runtime.run.cache_pruning import parse_age, parse_size, prune_cache

    use_credentials(credentials)
    size = None if max_size is None else parse_size(max_size)
    age = None if max_age is None else parse_age(max_age)
    if size is None and age is None:
        raise InvalidInput("prune would delete nothing: give --max-size, --max-age or both")
    done = prune_cache(_existing(cache), size=size, age=age, dry_run=dry_run)
    if as_json:
        document = {"objects": done.objects, "bytes": done.size, "kept_bytes": done.kept}
        typer.echo(json.dumps(document, indent=2))
        return
    verb = "would delete" if dry_run else "deleted"
    typer.echo(f"{verb} {_shown(done.size)} in {done.objects} objects; {_shown(done.kept)} stay")


def _existing(cache: str) -> str:
    """Return the place of a cache; a folder that does not exist is a typing error, and no cache."""
    if "://" not in cache and not Path(cache).is_dir():
        raise InvalidInput(f"{cache} is no folder: `pesto run --cache {cache}` would create it")
    return cache


def _document(entry: CacheEntry) -> dict[str, object]:
    return {
        "key": entry.key, "objects": entry.objects, "bytes": entry.size,
        "used": entry.used.isoformat(), "process": entry.process, "scene": entry.scene,
    }  # fmt: skip


def _shown(size: int) -> str:
    return f"{size / 1e6:.1f} MB"

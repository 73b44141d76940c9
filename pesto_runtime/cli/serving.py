"""`pesto serve`: a target as a web service."""

from __future__ import annotations

from typing import Annotated

import typer


def serve(
    target: Annotated[
        str,
        typer.Argument(
            help="file.py:function, package.module:function, or a PESTO project directory."
        ),
    ],
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on; beyond loopback nothing is read or written without --allow."
        ),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes any that is free.")] = 8000,
    profile: Annotated[
        list[str] | None,
        typer.Option("-p", "--profile", help="Profile of a PESTO project; a list, or given again."),
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Prefix of hrefs, or folder, that may be read and written."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Calls at once.")] = 2,
) -> None:
    """Serve a process under /api/v1: health, describe, version, openapi, process."""
    from pesto_runtime.processor import load_processor
    from pesto_runtime.service import Limits, serve

    names = [name for text in profile or [] for name in text.replace(",", " ").split()]
    processor = load_processor(target, profiles=names)
    serve(processor, host=host, port=port, allow=allow or [], limits=Limits(workers=workers))

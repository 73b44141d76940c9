"""Define `pesto test`: replay the recorded calls of a project, a target, an image or a service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pesto_runtime.cli.options import AsJson, Credentials, Profiles, profile_names
from pesto_runtime.cli.terminal import author_output_on_stderr
from pesto_runtime.credentials import use_credentials
from pesto_runtime.errors import StoreFailed

_FAILED = 1


def replay_calls(
    target: Annotated[
        str,
        typer.Argument(
            help="Project directory, file.py:function, image NAME:VERSION, or URL of a service."
        ),
    ],
    profile: Profiles = None,
    cases: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of test_*/{input,output}; by default pesto/tests/resources of a project, "
            "tests/resources beside a file of functions.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="FOLDER", help="Folder for results.json, junit.xml."),
    ] = None,
    record: Annotated[
        bool,
        typer.Option("--record", help="Write the outputs as the recorded ones, and test nothing."),
    ] = False,
    credentials: Credentials = None,
    as_json: AsJson = False,
) -> None:
    """Replay recorded calls and the examples of the description; fail if an output differs.

    Outputs must fit the output schema. Images are compared by pixel, dtype, CRS and nodata, lists
    in order; integers exactly, other numbers to 6 digits, unless a case has a tolerance.json.
    """
    from pesto_runtime.projects import recording
    from pesto_runtime.projects.recorded_cases import expected_description, recorded_cases
    from pesto_runtime.projects.replaying import replay
    from pesto_runtime.projects.running_service import cases_folder, running_service

    use_credentials(credentials)
    profiles = profile_names(profile)
    folder = cases or cases_folder(target)
    known = recorded_cases(folder) if folder else []
    expected = expected_description(folder, profiles) if folder else None
    with author_output_on_stderr(), running_service(target, profiles) as url:
        written = recording.record(url, known) if record else []
        report = (
            None
            if record
            else replay(url, known, target=target, profiles=profiles, expected=expected)
        )
    if report is None:
        typer.echo("\n".join(map(str, written)))
        return
    if out is not None:
        results = json.dumps(report.to_json(), indent=2) + "\n"
        _write(out, {"results.json": results.encode(), "junit.xml": report.to_junit()})
    text = json.dumps(report.to_json(), indent=2) if as_json else "\n".join(report.lines())
    typer.echo(text)
    if report.failed:
        raise typer.Exit(_FAILED)


def _write(folder: Path, files: dict[str, bytes]) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise StoreFailed(f"{folder}: {error.strerror or error}") from error

"""Define `pesto init`, `schemagen`, `build`, `test`, `deploy`: from a project to its services."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pesto_runtime.cli.options import (
    AsJson,
    Catalog,
    Credentials,
    PipelineText,
    Profiles,
    ServiceTexts,
    pairs,
    profile_names,
)
from pesto_runtime.cli.terminal import author_output_on_stderr, show_warnings
from pesto_runtime.credentials import use_credentials
from pesto_runtime.errors import InvalidInput, StoreFailed

if TYPE_CHECKING:
    from pesto_runtime.projects.validating import BuildFiles

_FAILED = 1


class ProjectStyle(StrEnum):
    """Built-in templates."""

    function = "function"
    project = "project"


def init(
    name: Annotated[str, typer.Argument(help="Folder of the project; also names the process.")],
    style: Annotated[
        ProjectStyle, typer.Option(help="function: one file. project: the layout of PESTO.")
    ] = ProjectStyle.function,
    template: Annotated[
        Path | None, typer.Option("-t", "--template", help="Folder of your own template.")
    ] = None,
    organization: Annotated[
        str | None, typer.Option(help="Your organization; asked for in a terminal.")
    ] = None,
    email: Annotated[str | None, typer.Option(help="Your address; also asked for.")] = None,
) -> None:
    """Make a new project, with a test, a README and a Makefile of two commands."""
    from pesto_runtime.projects.starting import start_project

    facts = {
        "organization": _asked("Organization", organization, "example"),
        "email": _asked("Email", email, "nobody@example.org"),
    }
    for file in start_project(Path(name), style=style.value, template=template, facts=facts):
        typer.echo(file)


def _asked(question: str, given: str | None, default: str) -> str:
    if given is not None or not sys.stdin.isatty():
        return given or default
    return str(typer.prompt(question, default=default))


def schemagen(
    target: Annotated[Path, typer.Argument(help="Directory of a PESTO project.")],
    force: Annotated[
        bool, typer.Option("-f", "--force", help="Replace schemas that differ.")
    ] = False,
) -> None:
    """Write the schemas of a project from the dataclasses Input and Output of its code."""
    from pesto_runtime.projects.schema_writing import write_generated

    with author_output_on_stderr():
        changed = write_generated(target.resolve(), force=force)
    for path in changed:
        typer.echo(path)


def schemas(
    project: Annotated[Path, typer.Argument(help="Directory of a PESTO project.")],
    lock: Annotated[
        bool, typer.Option("--lock", help="Write their contents and digests into the project.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """List the schemas of other folders and servers that a project refers to.

    Exit code 1 if one is not the locked one.
    """
    from pesto_runtime.processor.project_files import used_schemas
    from pesto_runtime.processor.shared_schemas import LOCK, lock_text, locked_schemas

    path = project / "pesto" / "api" / LOCK
    found = used_schemas(project.resolve())
    if lock:
        _write(path.parent, {LOCK: lock_text(found).encode()})
    locked = {each.href: each.digest for each in locked_schemas(path)} if path.is_file() else {}
    rows = [
        {"href": each.href, "version": each.version, "digest": each.digest,
         "state": "locked" if locked.get(each.href) == each.digest
         else "changed" if each.href in locked else "not locked"}
        for each in found
    ]  # fmt: skip
    lines = (f"{row['state']:<10}  {row['href']}  {row['version'] or '-'}  {row['digest']}"
             for row in rows)  # fmt: skip
    typer.echo(json.dumps(rows, indent=2) if as_json else "\n".join(lines))
    if any(row["state"] == "changed" or (locked and row["state"] != "locked") for row in rows):
        raise typer.Exit(_FAILED)


class CacheLevel(StrEnum):
    """Cache levels, by both names that PESTO has."""

    C1 = "C1"
    C2 = "C2"
    C3 = "C3"
    CACHE_UP_TO_PESTO = "CACHE_UP_TO_PESTO"
    CACHE_UP_TO_PIP_REQ = "CACHE_UP_TO_PIP_REQ"
    CACHE_UP_TO_ALGO = "CACHE_UP_TO_ALGO"


def build(
    project: Annotated[
        str,
        typer.Argument(
            metavar="PROJECT_OR_TARGET",
            help="Directory of a PESTO project, one of its build files, or file.py:function.",
        ),
    ],
    profile: Profiles = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            metavar="FOLDER",
            help="Folder for context, digest and SBOM; by default .pesto/NAME-VERSION.",
        ),
    ] = None,
    cache: Annotated[
        CacheLevel | None,
        typer.Option("-c", "--cache", help="Reuse layers up to this level, and build the others."),
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base image.")] = None,
    runtime: Annotated[
        str | None,
        typer.Option(help="This package in the image: a requirement of pip, or a wheel."),
    ] = None,
    builder_option: Annotated[
        list[str] | None, typer.Option(help="Option of buildah, docker or podman; repeat it.")
    ] = None,
    context_only: Annotated[
        bool, typer.Option("--context-only", help="Write the context, and build nothing.")
    ] = False,
) -> None:
    """Build the image NAME:VERSION[-PROFILE] of a process, by buildah, docker or podman."""
    from pesto_runtime.projects.build_context import write_context
    from pesto_runtime.projects.image_building import build_image

    files = _build_files(project, profile_names(profile))
    folder = out or Path(".pesto") / files.tag.replace(":", "-")
    made = write_context(files, folder, base=base, runtime=runtime)
    show_warnings(made.remarks)
    typer.echo(f"context  {made.folder}\ndigest   {made.digest}\nimage    {made.tag}")
    if not context_only:
        levels = {"CACHE_UP_TO_PESTO": "C1", "CACHE_UP_TO_PIP_REQ": "C2", "CACHE_UP_TO_ALGO": "C3"}
        level = levels.get(cache.value, cache.value) if cache else None
        builder = build_image(made, level=level, options=builder_option or ())
        typer.echo(f"built by {builder}")


def _build_files(target: str, profiles: list[str]) -> BuildFiles:
    from pesto_runtime.projects.validating import function_build_files, read_build_files

    if ".py:" in target:
        if profiles:
            raise InvalidInput(f"-p {' '.join(profiles)}: a function has no profiles")
        with author_output_on_stderr():
            return function_build_files(target)
    path = Path(target)
    is_file = path.suffix == ".json"
    directory = path.resolve().parents[2] if is_file else path.resolve()
    return read_build_files(directory, profiles, build=path.stem if is_file else "build")


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

    The contract of a service is tested by pytest --pesto-url URL, of pesto-workflows[kit].
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


class Platform(StrEnum):
    """Where services are deployed."""

    kubernetes = "kubernetes"
    compose = "compose"


def deploy(
    pipeline: PipelineText,
    to: Annotated[Platform, typer.Option(help="Form of the files.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="FOLDER", help="Folder for the files.")
    ] = Path("deploy"),
    profile: Profiles = None,
    service: ServiceTexts = None,
    services: Catalog = None,
    registry: Annotated[
        str, typer.Option(help="Prefix of the images NAME:VERSION[-PROFILE] of pesto build.")
    ] = "",
    image: Annotated[
        list[str] | None, typer.Option(help="PROCESS=IMAGE, for another image; repeat it.")
    ] = None,
    replicas: Annotated[
        list[str] | None,
        typer.Option(help="PROCESS=N, or PROCESS=MIN-MAX for automatic scaling; repeat it."),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(help="Secret whose keys are variables of all services; repeat it."),
    ] = None,
    token_secret: Annotated[
        str, typer.Option(help="Secret with the tokens of callers, in its key tokens.")
    ] = "",
    allow: Annotated[
        list[str] | None, typer.Option(help="Prefix of hrefs that services may read; repeat it.")
    ] = None,
    gpu_node: Annotated[
        list[str] | None, typer.Option(help="LABEL=VALUE of nodes with GPUs; repeat it.")
    ] = None,
    publish: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="compose: first port of this machine for replicas."),
    ] = None,
    credentials: Credentials = None,
) -> None:
    """Write manifests for every service of a pipeline, and a catalog of the deployed services.

    Resources, probes and GPUs are those of the descriptions. Services are not contacted, if a
    catalog has their descriptions.
    """
    from pesto_runtime.places import place_of
    from pesto_runtime.projects.deploying import (
        DeploymentOptions,
        catalog_of,
        deployed_services,
    )
    from pesto_runtime.projects.manifests import written
    from pesto_runtime.run.builds import profiled_target
    from pesto_runtime.run.planning import check_pipeline
    from pesto_runtime.run.services import resolve_services
    from pesto_runtime.run.targets import pipeline_of

    use_credentials(credentials)
    options = DeploymentOptions(
        registry=registry.rstrip("/"),
        images=pairs(image, option="--image"),
        replicas=pairs(replicas, option="--replicas"),
        secrets=tuple(secret or ()),
        token_secret=token_secret,
        allow=tuple(allow or ()),
        gpu_nodes=pairs(gpu_node, option="--gpu-node"),
        published_port=publish,
    )
    with author_output_on_stderr():
        source = pipeline_of(profiled_target(pipeline, profile_names(profile)))
        model = source.pipeline
        found = resolve_services(
            model,
            base=source.base,
            options=service or [],
            catalog=place_of(services) if services else None,
            ask=False,
            later=[stage.process for stage in model.stages],
        )
    check_pipeline(model, found).require(pipeline)
    deployed, remarks = deployed_services(found, options)
    show_warnings(remarks)
    files = dict(written(to.value, model.name, deployed, options))
    files["services.json"] = json.dumps(catalog_of(deployed, options), indent=2) + "\n"
    _write(out, {name: text.encode() for name, text in files.items()})
    typer.echo("\n".join(str(out / name) for name in files))


def _write(folder: Path, files: dict[str, bytes]) -> None:
    try:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
    except OSError as error:
        raise StoreFailed(f"{folder}: {error.strerror or error}") from error

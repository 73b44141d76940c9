"""Define `pesto serve`, which serves a target as a web service."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from pesto_runtime.cli.options import Profiles, profile_names
from pesto_runtime.errors import InvalidInput
from pesto_runtime.service.logs import LogFormat  # typer reads it at run time

Again: TypeAlias = Literal["again", "fail"]


def serve(
    target: Annotated[
        list[str],
        typer.Argument(
            help="file.py:function, package.module:function, or a PESTO project directory; several "
            "are served below /NAME each."
        ),
    ],
    host: Annotated[
        str,
        typer.Option(help="Address to listen on; beyond loopback, with --token-file."),
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 selects a free port.")] = 8000,
    profile: Profiles = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(help="Prefix of hrefs, or folder, that may be read and written."),
    ] = None,
    allow_network: Annotated[
        list[str] | None,
        typer.Option(help="Network, 10.0.0.0/8, in which hosts of --allow may have addresses."),
    ] = None,
    local_files: Annotated[
        bool, typer.Option("--local-files", help="Let callers read every file that this user may.")
    ] = False,
    callback: Annotated[
        list[str] | None,
        typer.Option(help="Prefix of addresses to which OGC requests may have results sent."),
    ] = None,
    follow_redirects: Annotated[
        bool, typer.Option("--follow-redirects", help="Follow redirects below --allow prefixes.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Worker processes: calls at once.")
    ] = None,
    queue: Annotated[int, typer.Option(min=0, help="Calls that may wait; more get 503.")] = 32,
    timeout: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds a call may run before it is stopped; 0 for any time."),
    ] = None,
    memory: Annotated[
        int | None, typer.Option(min=1, help="MiB that a worker may use beyond its idle size.")
    ] = None,
    grace: Annotated[
        float,
        typer.Option(min=0, help="Seconds to wait for an asynchronous process before a link."),
    ] = 2.0,
    jobs: Annotated[
        Path | None,
        typer.Option(help="Folder for jobs; default: one per process and port of this user."),
    ] = None,
    ttl: Annotated[float, typer.Option(min=1, help="Seconds that results of jobs are stored.")] = (
        86_400.0
    ),
    interrupted: Annotated[
        Again, typer.Option(help="Jobs that ran when the service was killed: run again, or fail.")
    ] = "again",
    unknown_inputs: Annotated[
        Literal["refuse", "ignore"] | None,
        typer.Option(help="Names that are not inputs; default: refuse for functions."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File with a line `NAME TOKEN` per caller: others are refused."),
    ] = None,
    caller_calls: Annotated[
        int | None, typer.Option(min=1, help="Calls of one caller at once; more get 429.")
    ] = None,
    caller_jobs: Annotated[
        int | None, typer.Option(min=1, help="Jobs of one caller that are not over.")
    ] = None,
    caller_mib: Annotated[
        int | None, typer.Option(min=1, help="MiB of requests and results of one caller's jobs.")
    ] = None,
    address_connections: Annotated[
        int,
        typer.Option(min=1, help="Connections of one client address; a trusted proxy has more."),
    ] = 4096,
    cors: Annotated[
        list[str] | None,
        typer.Option(help="Origin of web pages that may call it, https://maps.example.org; * all."),
    ] = None,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Host name that requests may have; default: any.")
    ] = None,
    public_url: Annotated[
        str, typer.Option(help="Address as callers see it, behind a proxy; for links.")
    ] = "",
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(help="Address of a proxy whose Forwarded and X-Forwarded-… hold; * all."),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate, PEM: serve https.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Private key of the certificate.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Allow a --host beyond loopback without tokens.")
    ] = False,
    log_format: Annotated[
        LogFormat,
        typer.Option(help="json also writes a line per request, with its job, tile and trace."),
    ] = "text",
) -> None:
    """Serve a process under /api/v1: health, describe, version, openapi, process, jobs.

    Several are served below /NAME/api/v1 each, and together by OGC API - Processes at the root.
    Its contract is tested by pytest --pesto-url URL, of pesto-workflows[kit].
    """
    from pesto_runtime.contract.pipeline import PROFILES
    from pesto_runtime.hrefs import Gate
    from pesto_runtime.service.exposure import Exposure
    from pesto_runtime.service.jobs.states import JobOptions
    from pesto_runtime.service.limits import Limits
    from pesto_runtime.service.logs import configure
    from pesto_runtime.service.server import serve
    from pesto_runtime.service.tokens import Callers

    configure(log_format)
    names = profile_names(profile)
    if names and len(target) > 1:
        raise InvalidInput(
            f"-p is for one target, and there are {len(target)}: write the profiles of a project "
            f"as {target[0]}{PROFILES}{','.join(names)}"
        )
    default = Limits.of_machine(workers, processes=len(target), queue=queue, grace_s=grace)
    limits = replace(
        default,
        timeout_s=default.timeout_s if timeout is None else timeout or None,
        memory_bytes=None if memory is None else memory << 20,
        caller_calls=caller_calls,
        address_connections=address_connections,
        refuse_unknown=None if unknown_inputs is None else unknown_inputs == "refuse",
    )
    quotas = {"calls": caller_calls, "jobs": caller_jobs, "mib": caller_mib}
    given = [f"--caller-{name}" for name, most in quotas.items() if most is not None]
    if given and token_file is None:
        raise InvalidInput(f"{', '.join(given)}: callers are known by --token-file; give it, too")
    options = JobOptions(
        folder=jobs, ttl_s=ttl, interrupted=interrupted, caller_jobs=caller_jobs,
        caller_bytes=None if caller_mib is None else caller_mib << 20,
    )  # fmt: skip
    serve(
        target,
        profiles=names,
        host=host,
        port=port,
        gate=Gate(
            tuple(allow or ()),
            local_files=local_files,
            networks=tuple(allow_network or ()),
            redirects=follow_redirects,
            callbacks=tuple(callback or ()),
        ),
        limits=limits,
        jobs=options,
        exposure=Exposure(
            callers=None if token_file is None else Callers.read(token_file),
            origins=tuple(cors or ()),
            hosts=tuple(allowed_host or ()),
            certificate=tls_cert,
            private_key=tls_key,
            is_open=insecure,
            public_url=public_url,
            proxies=tuple(trusted_proxy or ()),
        ),
    )

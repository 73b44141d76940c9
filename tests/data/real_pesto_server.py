"""Serves a PESTO project by PESTO 1.7.2 itself, without a container.

Run it by the Python of an environment that has `processing-factory`, as root, in a mount namespace
of its own (`unshare --mount`): PESTO finds a service's description in /etc/pesto, and only there.
Arguments: project directory, an empty directory to work in, profiles. Its first line on stdout is
its URL.
"""

# mypy: ignore-errors

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

JOBS = "/tmp/.pesto"  # noqa: S108  # where PESTO keeps its jobs, whatever TMPDIR says


def build(project: Path, workspace: Path, profiles: list[str]) -> Path:
    """Prepare the project as `pesto build` does before it calls docker; answers where."""
    os.environ["PESTO_WORKSPACE"] = str(workspace)
    with contextlib.redirect_stdout(sys.stderr):
        from pesto.cli.build import Builder
        from pesto.cli.core.build_config import BuildConfig

        path = str(project / "pesto" / "build" / "build.json")
        config = BuildConfig.from_path(path=path, profiles=profiles, network="host")
        builder = Builder(config)
        builder.conf_validation()
        builder.copy_factory_files()
        builder.copy_requirements()
    return Path(config.workspace)


def only(folder: Path, pattern: str) -> Path:
    """The one file of this name below a folder."""
    return next(iter(sorted(folder.rglob(pattern))))


def supply_etc(layer: Path, files: list[Path]) -> None:
    """Lay /etc/pesto over this namespace's /etc, in memory."""
    layer.mkdir()
    mount("-t", "tmpfs", "tmpfs", layer)
    (layer / "upper").mkdir()
    (layer / "work").mkdir()
    options = f"lowerdir=/etc,upperdir={layer}/upper,workdir={layer}/work"
    mount("-t", "overlay", "overlay", "-o", options, "/etc")
    Path("/etc/pesto").mkdir(exist_ok=True)
    for file in files:
        shutil.copy(file, "/etc/pesto")


def mount(*words: object) -> None:
    """Mount in this namespace."""
    command = shutil.which("mount") or "mount"
    subprocess.run([command, *map(str, words)], check=True)


def main(project: Path, work: Path, profiles: list[str]) -> None:
    """Build, supply, serve."""
    shutil.copytree(project, work / "project")
    built = build(work / "project", work / "workspace", profiles)
    service = only(built, "pesto/api/service.json")
    files = [service.with_name(name) for name in ("service.json", "version.json", "config.json")]
    supply_etc(work / "etc", [*files, only(built, "api_geo_process_v1.0.yaml")])
    (work / "jobs").mkdir()
    Path(JOBS).mkdir(exist_ok=True)
    mount("--bind", work / "jobs", JOBS)
    sys.path.insert(0, str(only(built, "algorithm/process.py").parents[1]))
    os.chdir("/")
    from pesto.ws.app import app
    from uvicorn import Config, Server

    with socket.create_server(("127.0.0.1", 0)) as listening:
        sys.stdout.write(f"http://127.0.0.1:{listening.getsockname()[1]}/api/v1\n")
        sys.stdout.flush()
        Server(Config(app, log_level="warning")).run(sockets=[listening])


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve(), sys.argv[3:])

"""Write the Containerfile of a project's image, in the layers that PESTO's cache levels name.

| level | layers up to it |
|---|---|
| C1 | system packages, and this package |
| C2 | requirements of pip |
| C3 | the project, and its other files |

Variables, labels and the command follow. The same text serves Debian and RPM bases.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pesto_runtime.projects.validating import BuildFiles

LEVELS = ("C1", "C2", "C3")
HOME = "/opt/pesto"
PORT = 8080
HEALTH = "/api/v1/health"
DIGEST_LABEL = "org.pesto.description.digest"
DEFAULT_OPTIONS = ["--insecure"]
"""Options of `pesto serve` unless a container has others: only its host opens its port."""
_USER = 10001
_PYTHON = "3.11"
_NVIDIA = "nvidia/cuda:12.6.3-runtime-ubuntu24.04"
_DEFAULT_BASE = "python:3.12-slim"
_GPU_WORDS = ("nvidia", "cuda", "gpu")
_INSTALL = (
    "if command -v apt-get >/dev/null; then apt-get update && apt-get install -y "
    "--no-install-recommends {apt} && rm -rf /var/lib/apt/lists/*; "
    "elif command -v dnf >/dev/null; then dnf install -y {dnf} && dnf clean all; "
    "elif command -v microdnf >/dev/null; then microdnf install -y {dnf} && microdnf clean all; "
    "else echo 'the base image has neither apt-get nor dnf' >&2; exit 1; fi"
)


def base_of(files: BuildFiles, given: str | None) -> tuple[str, str | None]:
    """Return the base image, and a remark if it is not the declared one.

    A process that needs a GPU gets an image of NVIDIA, unless its own is made for GPUs.
    """
    if given:
        return given, None
    needs_gpu = (files.description.known.resources.gpu or 0) > 0
    if needs_gpu and not any(word in (files.base or "") for word in _GPU_WORDS):
        instead = f" instead of {files.base}" if files.base else ""
        return _NVIDIA, f"resources.gpu is not 0: the base image is {_NVIDIA}{instead}; --base"
    if files.base and files.base.startswith("python:3.") and _minor(files.base) < 11:
        remark = f"{files.base} has a Python before {_PYTHON}: the base is {_DEFAULT_BASE}; --base"
        return _DEFAULT_BASE, remark
    return files.base or _DEFAULT_BASE, None


def containerfile(
    files: BuildFiles, *, base: str, target: str, copies: Mapping[str, str], paths: Sequence[str]
) -> str:
    """Return the text of the Containerfile.

    Args:
        files: The project.
        base: Base image.
        target: What is served, below `HOME`.
        copies: Folder of the context -> folder of the image.
        paths: Folders on Python's path.
    """
    apt, dnf = (files.packages.get(name, ()) for name in ("apt", "dnf"))
    needed = f"{HOME}/runtime/requirements.txt"
    pip = f"{HOME}/venv/bin/pip install --no-cache-dir --find-links"
    lines = [
        f"FROM {base}",
        'ARG PIP_INDEX_URL=""',
        f"# {LEVELS[0]}: system packages, and this package",
        _python_step(),
        *([f"RUN {_INSTALL.format(apt=' '.join(apt) or '', dnf=' '.join(dnf) or '')}"]
          if apt or dnf else []),
        f"COPY runtime/ {HOME}/runtime/",
        f"RUN python3 -m venv {HOME}/venv && {pip} {HOME}/runtime -r {needed}",
        *_level(LEVELS[1], "requirements of pip"),
        f"COPY pip/ {HOME}/pip/",
        f"RUN {pip} {HOME}/pip -r {HOME}/pip/requirements.txt",
        *_level(LEVELS[2], "the project, and its other files"),
        *(f"COPY {source}/ {to}/" for source, to in copies.items()),
        f"COPY project/ {HOME}/project/",
        *_level("", "variables, labels, command"),
        "ENV " + " ".join(f"{name}={value}" for name, value in _environment(files, paths).items()),
        "LABEL " + " ".join(f"{n}={json.dumps(value)}" for n, value in labels(files).items()),
        f"USER {_USER}:{_USER}",
        f"EXPOSE {PORT}",
        "HEALTHCHECK --interval=30s --timeout=5s --start-period=300s CMD "
        + json.dumps([f"{HOME}/venv/bin/python", "-c", _health()]),
        "ENTRYPOINT " + json.dumps(command(files, target)),
        "CMD " + json.dumps(DEFAULT_OPTIONS),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def _environment(files: BuildFiles, paths: Sequence[str]) -> dict[str, str]:
    """Return the variables of an image, in one instruction: each one would be a layer."""
    own = {name: json.dumps(value) for name, value in sorted(files.environment.items())}
    path = {"PYTHONPATH": ":".join(paths)} if paths else {}
    return {**own, "PATH": f"{HOME}/venv/bin:$PATH", "HOME": "/tmp", **path}  # noqa: S108


def labels(files: BuildFiles) -> dict[str, str]:
    """Return the labels of an image: those of OCI, the profiles, the digest of the description."""
    return {
        "org.opencontainers.image.title": files.name,
        "org.opencontainers.image.version": files.version,
        "org.opencontainers.image.description": files.description.known.title,
        "org.pesto.profiles": ",".join(files.profiles),
        DIGEST_LABEL: files.description.digest,
    }


def command(files: BuildFiles, target: str) -> list[str]:
    """Return the command that an image runs."""
    profiles = [word for each in files.profiles for word in ("-p", each)]
    host = "0.0.0.0"  # noqa: S104  # of its container alone
    return [f"{HOME}/venv/bin/pesto", "serve", f"{HOME}/project{target}", "--host", host,
            "--port", str(PORT), *profiles]  # fmt: skip


def _python_step() -> str:
    """Return the step that requires Python, and installs it where it is missing."""
    install = _INSTALL.format(apt="python3 python3-venv ca-certificates", dnf="python3.12")
    check = f"import sys; sys.exit(sys.version_info < ({_PYTHON.replace('.', ', ')}))"
    return (
        f"RUN if ! python3 -c 'import ensurepip' 2>/dev/null; then {install}; "
        "command -v python3 >/dev/null || ln -s /usr/bin/python3.12 /usr/bin/python3; fi; "
        f"python3 -c '{check}' || {{ echo 'the base image needs Python {_PYTHON}' >&2; exit 1; }}"
    )


def _level(name: str, text: str) -> list[str]:
    """Return the start of a level: another value of its argument builds all that follows anew."""
    argument = f"REBUILD_{name or 'END'}"
    comment = f"# {name}: {text}" if name else f"# {text}"
    return [comment, f'ARG {argument}=""', f'RUN : "${argument}"']


def rebuilding(level: str | None) -> str | None:
    """Return the argument whose value ends the use of cached layers after a level."""
    if level is None:
        return None
    following = (*LEVELS, "END")[LEVELS.index(level) + 1]
    return f"REBUILD_{following}"


def _health() -> str:
    url = f"http://127.0.0.1:{PORT}{HEALTH}"
    return f"import urllib.request as r; r.urlopen('{url}', timeout=4)"


def _minor(base: str) -> int:
    digits = base.removeprefix("python:3.").partition("-")[0].partition(".")[0]
    return int(digits) if digits.isdigit() else 99

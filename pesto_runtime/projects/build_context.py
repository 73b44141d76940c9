"""Write the build context of a project's image: the same project, the same bytes.

Beside the context are its digest and a list of its parts in SPDX. Nothing is written if there is an
error. Archives are unpacked by tarfile's filter `data`, which refuses files outside their folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime import __version__
from pesto_runtime.errors import BadField, InvalidContract, InvalidInput, PestoError, StoreFailed
from pesto_runtime.places import place_of
from pesto_runtime.processor.shared_schemas import LOCK, lock_text
from pesto_runtime.projects.containerfile import HOME, base_of, containerfile
from pesto_runtime.projects.validating import local_source

if TYPE_CHECKING:
    from pydantic import JsonValue

    from pesto_runtime.projects.validating import BuildFiles, Requirement

_ARCHIVES = (".tar.gz", ".tgz")
_LEFT_OUT = ("__pycache__", ".git", ".venv", "tests")
_EPOCH = "1970-01-01T00:00:00Z"


@dataclass(frozen=True)
class BuildContext:
    """A context on disk.

    Attributes:
        folder: The context; `Containerfile` is in it.
        tag: `NAME:VERSION[-PROFILE]`.
        digest: `sha256:…` of paths, modes and contents.
        remarks: Choices that the user should know.
    """

    folder: Path
    tag: str
    digest: str
    remarks: tuple[str, ...]


def write_context(
    files: BuildFiles, out: Path, *, base: str | None = None, runtime: str | None = None
) -> BuildContext:
    """Write `out/context`, `out/digest`, `out/sbom.spdx.json`; an earlier context is replaced.

    Args:
        files: The project.
        out: Folder.
        base: Base image instead of the declared one.
        runtime: This package for the image: a requirement of pip, or the path of a wheel; this
            version by default.

    Raises:
        InvalidContract: requirements cannot be read or unpacked; lists all of them.
        StoreFailed: the folder cannot be written.
    """
    image, remark = base_of(files, base)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out, prefix=".building-") as work:
            made = Path(work) / "context"
            _fill(files, made, image, runtime or f"pesto-workflows=={__version__}")
            digest = _sealed(made)
            shutil.rmtree(out / "context", ignore_errors=True)
            made.rename(out / "context")
        (out / "digest").write_text(digest + "\n")
        (out / "sbom.spdx.json").write_text(
            json.dumps(_sbom(files, image, digest), indent=2) + "\n"
        )
    except OSError as error:
        raise StoreFailed(f"{out}: {error.strerror or error}") from error
    return BuildContext(out / "context", files.tag, digest, (remark,) if remark else ())


def _fill(files: BuildFiles, folder: Path, base: str, runtime: str) -> None:
    for name in ("runtime", "pip", "files", "project"):
        (folder / name).mkdir(parents=True)
    _write_runtime(folder / "runtime", runtime)
    faults: list[BadField] = []
    copies: dict[str, str] = {}
    local: list[str] = []
    for each in files.requirements:
        try:
            _fetch(files, each, folder, copies, local)
        except (tarfile.TarError, OSError, PestoError) as error:
            pointer = f"/pesto/build/requirements.json/requirements/{each.name}/from"
            faults.append(BadField(pointer, f"{each.source}: {error}"))
    if faults:
        raise InvalidContract.of(f"requirements of {files.name}", faults)
    pip = "".join(f"{each}\n" for each in (*files.pip, *local))
    (folder / "pip" / "requirements.txt").write_text(pip)
    _copy_project(files.directory, folder / "project")
    if files.schemas:
        lock = folder / "project" / "pesto" / "api" / LOCK
        lock.write_text(lock_text(files.schemas))
    paths = [each.to for each in files.requirements if each.kind == "python"]
    text = containerfile(files, base=base, target=files.target, copies=copies, paths=paths)
    (folder / "Containerfile").write_text(text)


def _write_runtime(folder: Path, runtime: str) -> None:
    wheel = Path(runtime)
    if runtime.endswith(".whl"):
        if not wheel.is_file():
            raise InvalidInput(f"{runtime}: there is no such wheel")
        shutil.copyfile(wheel, folder / wheel.name)
        runtime = f"{HOME}/runtime/{wheel.name}"
    (folder / "requirements.txt").write_text(runtime + "\n")


def _fetch(
    files: BuildFiles, each: Requirement, folder: Path, copies: dict[str, str], local: list[str]
) -> None:
    """Put a requirement into the context."""
    name = each.source.rstrip("/").rpartition("/")[2]
    kept = folder / ("pip" if each.kind == "pip" else f"files/{each.name}")
    kept.mkdir(parents=True, exist_ok=True)
    is_local = each.source.startswith("file://")
    source = local_source(files.directory, each.source)
    if is_local and source.is_dir():
        shutil.copytree(source, kept, dirs_exist_ok=True, ignore=_ignored)
    else:
        path = kept / name
        path.write_bytes(source.read_bytes() if is_local else place_of(each.source).read_bytes())
        if each.kind == "pip":
            local.append(f"{HOME}/pip/{name}")
        elif name.endswith(_ARCHIVES):
            with tarfile.open(path) as archive:
                archive.extractall(kept, filter="data")
            path.unlink()
    if each.kind != "pip":
        copies[f"files/{each.name}"] = each.to


def _copy_project(directory: Path, folder: Path) -> None:
    """Copy code and description; no tests, and nothing hidden."""
    for entry in sorted(directory.iterdir()):
        is_code = entry.suffix == ".py" or (entry.is_dir() and any(entry.glob("*.py")))
        if entry.name == "pesto":
            for name in ("api", "build"):
                if (entry / name).is_dir():
                    shutil.copytree(entry / name, folder / "pesto" / name)
        elif entry.name == "algorithm" or (is_code and entry.name not in _LEFT_OUT):
            if entry.is_dir():
                shutil.copytree(entry, folder / entry.name, ignore=_ignored)
            else:
                shutil.copyfile(entry, folder / entry.name)


def _ignored(_folder: str, names: list[str]) -> set[str]:
    return {name for name in names if name in _LEFT_OUT or name.startswith(".")}


def _sealed(folder: Path) -> str:
    """Give all files one time and few modes, and return the digest of the folder."""
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*"), key=lambda each: each.relative_to(folder).as_posix()):
        mode = 0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644
        path.chmod(mode)
        os.utime(path, (0, 0))
        content = path.read_bytes() if path.is_file() else b""
        line = [path.relative_to(folder).as_posix(), oct(mode), hashlib.sha256(content).hexdigest()]
        total.update(json.dumps(line).encode())
    os.utime(folder, (0, 0))
    return f"sha256:{total.hexdigest()}"


def _sbom(files: BuildFiles, base: str, digest: str) -> dict[str, JsonValue]:
    """Return the parts of an image as an SPDX 2.3 document."""
    parts = [
        (files.name, files.version, "the process"),
        ("pesto-workflows", __version__, "serves it"),
        (base, "", "base image"),
        *((each, "", "pip") for each in files.pip),
        *((each.name, "", f"{each.kind}: {each.source}") for each in files.requirements),
        *((each, "", f"system package ({name})")
          for name, several in files.packages.items() for each in several),
    ]  # fmt: skip
    packages: list[JsonValue] = [
        {"SPDXID": f"SPDXRef-{number}", "name": name, "comment": comment,
         "downloadLocation": "NOASSERTION", "filesAnalyzed": False,
         **({"versionInfo": version} if version else {})}
        for number, (name, version, comment) in enumerate(parts)
    ]  # fmt: skip
    relations: list[JsonValue] = [
        {
            "spdxElementId": f"SPDXRef-{0 if number else 'DOCUMENT'}",
            "relationshipType": "DEPENDS_ON" if number else "DESCRIBES",
            "relatedSpdxElement": f"SPDXRef-{number}",
        }
        for number in range(len(parts))
    ]
    return {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": files.tag,
        "documentNamespace": f"urn:pesto:context:{digest}",
        "creationInfo": {"created": _EPOCH, "creators": [f"Tool: pesto-workflows-{__version__}"]},
        "packages": packages,
        "relationships": relations,
    }

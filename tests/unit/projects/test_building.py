"""Images of projects, up to the context: faults, layers, determinism, profiles."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import InvalidContract
from pesto_runtime.projects.build_context import BuildContext, write_context
from pesto_runtime.projects.validating import function_build_files, read_build_files
from tests.support.projects import write_project

if TYPE_CHECKING:
    from pathlib import Path

    from pydantic import JsonValue


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return write_project(tmp_path / "scaled")


def context(project: Path, *profiles: str, **options: str) -> BuildContext:
    """The context of a project."""
    files = read_build_files(project, profiles)
    return write_context(files, project.parent / "out", **options)


def change(path: Path, **keys: JsonValue) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def archive(path: Path, name: str) -> None:
    """Write an archive with one file of this name."""
    with tarfile.open(path, "w:gz") as file:
        member = tarfile.TarInfo(name)
        member.size = 5
        file.addfile(member, io.BytesIO(b"model"))


def test_the_same_project_has_the_same_digest(project: Path, tmp_path: Path) -> None:
    """Elsewhere, later, by another order of writing; one changed byte of code is another one."""
    first = context(project)
    other = write_project(tmp_path / "elsewhere" / "scaled")
    assert context(other).digest == first.digest
    assert context(project, "big").digest != first.digest
    code = other / "algorithm" / "process.py"
    code.write_text(code.read_text() + "\n")
    assert context(other).digest != first.digest


def test_layers_are_in_the_order_of_the_cache_levels(project: Path) -> None:
    """Packages, requirements, project, then what changes most often; no tests of the project."""
    build = project / "pesto" / "build" / "requirements.json"
    change(build, environments={"MODEL": "x y"}, pip=["scipy==1.14.0"],
           packages={"apt": ["libgomp1"], "dnf": ["libgomp"]})  # fmt: skip
    made = context(project, "big")
    text = (made.folder / "Containerfile").read_text()
    order = ["FROM ", "# C1", "libgomp1", "COPY runtime/", "# C2", "COPY pip/", "# C3",
             "COPY project/", 'ENV MODEL="x y"', "LABEL org.opencontainers.image.title=",
             "USER 10001", "HEALTHCHECK", "ENTRYPOINT"]  # fmt: skip
    places = [text.index(word) for word in order]
    assert places == sorted(places)
    assert "dnf install -y libgomp " in text
    assert (made.folder / "pip" / "requirements.txt").read_text() == "scipy==1.14.0\n"
    assert made.tag == "scaled:1.2.0-big"
    assert '"-p", "big"]' in text
    assert read_build_files(project, ["big"]).description.digest in text
    assert not (made.folder / "project" / "pesto" / "tests").exists()


def test_a_gpu_profile_chooses_an_image_of_nvidia_and_says_so(project: Path) -> None:
    """Unless the base is one for GPUs already, or given."""
    made = context(project, "big")
    assert "FROM nvidia/cuda" in (made.folder / "Containerfile").read_text()
    assert "resources.gpu is not 0" in made.remarks[0]
    assert context(project, "big", base="mine:1").remarks == ()
    assert context(project).remarks == ()


def test_requirements_are_unpacked_and_listed(project: Path) -> None:
    """An archive below its folder; a module on the path; all of them in the SBOM."""
    archive(project / "model.tar.gz", "weights/a.bin")
    (project / "extra.py").write_text("A = 1")
    change(project / "pesto" / "build" / "requirements.json", requirements={
        "model": {"from": "file://model.tar.gz", "to": "/opt/model"},
        "extra": {"from": f"file://{project / 'extra.py'}", "to": "/opt/extra", "type": "python"},
    })  # fmt: skip
    made = context(project)
    assert (made.folder / "files" / "model" / "weights" / "a.bin").read_bytes() == b"model"
    text = (made.folder / "Containerfile").read_text()
    assert "COPY files/model/ /opt/model/" in text
    assert "PYTHONPATH=/opt/extra" in text
    sbom = json.loads((made.folder.parent / "sbom.spdx.json").read_text())
    assert {"scaled", "model", "extra"} <= {each["name"] for each in sbom["packages"]}
    assert made.digest in sbom["documentNamespace"]


def test_an_archive_that_leaves_its_folder_makes_no_context(project: Path) -> None:
    """`../` is refused; what was built before stays, and nothing is half-made."""
    before = context(project)
    archive(project / "evil.tar.gz", "../evil")
    change(project / "pesto" / "build" / "requirements.json", requirements={
        "evil": {"from": "file://evil.tar.gz", "to": "/opt/evil"},
    })  # fmt: skip
    with pytest.raises(InvalidContract, match="evil"):
        context(project)
    assert sorted(each.name for each in before.folder.parent.iterdir()) == [
        "context", "digest", "sbom.spdx.json",
    ]  # fmt: skip
    assert not (before.folder / "files" / "evil").exists()


def test_all_faults_of_a_project_are_in_one_report(project: Path) -> None:
    """Missing, not JSON with line and column, no schema, reserved, missing requirement."""
    api, build = project / "pesto" / "api", project / "pesto" / "build"
    (api / "description.json").unlink()
    (api / "input_schema.json").write_text('{\n  "image": }')
    change(api / "output_schema.json", mean={"type": "numbr"}, definitions={"type": "string"})
    change(build / "requirements.json", requirements={
        "gone": {"from": "file://gone.bin", "to": "/opt"},
        "odd": {"from": "ftp://x/y", "to": "../opt", "type": "apt"},
    })  # fmt: skip
    with pytest.raises(InvalidContract) as failed:
        read_build_files(project)
    found = {each.pointer: each.detail for each in failed.value.fields}
    where = "/pesto/build/requirements.json/requirements"
    assert set(found) == {
        "/pesto/api/description.json", "/pesto/api/input_schema.json",
        "/pesto/api/output_schema.json/mean", "/pesto/api/output_schema.json/definitions",
        f"{where}/gone/from", f"{where}/odd/from", f"{where}/odd/to", f"{where}/odd/type",
    }  # fmt: skip
    assert "line 2 column 12" in found["/pesto/api/input_schema.json"]
    assert "reserved" in found["/pesto/api/output_schema.json/definitions"]


def test_a_function_is_built_with_the_code_of_its_folder(tmp_path: Path) -> None:
    """Its modules, its requirements.txt, its own target, no tests; equal code, equal digests."""
    made = []
    for name in ("a", "b"):
        folder = tmp_path / name
        (folder / "tests").mkdir(parents=True)
        (folder / "tests" / "test_f.py").write_text("")
        (folder / "factor.py").write_text("FACTOR = 3.0\n")
        (folder / "requirements.txt").write_text("# why\nscipy==1.14.0\n\n")
        (folder / "f.py").write_text(
            "from factor import FACTOR\nfrom pesto_runtime import process\n\n\n"
            "@process(version='2.0.0', resources={'gpu': 1})\n"
            "def times(a: float) -> float:\n    return a * FACTOR\n"
        )
        files = function_build_files(f"{folder / 'f.py'}:times")
        made.append(write_context(files, folder / "out"))
    assert made[0].digest == made[1].digest
    assert made[0].tag == "times:2.0.0"
    assert made[0].remarks[0].startswith("resources.gpu is not 0")
    inside = made[0].folder / "project"
    assert sorted(each.name for each in inside.iterdir()) == ["f.py", "factor.py"]
    assert (made[0].folder / "pip" / "requirements.txt").read_text() == "scipy==1.14.0\n"
    text = (made[0].folder / "Containerfile").read_text()
    assert '"/opt/pesto/project/f.py:times", "--host"' in text
    assert text.endswith('CMD ["--insecure"]\n')


def test_a_function_whose_name_no_image_can_have_is_refused(tmp_path: Path) -> None:
    """Before anything is written; all faults at once."""
    (tmp_path / "requirements.txt").write_text("--index-url x\n")
    (tmp_path / "f.py").write_text(
        "from pesto_runtime import process\n\n\n"
        "@process(name='Big', version='1.0.0')\ndef f(a: float) -> float:\n    return a\n"
    )
    with pytest.raises(InvalidContract) as refused:
        function_build_files(f"{tmp_path / 'f.py'}:f")
    assert [each.pointer for each in refused.value.fields] == ["/requirements.txt", "/name"]

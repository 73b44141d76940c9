"""Catalogs: what services said when they were asked, and what became of it since."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from pesto_runtime.errors import InvalidContract, InvalidInput, StoreRefused, Unreachable
from pesto_runtime.run.services import discover
from tests.support.commands import pesto, saved
from tests.support.fakes import as_npy, fake_service, slow
from tests.support.rasters import noise, tree, write_scene
from tests.support.runs import chain, run_local

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.fakes import FakeService

pytestmark = pytest.mark.integration


@pytest.fixture
def service() -> Iterator[FakeService]:
    with fake_service(as_npy) as running:
        yield running


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", noise(30, 20))


def test_a_catalog_is_checked_without_its_services(tmp_path: Path) -> None:
    """`check` takes the catalog's word; `run` (control) needs the service."""
    with fake_service(as_npy) as running:
        (file,) = discover([running.url], tmp_path / "catalog")
    assert file.name == "grow@1.json"
    path = saved(tmp_path / "p.json", chain("grow"))
    scene = write_scene(tmp_path / "s.tif", noise(30, 20))
    assert pesto("check", path, "--services", tmp_path / "catalog").returncode == 0
    with pytest.raises(Unreachable):
        run_local(chain("grow"), tmp_path / "out", {"scene": scene}, catalog=tmp_path / "catalog")


def test_a_breaking_change_since_the_catalog_is_refused(
    tmp_path: Path, scene: Path, service: FakeService
) -> None:
    """More margin than was saved; a new text (control) is told and runs."""
    discover([service.url], tmp_path / "catalog")
    said = json.loads(json.dumps(service.description))
    service.description = {**said, "description": "Another text."}
    done = run_local(chain("grow"), tmp_path / "a", {"scene": scene}, catalog=tmp_path / "catalog")
    assert done.result["status"] == "COMPLETE"
    said["input"]["properties"]["image"]["x-raster"]["margin"] = 9
    service.description = said
    with pytest.raises(InvalidContract, match="margin"):
        run_local(chain("grow"), tmp_path / "b", {"scene": scene}, catalog=tmp_path / "catalog")
    assert not (tmp_path / "b").exists()


def test_replicas_share_the_work_and_must_be_of_one_process(
    tmp_path: Path, service: FakeService
) -> None:
    """The least busy is called; one of another version is no replica."""
    scene = write_scene(tmp_path / "l.tif", noise(1100, 600))
    service.answer = slow(0.02)
    with fake_service(slow(0.02)) as other:
        both = (f"grow={service.url}", f"grow={other.url}")
        run_local(chain("grow"), tmp_path / "a", {"scene": scene}, services=both)
        assert service.calls > 0
        assert other.calls > 0
        other.description = {**other.description, "version": "2"}
        with pytest.raises(InvalidContract, match="differently"):
            run_local(chain("grow"), tmp_path / "b", {"scene": scene}, services=both)


def test_a_service_cannot_choose_where_its_description_is_saved(
    tmp_path: Path, service: FakeService
) -> None:
    """A version with slashes would leave the folder."""
    service.description = {**service.description, "version": "../../x"}
    with pytest.raises(InvalidContract, match="name"):
        discover([service.url], tmp_path / "catalog")
    assert tree(tmp_path) == set()


def test_nothing_is_saved_where_one_service_is_down(tmp_path: Path, service: FakeService) -> None:
    """All or none."""
    with pytest.raises(Unreachable):
        discover([service.url, "http://127.0.0.1:9"], tmp_path / "catalog")
    assert tree(tmp_path) == set()


def test_a_description_whose_url_was_deleted_is_saved_again_without_one(
    tmp_path: Path, service: FakeService
) -> None:
    """A connection of Airflow has it; the overlay stays too, and the description is the new one."""
    (file,) = discover([service.url], tmp_path / "catalog")
    first = json.loads(file.read_text())
    written = {**first, "overlay": {"description": "x"}, "digest": "old"}
    del written["url"]
    file.write_text(json.dumps(written))
    discover([service.url], tmp_path / "catalog")
    again = json.loads(file.read_text())
    assert again == {**written, "digest": first["digest"]}
    assert first["url"] == service.url, "the control"


def test_a_saved_description_that_was_harmed_is_not_written_over(
    tmp_path: Path, service: FakeService
) -> None:
    """It may hold an overlay that somebody wrote by hand."""
    (file,) = discover([service.url], tmp_path / "catalog")
    file.write_text('{"overlay": {')
    with pytest.raises(InvalidInput, match="not JSON"):
        discover([service.url], tmp_path / "catalog")
    assert file.read_text() == '{"overlay": {'


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, service: FakeService) -> None:
    """A file stands in its place."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreRefused):
        discover([service.url], tmp_path / "file")

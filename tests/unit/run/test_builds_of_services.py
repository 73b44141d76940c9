"""Services whose responses do not state their code: compared before and after each chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import PestoError, ProcessChanged
from pesto_runtime.run.services import resolve_services
from tests.support.fakes import FakeService, as_base64, as_npy, fake_service
from tests.support.rasters import noise, tree, write_scene
from tests.support.runs import Done, chain, run_local

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Answer = tuple[int, str, bytes]
PIXELS = noise(1100, 600)
AFTER = 10


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return write_scene(tmp_path / "s.tif", PIXELS)


def grown(folder: Path, scene: Path, fake: FakeService, **settings: object) -> Done:
    """Run over a scene at a fake service, one tile after the other."""
    return run_local(
        chain("grow"), folder, {"scene": scene}, services=(f"grow={fake.url}",), workers=1,
        patience_s=1.0, **settings,  # type: ignore[arg-type]  # as given
    )  # fmt: skip


def another_version(fake: FakeService) -> None:
    """Only its version document changes."""
    fake.version = {"version": "1", "commit": "f00"}


def another_description(fake: FakeService) -> None:
    """Its description changes, and nothing else."""
    fake.description = {**fake.description, "title": "another"}


def another_build(fake: FakeService) -> None:
    """An older version of this package states its build in the description only."""
    fake.headers = {"X-Pesto-Build": "sha256:other"}


CHANGES = [another_version, another_description, another_build]


def as_plain(fake: FakeService) -> None:
    """Make it a PESTO 1.7.2 service: no Accept-Post."""
    fake.accepts = ""


@pytest.mark.parametrize("is_plain", [True, False])
def test_an_unchanged_service_runs(tmp_path: Path, scene: Path, is_plain: bool) -> None:
    """The control of all others; of PESTO 1.7.2, and of an older version of this package."""
    with fake_service(as_base64 if is_plain else as_npy) as fake:
        if is_plain:
            as_plain(fake)
        done = grown(tmp_path / "out", scene, fake)
    assert done.result["status"] == "COMPLETE"
    if is_plain:  # the fake knows no references, and answers zeros for them
        assert np.array_equal(done.pixels(), PIXELS)


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("is_plain", [True, False])
def test_a_service_that_changes_in_a_chunk_ends_the_run(
    tmp_path: Path, scene: Path, is_plain: bool, change: Callable[[FakeService], None]
) -> None:
    """At the chunk's end; the objects that the chunk has stored are deleted."""
    respond = as_base64 if is_plain else as_npy

    def answer(pixels: np.ndarray) -> Answer:
        if fake.calls == AFTER:
            change(fake)
        return respond(pixels)

    with fake_service(answer) as fake:
        if is_plain:
            as_plain(fake)
        with pytest.raises(ProcessChanged, match="stage 's0'") as caught:
            grown(tmp_path / "out", scene, fake, max_tasks=1)
        assert fake.url in caught.value.detail
        assert fake.calls > AFTER
    left = tree(tmp_path / "out")
    assert [name for name in left if not name.startswith(".pesto/")] == []
    assert [name for name in left if "/blocks/" in name] == []


def test_objects_of_earlier_chunks_stay(tmp_path: Path, scene: Path) -> None:
    """They were checked at the end of their chunk; the same service goes on with them."""

    def answer(pixels: np.ndarray) -> Answer:
        if fake.calls == AFTER:
            another_version(fake)
        return as_base64(pixels)

    with fake_service(answer) as fake:
        as_plain(fake)
        with pytest.raises(ProcessChanged):
            grown(tmp_path / "out", scene, fake, max_tasks=6)
        assert any("/blocks/" in name for name in tree(tmp_path / "out"))
        fake.version = {"version": "1"}
        fake.answer = as_base64
        done = grown(tmp_path / "out", scene, fake, max_tasks=6)
    assert done.tiles[1] > 0
    assert np.array_equal(done.pixels(), PIXELS)


def test_the_build_of_such_a_service_has_its_version_document(tmp_path: Path) -> None:
    """So a changed one is another key; a service without the document has a build, too."""
    builds = []
    with fake_service(as_base64) as fake:
        as_plain(fake)
        for version in ({"version": "1"}, {"version": "1", "commit": "f00"}):
            fake.version = version
            found = resolve_services(
                Pipeline.parse(chain("grow")), base=tmp_path, options=[f"grow={fake.url}"]
            )
            service = found.services["grow"]
            builds.append(service.build)
            assert service.digest == found.found["grow"].said.digest
            assert not service.states_code
    assert builds[0] != builds[1]
    assert all(each.startswith("grow@1+") for each in builds)


def test_replicas_with_other_version_documents_are_refused(tmp_path: Path) -> None:
    """When planning; each URL with its build."""
    with fake_service(as_base64) as first, fake_service(as_base64) as second:
        as_plain(first)
        as_plain(second)
        options = [f"grow={first.url}", f"grow={second.url}"]
        resolve_services(Pipeline.parse(chain("grow")), base=tmp_path, options=options)
        another_version(second)
        with pytest.raises(ProcessChanged) as caught:
            resolve_services(Pipeline.parse(chain("grow")), base=tmp_path, options=options)
    assert isinstance(caught.value, PestoError)
    assert all(each.url in caught.value.detail for each in (first, second))

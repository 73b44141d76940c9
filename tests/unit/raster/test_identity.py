"""A scene has an identity, and one that is replaced, overwritten or deleted no longer has it."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest
import rasterio

from pesto_runtime.contract import Window
from pesto_runtime.errors import RasterUnreadable, SceneChanged, Unreachable
from pesto_runtime.hrefs import file_href
from pesto_runtime.masking import masked
from pesto_runtime.raster.gdal import raster_settings
from pesto_runtime.raster.identity import identity_of, require_unchanged, unchanged
from pesto_runtime.raster.read import RasterReader, read_image, read_scene
from pesto_runtime.remote import s3_settings
from pesto_runtime.store import Store
from tests.support.file_server import FileServer, serving, use
from tests.support.rasters import noise, write_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    folder = tmp_path / "served" / "bucket"
    folder.mkdir(parents=True)
    return write_scene(folder / "a scene.tif", noise(64, 48))


@pytest.fixture
def server(scene: Path, tmp_path: Path) -> Iterator[FileServer]:
    with serving(scene.parents[1], tmp_path / "requests.log") as server:
        yield server


def rewrite(scene: Path) -> None:
    """Write other bytes of the same length into the same file."""
    with scene.open("r+b") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\x07" * 8)
    touch(scene, 1)


def touch(scene: Path, nanoseconds: int) -> None:
    status = scene.stat()
    os.utime(scene, ns=(status.st_atime_ns, status.st_mtime_ns + nanoseconds))


def replace(scene: Path) -> None:
    """Replace it atomically by another file with its size and times."""
    twin = scene.with_name("twin.tif")
    shutil.copy2(scene, twin)
    rewrite(twin)
    shutil.copystat(scene, twin)
    assert twin.stat().st_size == scene.stat().st_size
    assert twin.stat().st_mtime_ns == scene.stat().st_mtime_ns
    twin.replace(scene)


def grow(scene: Path) -> None:
    """Append a byte, and turn the clock back."""
    modified = scene.stat().st_mtime_ns
    with scene.open("ab") as file:
        file.write(b"\0")
    os.utime(scene, ns=(modified, modified))


CHANGES = {"rewritten in place": rewrite, "replaced": replace, "grown": grow}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("spelling", [file_href, str], ids=["href", "path"])
def test_a_changed_file_is_another_scene(
    scene: Path, change: Callable[[Path], None], spelling: Callable[[Path], str]
) -> None:
    """Size, modification time and inode each count; the control is the file before the change."""
    href = spelling(scene)
    planned = identity_of(href)
    require_unchanged(href, planned)
    change(scene)
    with pytest.raises(SceneChanged) as caught:
        require_unchanged(href, planned)
    now = identity_of(href)
    assert now != planned
    assert [each in caught.value.detail for each in (href, planned, now)] == [True, True, True]


def test_a_deleted_file_no_longer_exists(scene: Path) -> None:
    """So says the error; a file that never was is a raster that cannot be read."""
    planned = identity_of(str(scene))
    scene.unlink()
    with pytest.raises(SceneChanged, match=rf"{planned}, it no longer exists"):
        require_unchanged(str(scene), planned)
    with pytest.raises(RasterUnreadable, match="does not exist"):
        identity_of(str(scene))
    with pytest.raises(RasterUnreadable, match="does not exist"):
        read_scene(str(scene))


def test_a_file_that_comes_back_is_the_same_scene(scene: Path) -> None:
    """By a rename it has its inode and times again; a copy of it is another scene."""
    planned = identity_of(str(scene))
    aside = scene.rename(scene.with_name("aside.tif"))
    shutil.copy2(aside, scene)
    with pytest.raises(SceneChanged):
        require_unchanged(str(scene), planned)
    aside.replace(scene)
    require_unchanged(str(scene), planned)


def test_a_link_is_the_scene_that_it_leads_to(scene: Path) -> None:
    """A scene that is published by moving a link is another one after the move."""
    other = write_scene(scene.with_name("other.tif"), noise(64, 48, seed=1))
    link = scene.with_name("latest.tif")
    link.symlink_to(scene)
    planned = identity_of(str(link))
    assert planned == identity_of(str(scene))
    link.unlink()
    link.symlink_to(other)
    with pytest.raises(SceneChanged):
        require_unchanged(str(link), planned)


def test_the_identity_is_requested_before_the_scene_is_opened(scene: Path) -> None:
    """The plan of a scene that is replaced while it is planned never names the new scene."""
    planned = read_scene(str(scene)).identity
    assert planned == identity_of(str(scene))
    with raster_settings(), RasterReader(str(scene)) as reader:
        assert not reader.scene().identity, "an open file does not know what its name refers to"


def test_reading_around_a_change_raises(scene: Path) -> None:
    """A change before or during reading, and one that made reading fail; control: no change."""
    href = str(scene)
    planned = identity_of(href)
    with unchanged(href, planned):
        read_image(href)
    with pytest.raises(SceneChanged), unchanged(href, planned):
        touch(scene, 1)
    with pytest.raises(SceneChanged), unchanged(href, planned):
        pytest.fail("it is known before the pixels are read")
    with pytest.raises(SceneChanged, match="no longer"), unchanged(href, identity_of(href)):
        read_image(str(scene.rename(scene.with_name("aside.tif")).with_name("a scene.tif")))


def test_without_an_identity_nothing_is_compared(scene: Path, tmp_path: Path) -> None:
    """A request without one, and a server that states none, are read as they are."""
    for planned in (None, ""):
        with unchanged(str(scene), planned):
            touch(scene, 1)
        require_unchanged(str(tmp_path / "never.tif"), planned)


HREFS = {"plain": "/bucket/a%20scene.tif", "query": "/bucket/a%20scene.tif?sig=a%2Fb%3D",
         "redirect": "/moved/bucket/a%20scene.tif"}  # fmt: skip


@pytest.mark.parametrize("path", HREFS.values(), ids=HREFS)
@pytest.mark.parametrize("states", ["etag", "modified"])
def test_a_server_states_the_identity(
    scene: Path, server: FileServer, states: str, path: str
) -> None:
    """By ETag, else by Last-Modified and length; by one HEAD, redirects followed."""
    server.states(states)
    href = server.url + path
    planned = read_scene(href).identity
    require_unchanged(href, planned)
    before = server.heads()
    require_unchanged(href, planned)
    assert server.heads() - before == (2 if "moved" in path else 1)
    assert planned.startswith(f"{scene.stat().st_size}-")
    assert ('"' in planned) == (states == "etag"), "an ETag is quoted"
    rewrite(scene)
    touch(scene, 2_000_000_000)
    with pytest.raises(SceneChanged) as caught:
        require_unchanged(href, planned)
    told = caught.value.detail
    assert all(each in told for each in (masked(href), planned, identity_of(href)))
    scene.unlink()
    with pytest.raises(SceneChanged, match="no longer exists"):
        require_unchanged(href, planned)
    with pytest.raises(RasterUnreadable):
        read_scene(href)


def test_the_length_counts_with_the_time(scene: Path, server: FileServer) -> None:
    """Last-Modified has seconds only: a scene of another length within one is another scene."""
    server.states("modified")
    href = server.url + HREFS["plain"]
    planned = identity_of(href)
    touch(scene, 0)
    require_unchanged(href, planned)
    grow(scene)
    with pytest.raises(SceneChanged):
        require_unchanged(href, planned)


@pytest.mark.parametrize("states", ["nothing", "refuses"])
def test_a_server_may_state_no_identity(scene: Path, server: FileServer, states: str) -> None:
    """Then the scene is read all the same; a scene that loses its identity has changed."""
    href = server.url + HREFS["plain"]
    planned = identity_of(href)
    server.states(states)
    found = read_scene(href)
    assert (found.identity, found.width) == ("", 64)
    found_now = "without identity" if states == "nothing" else "no longer exists"
    with pytest.raises(SceneChanged, match=found_now):
        require_unchanged(href, planned)


def test_a_server_that_fails_is_not_a_change(scene: Path, server: FileServer) -> None:
    """The error can be retried; the blocks of a chunk must not be believed meanwhile."""
    href = server.url + HREFS["plain"]
    planned = identity_of(href)
    server.states("broken")
    with pytest.raises(Unreachable, match="503") as caught:
        require_unchanged(href, planned)
    assert caught.value.retryable


@pytest.mark.parametrize("spelling", ["gdal_variables", "obstore_variables"])
def test_either_spelling_of_s3_is_enough(
    scene: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch, spelling: str
) -> None:
    """GDAL reads the pixels, obstore requests the identity and opens the run store."""
    href = f"s3://bucket/{scene.name}"
    use(getattr(server, spelling), monkeypatch)
    found = read_scene(href)
    assert found.identity.endswith('"'), "an ETag"
    assert np.array_equal(read_image(href).pixels, noise(64, 48))
    assert not Store("s3://bucket").has("absent")
    rewrite(scene)
    with pytest.raises(SceneChanged):
        require_unchanged(href, found.identity)


def test_without_variables_of_s3_it_is_another_place(
    scene: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: neither the pixels nor the store are found."""
    use({"AWS_S3_ENDPOINT": "127.0.0.1:1", "AWS_HTTPS": "NO", "AWS_NO_SIGN_REQUEST": "YES",
         "AWS_VIRTUAL_HOSTING": "FALSE"}, monkeypatch)  # fmt: skip
    with pytest.raises(Unreachable):
        read_scene(f"s3://bucket/{scene.name}")
    with pytest.raises(Unreachable):
        Store("s3://bucket").has("absent")


def test_keys_of_the_credentials_file_are_used(
    scene: Path, server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GDAL reads that file, so a scene that it can read has an identity."""
    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = a\n[b]\naws_access_key_id = b\n"
                    "aws_secret_access_key = 100%\n")  # fmt: skip
    variables = dict(server.gdal_variables)
    del variables["AWS_NO_SIGN_REQUEST"]
    use({**variables, "AWS_SHARED_CREDENTIALS_FILE": str(file), "AWS_PROFILE": "b"}, monkeypatch)
    assert identity_of(f"s3://bucket/{scene.name}")
    assert (s3_settings()["access_key_id"], s3_settings()["secret_access_key"]) == ("b", "100%")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "of the environment")
    assert "access_key_id" not in s3_settings(), "obstore reads that one itself"
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_PROFILE")
    assert "access_key_id" not in s3_settings(), "half of a key is none"


def test_the_identity_of_a_remote_scene_is_requested_before_its_pixels(
    scene: Path, server: FileServer
) -> None:
    """As above: the first request is the one for the identity."""
    read_scene(server.url + HREFS["plain"])
    first, *others = server.log.read_text().splitlines()
    assert "object_store" in first
    assert others
    assert not any("object_store" in each for each in others)


def test_another_scene_at_the_same_url_has_its_own_pixels_while_the_old_one_is_open(
    scene: Path, server: FileServer
) -> None:
    """A worker keeps the scene of a run open; the next run may be planned by another process."""
    href, whole = server.url + HREFS["plain"], Window(0, 0, 64, 48)
    with raster_settings(), RasterReader(href) as old:
        assert np.array_equal(old.read(whole), noise(64, 48))
        write_scene(scene, noise(64, 48, seed=1))
        with RasterReader(href) as new:
            assert np.array_equal(new.read(whole), noise(64, 48, seed=1))


def test_another_scene_at_the_same_url_has_its_own_pixels(scene: Path, server: FileServer) -> None:
    """GDAL keeps bytes of remote files; the control shows that without the setting they stay."""
    href = server.url + HREFS["plain"]
    old = read_image(href).pixels
    write_scene(scene, noise(64, 48, seed=1))
    assert np.array_equal(read_image(href).pixels, noise(64, 48, seed=1))
    assert not np.array_equal(old, noise(64, 48, seed=1))
    with rasterio.open(href) as dataset:
        assert np.array_equal(dataset.read(), noise(64, 48, seed=1))
    write_scene(scene, noise(64, 48, seed=2))
    with rasterio.open(href) as dataset:
        assert np.array_equal(dataset.read(), noise(64, 48, seed=1)), "bytes of the old scene"

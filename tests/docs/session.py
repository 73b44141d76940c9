"""A working directory in which the blocks of one page run, as a reader would run them."""

from __future__ import annotations

import io
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from contextlib import chdir, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Self

from tests.docs.markdown import ROOT, Block, blocks, needed

if TYPE_CHECKING:
    from collections.abc import Iterator

_PORT = re.compile(r"(?<=[: ])80[1-9]\d\b")
_READY_S = 90
_COPIED = ("examples", "workflows")
_MASKS = (
    (re.compile(r"\b\d+(\.\d+)? s\b"), "N s"),
    (re.compile(r"(?<![.\w])[0-9a-f]{12,}\b"), "HASH"),
    (re.compile(r'("(?:cpu_)?seconds": )[\d.]+'), r"\1N"),
)


class Session:
    """Runs blocks one after another; ends what it started.

    Ports 8010 to 8099 in a page become free ones, so that pages run side by side.
    """

    def __init__(self, page: Path, folder: Path) -> None:
        self.folder = folder
        self._ports = {
            port: str(_free_port()) for port in sorted(set(_PORT.findall(page.read_text())))
        }
        self._names: dict[str, object] = {"__name__": page.stem}
        self._printed = ""
        self._last_code = 0
        self._services: list[subprocess.Popen[bytes]] = []
        for name in _COPIED:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__*"))
        for other in needed(page):
            for block in blocks(other):
                if "file" in block.marks:
                    self._write(block)

    def __enter__(self) -> Self:
        sys.path.insert(0, str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        sys.path.remove(str(self.folder))
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(f"{self.folder}/"):
                del sys.modules[name]
        for service in self._services:
            service.terminate()
        for service in self._services:
            service.wait(60)

    def run(self, block: Block) -> None:
        """Run a block; fails where it does not do what the page says."""
        if "file" in block.marks:
            self._write(block)
        elif "prints" in block.marks:
            compare(block.text, self._from_free_ports(self._printed), block.where)
        elif block.language == "python":
            self._run_python(block)
        elif block.language == "bash":
            self._shell(block.text, block.where, may_fail=False)
        elif block.language == "console":
            self._run_console(block)

    def _write(self, block: Block) -> None:
        path = self.folder / block.marks["file"]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self._on_free_ports(block.text))

    def _run_python(self, block: Block) -> None:
        text = "\n" * (block.line - 1) + self._on_free_ports(block.text)
        output = io.StringIO()
        with chdir(self.folder), redirect_stdout(output):
            exec(compile(text, block.page, "exec"), self._names)  # noqa: S102  # our own page
        self._printed = output.getvalue()

    def _run_console(self, block: Block) -> None:
        found = list(commands(block.text))
        for number, (command, expected) in enumerate(found):
            follower = found[number + 1][0] if number + 1 < len(found) else ""
            where = f"{block.where}: {command}"
            if command.endswith("&"):
                told = self._start(command[:-1], where)
            else:
                told = self._shell(command, where, may_fail=follower == "echo $?")
            if expected:
                compare(expected, told, where)

    def _shell(self, command: str, where: str, *, may_fail: bool) -> str:
        done = subprocess.run(
            ["/bin/bash", "-c", f"(exit {self._last_code})\n{self._on_free_ports(command)}"],
            cwd=self.folder, env=_environment(), text=True, check=False, timeout=60,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self._last_code = done.returncode
        told = self._from_free_ports(done.stdout)
        assert may_fail or done.returncode == 0, f"{where}\nexit code {done.returncode}\n{told}"
        return told

    def _start(self, command: str, where: str) -> str:
        """Start a service, and wait until it says where it is."""
        log = self.folder / f".service-{len(self._services)}.log"
        with log.open("wb") as file:
            service = subprocess.Popen(
                ["/bin/bash", "-c", f"exec {self._on_free_ports(command)}"],
                cwd=self.folder, env=_environment(), stdout=file, stderr=file,
            )  # fmt: skip
        self._services.append(service)
        end = time.monotonic() + _READY_S
        while "serving " not in log.read_text():
            assert service.poll() is None, f"{where}\n{log.read_text()}"
            assert time.monotonic() < end, f"{where}\nnot ready after {_READY_S} s"
            time.sleep(0.02)
        return self._from_free_ports(log.read_text())

    def _on_free_ports(self, text: str) -> str:
        return _PORT.sub(lambda found: self._ports.get(found[0], found[0]), text)

    def _from_free_ports(self, text: str) -> str:
        for port, free in self._ports.items():
            text = re.sub(rf"(?<=[: ]){free}\b", port, text)
        return text


def commands(text: str) -> Iterator[tuple[str, str]]:
    """The commands of a console block, each with the output that the page shows of it."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        last = next(number for number, line in enumerate(lines) if not line.endswith("\\"))
        yield "\n".join(lines[: last + 1]), "\n".join(lines[last + 1 :])


def compare(expected: str, told: str, where: str) -> None:
    """Compare an output with what the page shows of it.

    `...` stands for any text, on a line of its own for any lines; seconds and hashes may differ.
    """
    pattern = ""
    for line in masked(expected).splitlines():
        if line.strip() == "...":
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(re.escape(part) for part in line.rstrip().split("...")) + r"\n"
    shown = "".join(f"{line.rstrip()}\n" for line in masked(told).splitlines())
    assert re.fullmatch(pattern, shown), f"{where}\nthe page shows\n{expected}\nit is\n{told}"


def masked(text: str) -> str:
    """A text without what differs from run to run."""
    for pattern, mask in _MASKS:
        text = pattern.sub(mask, text)
    return text


def _environment() -> dict[str, str]:
    """Ours, with `pesto` of this environment on the path, and no colours or wide terminals."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "NO_COLOR": "1", "COLUMNS": "100", "TERM": "dumb"}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port

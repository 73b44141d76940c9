"""`python -m tests.support.saboteur ROOT kill|ENOSPC|EIO`: disturb each step of publishing once.

A step is an audit event of Python (PEP 578) on a file: it is opened, moved, deleted or listed.
Every run is a process that is forked from this one, which itself starts no thread and opens no
store. Prints a line of JSON: the number of steps, of errors that were told, and what was wrong.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import PestoError
from pesto_runtime.run import local, publishing
from pesto_runtime.run.services import resolve_services
from tests.support.rasters import noise, sha256_of, tree, write_scene
from tests.support.runs import pipeline, run_local, stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import JsonValue

DOCUMENT = pipeline(
    stage("grown", "grow", image="$inputs.scene"),
    stage("mean", "mean", image="$grown.image"),
    outputs={"image": "$grown.image", "mean": "$mean.mean"},
)
PUBLIC = {"image.tif", "mean.json", "report.html", "result.json"}
EVENTS = frozenset(
    {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.utime", "os.truncate",
     "os.listdir", "os.scandir", "shutil.rmtree", "fcntl.flock"}
)  # fmt: skip
TOLD, UNTOLD, TRACEBACK = 3, 4, 5


class Saboteur:
    """Counts steps from the moment that publishing begins, and acts at one of them."""

    def __init__(self, at: int, act: Callable[[], None]) -> None:
        """Listen to this process until it ends: a hook cannot be removed."""
        self.count, self.is_publishing = 0, False
        self._at, self._act = at, act
        publish = publishing.publish

        def begun(*arguments: object, **named: object) -> dict[str, JsonValue]:
            self.is_publishing = True
            return publish(*arguments, **named)  # type: ignore[arg-type]  # as they came

        vars(local)["publish"] = begun
        sys.addaudithook(self._listen)

    def _listen(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.is_publishing or event not in EVENTS or "/out" not in str(arguments[0]):
            return
        self.count += 1
        if self.count == self._at:
            self._act()


def in_child(run: Callable[[], int]) -> int:
    """Run in a forked process; return its exit code, negative for a signal."""
    child = os.fork()
    if not child:
        code = TRACEBACK
        try:
            code = run()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def kill() -> None:
    """End this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)


class Disturbance:
    """Runs in `ROOT/out`, from blocks that `ROOT/computed` has."""

    def __init__(self, root: Path, how: str) -> None:
        """Write the scene, and compute its blocks."""
        self._out, self._computed, self._how = root / "out", root / "computed", how
        self._scene = write_scene(root / "s.tif", noise(700, 300))
        vars(publishing)["write_report"] = lambda path, _data: path.write_text("<!doctype html>")
        resolve_services(Pipeline.parse(DOCUMENT), base=root)  # loaded once, not in each process
        in_child(self._compute)
        self._expected = sha256_of(self._computed / "image.tif")
        for name in PUBLIC:
            (self._computed / name).unlink()

    def _compute(self) -> int:
        run_local(DOCUMENT, self._computed, {"scene": self._scene}, keep=True)
        return 0

    def steps(self) -> int:
        """Return the number of steps of an undisturbed run."""
        shutil.copytree(self._computed, self._out)

        def run() -> int:
            saboteur = Saboteur(-1, kill)
            run_local(DOCUMENT, self._out, {"scene": self._scene})
            saboteur.is_publishing = False
            (self._computed.parent / "steps").write_text(str(saboteur.count))
            return 0

        in_child(run)
        shutil.rmtree(self._out)
        return int((self._computed.parent / "steps").read_text())

    def disturb(self, step: int) -> tuple[int, str]:
        """Disturb one step, then run again; return the first exit code, and what is wrong."""
        shutil.copytree(self._computed, self._out)
        code = in_child(lambda: self._disturbed(step))
        complaint = "" if code in self._allowed() else f"exit code {code}"
        found = tree(self._out)
        if "result.json" in found and not (found >= PUBLIC and self._is_right()):
            complaint = f"a result beside {sorted(found)}"
        again = in_child(self._again)
        if again or tree(self._out) != PUBLIC or not self._is_right():
            complaint = f"again: exit code {again}, {sorted(tree(self._out))}"
        shutil.rmtree(self._out)
        return code, complaint and f"step {step}: {complaint}"

    def _allowed(self) -> tuple[int, ...]:
        return (-signal.SIGKILL,) if self._how == "kill" else (0, TOLD, UNTOLD)

    def _disturbed(self, step: int) -> int:
        def refuse() -> None:
            number = getattr(errno, self._how)
            raise OSError(number, os.strerror(number))

        Saboteur(step, kill if self._how == "kill" else refuse)
        try:
            run_local(DOCUMENT, self._out, {"scene": self._scene})
        except PestoError as error:
            return TOLD if os.strerror(getattr(errno, self._how)) in str(error) else UNTOLD
        return 0

    def _again(self) -> int:
        run_local(DOCUMENT, self._out, {"scene": self._scene})
        return 0

    def _is_right(self) -> bool:
        return sha256_of(self._out / "image.tif") == self._expected


def main() -> None:
    """Disturb every step."""
    disturbance = Disturbance(Path(sys.argv[1]), sys.argv[2])
    steps = disturbance.steps()
    outcomes = [disturbance.disturb(step) for step in range(1, steps + 1)]
    told = [code for code, _ in outcomes].count(TOLD)
    complaints = [complaint for _, complaint in outcomes if complaint]
    print(json.dumps({"steps": steps, "told": told, "complaints": complaints}))  # noqa: T201  # to the test


if __name__ == "__main__":
    main()

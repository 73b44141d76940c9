"""This project: the job as a pipeline, run by the local engine within the process."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from benchmarks.contestants.child import Task, run
from pesto_runtime.contract import Pipeline
from pesto_runtime.engines import Engine, RunRequest, SilentListener, load_engine

if TYPE_CHECKING:
    from collections.abc import Callable


def prepare(task: Task) -> Callable[[], None]:
    """The engine is loaded, as the libraries of the others are; all the rest is timed."""
    engine = load_engine("local")
    return lambda: _run(engine, task)


def _run(engine: Engine, task: Task) -> None:
    request = RunRequest(
        pipeline=_pipeline(task),
        base=Path.cwd(),
        inputs={"scene": task.scene},
        folder=Path(task.out),
        workers=task.workers,
        executor=cast("Literal['threads', 'processes']", task.variant),
        tile=task.tile or None,
    )
    result = engine.run(request, watcher=SilentListener())
    if result["status"] != "COMPLETE":
        raise SystemExit(f"the run is {result['status']}")


def _pipeline(task: Task) -> Pipeline:
    names = [step.process.replace("_", "-") for step in task.job.steps]
    reads = ["$inputs.scene", *(f"${name}.made" for name in names)]
    return Pipeline.parse(
        {
            "name": task.letter,
            "inputs": {"scene": "image"},
            "services": {
                name: f"benchmarks.processes:{step.process}"
                for name, step in zip(names, task.job.steps, strict=True)
            },
            "stages": [
                {"id": name, "process": name, "inputs": {"image": read}}
                for name, read in zip(names, reads, strict=False)
            ],
            "outputs": {"product": reads[-1]},
        }
    )


if __name__ == "__main__":
    run(prepare)

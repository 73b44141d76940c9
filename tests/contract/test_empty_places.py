"""An empty text, as of a variable that is not set, is refused by the name of its option."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import typer

import tests.support.airflow_home  # noqa: F401  # before any test imports Airflow
from pesto_airflow import PestoPlanOperator
from pesto_conductor.attempts import ProgressTracker
from pesto_conductor.binding import TaskContext
from pesto_conductor.commands import app as conductor_app
from pesto_conductor.verbs import binding_of
from pesto_runtime import flow
from pesto_runtime.cli.main import app, main
from pesto_runtime.contract import Pipeline
from pesto_runtime.engines import RunRequest, SilentListener, load_engine
from pesto_runtime.errors import StoreRefused
from tests.support.airflow_tasks import Run
from tests.support.rasters import noise, tree, write_scene
from tests.support.runs import CLOUD_COVER, PROCESSES, chain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.contract


def words_of(command: Any, *path: str) -> Iterator[tuple[str, ...]]:
    """Yield a command's words before an empty text, for each option and argument with a value."""
    for name, each in getattr(command, "commands", {}).items():
        yield from words_of(each, *path, name)
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            yield path
        elif not (parameter.is_flag or parameter.count):
            yield (*path, parameter.opts[-1])


EVERY = sorted(
    {
        *words_of(typer.main.get_command(app)),
        *words_of(typer.main.get_command(conductor_app), "conductor"),
    }
    - {("render", "--failure-workflow")}  # whose empty text means none
)


def test_the_table_has_the_options_of_places() -> None:
    """The control: it would be empty if the commands were not found."""
    some = [("run", "--out"), ("run", "--cache"), ("run", "--prices"), ("run", "--scenes"),
            ("cache", "prune"), ("verify",), ("conductor", "worker", "--url")]  # fmt: skip
    assert {*some} < {*EVERY}


def test_no_command_takes_an_empty_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 with the option, and nothing is written; `--option ""` and `--option=`."""
    monkeypatch.chdir(tmp_path)
    for words in EVERY:
        is_option = words[-1].startswith("-")
        name = words[-1] if is_option else "an argument"
        for given in [[*words, ""], *([[*words[:-1], f"{name}="]] if is_option else [])]:
            monkeypatch.setattr("sys.argv", ["pesto", *given])
            with pytest.raises(SystemExit) as ended:
                main()
            assert ended.value.code == 2, given
            assert f"pesto: {name} is empty" in capsys.readouterr().err, given
    assert not tree(tmp_path)


def on_airflow(options: dict[str, Any], folder: Path) -> None:
    run = Run()
    PestoPlanOperator(
        task_id="plan", pipeline=chain("grow"), base=CLOUD_COVER.parent, folder=folder / "out",
        inputs={"scene": str(folder / "s.tif")}, **options,
    ).perform(run.context)  # fmt: skip


def on_conductor(options: dict[str, Any], folder: Path) -> None:
    progress = ProgressTracker()
    task = TaskContext("http://127.0.0.1:9/api", "w", progress.observer, progress.log)
    document: dict[str, Any] = {**chain("grow")}
    given = {"pipeline": document, "inputs": {"scene": str(folder / "s.tif")}, **options,
             "folder": str(folder / "out"), "services": {"grow": f"{PROCESSES}:grow"}}  # fmt: skip
    binding_of("pesto_plan").run(given, task)


def on_engine(options: dict[str, Any], folder: Path) -> None:
    request = RunRequest(
        pipeline=Pipeline.parse(chain("grow")), base=CLOUD_COVER.parent,
        inputs={"scene": str(folder / "s.tif")}, folder=folder / "out", **options,
    )  # fmt: skip
    load_engine("local").run(request, watcher=SilentListener())


def in_python(options: dict[str, Any], folder: Path) -> None:
    given = {"folder": folder / "out", **options}
    flow(folder / "s.tif").then(f"{PROCESSES}:grow").write("image.tif").run(**given)


WAYS = [
    *((way, name) for way in (on_airflow, on_conductor, on_engine) for name in ("store", "cache")),
    *((in_python, name) for name in ("folder", "cache")),
]


@pytest.mark.parametrize(("way", "name"), WAYS)
def test_no_way_from_code_takes_an_empty_place(tmp_path: Path, way: Any, name: str) -> None:
    """The option is named; without it (control), the run is planned."""
    write_scene(tmp_path / "s.tif", noise(60, 50))
    with pytest.raises(StoreRefused, match=name):
        way({name: ""}, tmp_path)
    assert tree(tmp_path) == {"s.tif"}
    way({}, tmp_path)
    assert tree(tmp_path) > {"s.tif"}

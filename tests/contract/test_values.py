"""Wrong values are refused alike on every way into a run, all at once, before a process is called.

The process writes a line per call, so that a call cannot be missed.
"""

from __future__ import annotations

import json
import runpy
import signal
import sys
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, TypeAlias, cast

import pytest

import tests.support.airflow_home  # noqa: F401  # before any test imports Airflow
from pesto_airflow import PestoPlanOperator, pesto_pipeline
from pesto_airflow.catalog import write_catalog
from pesto_conductor.attempts import ProgressTracker
from pesto_conductor.binding import TaskContext
from pesto_conductor.verbs import binding_of
from pesto_runtime import flow
from pesto_runtime.cli import main
from pesto_runtime.contract import Pipeline
from pesto_runtime.engines import (
    RenderRequest,
    RunRequest,
    SilentListener,
    load_engine,
    load_renderer,
)
from pesto_runtime.errors import InvalidPipeline
from pesto_runtime.run.services import resolve_services
from pesto_runtime.run.single_call import call_once
from pesto_runtime.schema import schema_faults
from tests.support.commands import saved
from tests.support.rasters import noise, write_scene
from tests.support.runs import ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from airflow.sdk import Context
    from pydantic import JsonValue

    Values: TypeAlias = Mapping[str, JsonValue]
    Document: TypeAlias = dict[str, JsonValue]
    Way: TypeAlias = Callable[["Bench", Document, Values], list[str]]

pytestmark = [pytest.mark.contract, pytest.mark.usefixtures("without_pictures")]
LIMITED = ROOT / "tests" / "contract" / "limited.py"
INPUTS = {
    "scene": "image", "log": "string", "threshold": "number", "radius": "integer",
    "mode": "string", "weights": "array", "options": "object", "repeat": "integer",
    "label": "string",
}  # fmt: skip


class Bench:
    """A folder with a scene, a log of calls, and the right values."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.out = folder / "out"
        self.log = folder / "calls.log"
        self.right: Document = {
            "scene": str(write_scene(folder / "s.tif", noise(60, 40))), "log": str(self.log),
            "threshold": 0.75, "radius": 2, "mode": "5", "weights": [0, 1.5], "options": {"a": 1},
            "repeat": 4, "label": "x",
        }  # fmt: skip

    @property
    def calls(self) -> list[str]:
        """What the processes have written, a line per call."""
        return self.log.read_text().splitlines() if self.log.exists() else []


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def document(**literals: JsonValue) -> Document:
    """Two stages, of which both are fed by `threshold`; the first may have literals instead."""
    ports = {name: f"$inputs.{name}" for name in INPUTS if name != "scene"}
    first: Document = {"image": "$inputs.scene", **ports, **literals}
    second: Document = {
        "image": "$a.image", "log": "$inputs.log", "threshold": "$inputs.threshold",
    }  # fmt: skip
    return {
        "name": "values",
        "inputs": dict(INPUTS),
        "services": {"limited": f"{LIMITED}:limited", "narrower": f"{LIMITED}:narrower"},
        "stages": [
            {"id": "a", "process": "limited", "inputs": first},
            {"id": "b", "process": "narrower", "inputs": second},
        ],
        "outputs": {"image": "$b.image"},
    }


def texts(values: Values) -> dict[str, str]:
    """Values as a command line has them."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in values.items()
    }


def refused(call: Callable[[], object]) -> list[str]:
    """The fields of the error that a call raises; none if it raises none."""
    error: InvalidPipeline | None = None
    try:
        call()
    except InvalidPipeline as raised:
        error = raised
    assert error is None or (error.exit_code, error.retryable) == (2, False)
    return [str(field) for field in error.fields] if error else []


@contextmanager
def arguments(*words: object) -> Iterator[None]:
    """The words of a command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["pesto", *map(str, words)])
        before = signal.getsignal(signal.SIGTERM)
        yield
        signal.signal(signal.SIGTERM, before)


def command(name: str, *options: str) -> Way:
    """A command of `pesto`, in this process: its exit code is 0, or 2 with one line per fault."""

    def way(bench: Bench, made: Document, values: Values) -> list[str]:
        path = saved(bench.folder / "p.json", made)
        given = [word for each in texts(values).items() for word in ("-i", "=".join(each))]
        out = ["-o", bench.out] if name == "run" else []
        errors = bench.folder / "stderr"
        with (
            arguments(name, path, *given, *out, *options), errors.open("w") as file,
            redirect_stderr(file), pytest.raises(SystemExit) as ended,
        ):  # fmt: skip
            main()
        lines = [line.strip() for line in errors.read_text().splitlines() if line[:3] == "  /"]
        assert int(ended.value.code or 0) == (2 if lines else 0), errors.read_text()
        return lines

    return way


def on_engine(name: str) -> Way:
    """An engine, from Python; it refuses before it starts or contacts a server."""

    def way(bench: Bench, made: Document, values: Values) -> list[str]:
        request = RunRequest(
            pipeline=Pipeline.parse(made), base=ROOT, inputs=texts(values), folder=bench.out
        )
        engine = load_engine(name)
        return refused(lambda: engine.run(request, watcher=SilentListener()))

    return way


def airflow_plan(bench: Bench, made: Document, values: Values) -> list[str]:
    """The plan task of a DAG, with JSON values."""

    class Task:
        def xcom_push(self, key: str, value: str) -> None:
            """Forget it."""

    task = PestoPlanOperator(task_id="plan", pipeline=made, inputs=values, folder=bench.out)
    return refused(lambda: task.perform(cast("Context", {"ti": Task()})))


def airflow_plan_of_texts(bench: Bench, made: Document, values: Values) -> list[str]:
    """The same with what a rendered DAG file passes on: texts."""
    return airflow_plan(bench, made, texts(values))


def dag_file(bench: Bench, made: Document, values: Values) -> list[str]:
    """A DAG file with its inputs written in it, while Airflow parses it; it reads no scene."""
    from airflow.sdk import DAG

    found = resolve_services(Pipeline.parse({**made, "stages": document()["stages"]}), base=ROOT)
    write_catalog(found.found.values(), bench.folder / "catalog")
    with DAG("made", schedule=None):
        return refused(
            lambda: pesto_pipeline(
                made, services=bench.folder / "catalog", inputs=values, folder=str(bench.out)
            )
        )


def conductor_plan(bench: Bench, made: Document, values: Values) -> list[str]:
    """The task `pesto_plan`; Conductor sets an absent input to null."""
    progress = ProgressTracker()
    task = TaskContext("http://127.0.0.1:9/api", "w", progress.observer, progress.log)
    inputs = {**dict.fromkeys(INPUTS), **values}
    given: Document = {"pipeline": made, "folder": str(bench.out), "inputs": inputs}
    return refused(lambda: binding_of("pesto_plan").run(given, task))


WAYS: dict[str, Way] = {
    "check": command("check"),
    "plan": command("plan"),
    "run": command("run"),
    "run with processes": command("run", "--executor", "processes"),
    "local": on_engine("local"),
    "dask": on_engine("dask"),
    "airflow": on_engine("airflow"),
    "airflow plan": airflow_plan,
    "airflow plan of texts": airflow_plan_of_texts,
    "dag file": dag_file,
    "conductor": on_engine("conductor"),
    "spark": on_engine("spark"),
    "conductor plan": conductor_plan,
}
SERVERS = ("airflow", "conductor", "dask", "spark")
"""Ways that start a server for right values; `tests/integration` runs these."""

THRESHOLDS = ("'threshold' of stage 'a'", "'threshold' of stage 'b'")


def fault(pointer: str, reason: str, *ports: str) -> str:
    """An error as it is printed; of the port of stage `a` that is named like the input."""
    name = pointer.split("/")[2]
    places = ports or (f"{name!r} of stage 'a'",)
    return f"{pointer}: {reason}, for {' and '.join(places)}: correct -i {name}=…"


WRONG: dict[str, tuple[Document, list[str]]] = {
    "above both ranges": ({"threshold": 9}, [
        fault("/inputs/threshold", "must be at most 1, not 9", THRESHOLDS[0]),
        fault("/inputs/threshold", "must be at most 2, not 9", THRESHOLDS[1]),
    ]),
    "in the range of one port": ({"threshold": 0.25}, [
        fault("/inputs/threshold", "must be at least 0.5, not 0.25", THRESHOLDS[1]),
    ]),
    "not in the enumeration": ({"radius": 9}, [
        fault("/inputs/radius", "must be one of [1, 2, 3, 4], not 9"),
    ]),
    "another type": ({"radius": "wide"}, [
        fault("/inputs/radius", "must be integer, not 'wide'"),
    ]),
    "a boolean": ({"threshold": True}, [
        fault("/inputs/threshold", "must be number, not True", *THRESHOLDS),
    ]),
    "an array for a number": ({"threshold": [0.75]}, [
        fault("/inputs/threshold", "must be number, not [0.75]", *THRESHOLDS),
    ]),
    "not a number": ({"threshold": "NaN"}, [
        fault("/inputs/threshold", "must be number, not 'NaN'", *THRESHOLDS),
    ]),
    "infinite": ({"threshold": "1e999"}, [
        fault("/inputs/threshold", "must be a finite number, not inf", *THRESHOLDS),
    ]),
    "a pattern": ({"mode": "five"}, [
        fault("/inputs/mode", "must match the pattern '^[0-9]+$', not 'five'"),
    ]),
    "elements of an array": ({"weights": [1, -1, "x"]}, [
        fault("/inputs/weights/1", "must be at least 0, not -1"),
        fault("/inputs/weights/2", "must be number, not 'x'"),
    ]),
    "a value of an object": ({"options": {"a": "b"}}, [
        fault("/inputs/options/a", "must be number, not 'b'"),
    ]),
    "null": ({"radius": "null"}, [
        fault("/inputs/radius", "must be integer, not None"),
    ]),
    "unknown": ({"raduis": 3}, [
        f"/inputs/raduis: the pipeline has no such input; it has {', '.join(INPUTS)}",
    ]),
}  # fmt: skip
MISSING = ["/inputs/radius: requires a value for 'radius' of stage 'a': -i radius=…"]
LITERAL = [
    (
        "/stages/0/inputs/radius: must be one of [1, 2, 3, 4], not 9, for 'radius' of stage 'a': "
        "correct the literal"
    )
]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_value_gives_one_report_everywhere(bench: Bench, way: str, case: str) -> None:
    """The input, the value, the ports, what is allowed, the way out; nothing is called or left."""
    change, expected = WRONG[case]
    given: Document = {**bench.right, **change}
    assert WAYS[way](bench, document(), given) == expected
    assert bench.calls == []
    assert not bench.out.exists()


@pytest.mark.parametrize("way", WAYS)
def test_a_missing_value_is_named_with_its_port(bench: Bench, way: str) -> None:
    """Also where Conductor has set it to null."""
    given = {name: value for name, value in bench.right.items() if name != "radius"}
    assert WAYS[way](bench, document(), given) == MISSING
    assert bench.calls == []


@pytest.mark.parametrize("way", WAYS)
def test_a_wrong_literal_is_named_with_its_stage(bench: Bench, way: str) -> None:
    """A DAG file finds it when Airflow parses it."""
    assert WAYS[way](bench, document(radius=9), bench.right) == LITERAL
    assert bench.calls == []


@pytest.mark.parametrize("way", WAYS)
def test_all_faults_are_in_one_report(bench: Bench, way: str) -> None:
    """A scene that is not there, an unknown input, a missing one, wrong values, a wrong literal."""
    nowhere = bench.folder / "none.tif"
    given: Document = {**bench.right, "scene": str(nowhere)}
    for case in ("unknown", "a pattern", "elements of an array"):
        given |= WRONG[case][0]
    del given["log"]
    found = WAYS[way](bench, document(radius=9), given)
    scene = [f"/inputs/scene: {nowhere.as_uri()} does not exist; correct -i scene=…"]
    inputs = [
        *WRONG["unknown"][1],
        "/inputs/log: requires a value for 'log' of stage 'a' and 'log' of stage 'b': -i log=…",
        *WRONG["a pattern"][1],
        *WRONG["elements of an array"][1],
    ]
    assert found == [*([] if way == "dag file" else scene), *inputs, *LITERAL]
    assert bench.calls == []


def require_calls(bench: Bench, way: str, values: str) -> None:
    """Require that a run has called both processes once, with these values, and nobody else has."""
    if way == "plan":  # it measures what the first phase costs, several times
        assert set(bench.calls) == {"0.75", values}
    else:
        runs = way in ("run", "run with processes", "local")
        assert sorted(bench.calls) == (["0.75", values] if runs else [])


@pytest.mark.parametrize("way", [way for way in WAYS if way not in SERVERS])
def test_right_values_are_accepted(bench: Bench, way: str) -> None:
    """The control: no error; what calls the processes gives them the values."""
    assert WAYS[way](bench, document(), bench.right) == []
    require_calls(bench, way, "0.75 2 5 [0.0, 1.5] {'a': 1.0} 4")


@pytest.mark.parametrize("way", [way for way in WAYS if way not in SERVERS])
def test_an_absent_input_has_the_default_of_its_port(bench: Bench, way: str) -> None:
    """Null, too. An input whose ports have no default (control) is missing."""
    optional = ("weights", "options", "repeat", "label")
    given = {name: value for name, value in bench.right.items() if name not in optional}
    assert WAYS[way](bench, document(), given) == []
    require_calls(bench, way, "0.75 2 5 None None 1")
    del given["radius"]
    assert WAYS[way](bench, document(), given) == MISSING


def test_a_literal_of_a_flow_is_checked(bench: Bench) -> None:
    """NaN, too: JSON has no such number, and a plan would lose it. The right one (control) runs."""
    right = {name: bench.right[name] for name in ("log", "threshold", "radius", "mode")}

    def made(**changes: JsonValue) -> Callable[[], object]:
        given: dict[str, JsonValue] = {**right, **changes}
        chain = flow(str(bench.right["scene"])).then(f"{LIMITED}:limited", **given)  # type: ignore[arg-type]  # none is called `output`
        return lambda: chain.write("image.tif").run(bench.out)

    where, port = "/stages/0/inputs/", "of stage 'limited': correct the literal"
    assert refused(made(threshold=float("nan"), radius=True)) == [
        f"{where}threshold: must be a finite number, not nan, for 'threshold' {port}",
        f"{where}radius: must be integer, not True, for 'radius' {port}",
    ]
    assert bench.calls == []
    assert refused(made()) == []
    assert len(bench.calls) == 1
    assert (bench.out / "image.tif").exists()


def test_a_rendered_dag_and_workflow_show_the_limits(bench: Bench) -> None:
    """Of all ports that an input feeds, so that a form refuses what the plan would refuse."""
    from airflow.sdk.exceptions import ParamValidationError

    path = saved(bench.folder / "p.json", document())
    found = resolve_services(Pipeline.parse(document()), base=ROOT)
    write_catalog(found.found.values(), bench.folder / "catalog")
    request = RenderRequest(
        Pipeline.parse(document()), path, catalog=bench.folder / "catalog",
        out=bench.folder / "dag.py",
    )  # fmt: skip

    (bench.folder / "dag.py").write_text(load_renderer("airflow").render(request))
    params = runpy.run_path(str(bench.folder / "dag.py"))["values"]().params
    definition = json.loads(load_renderer("conductor").render(request))
    properties = definition["inputSchema"]["data"]["properties"]

    expected: dict[str, Document] = {
        "threshold": {"type": "number", "minimum": 0.5, "maximum": 1},
        "radius": {"type": "integer", "enum": [1, 2, 3, 4]},
        "mode": {"type": "string", "pattern": "^[0-9]+$"},
        "repeat": {"type": "integer", "minimum": 1},
    }
    assert params.get_param("repeat").resolve() == 1
    assert params.get_param("options").resolve() is None
    with pytest.raises(ParamValidationError):  # its template would make the text "None" of null
        params.get_param("label").resolve()
    for name, schema in expected.items():
        assert params.get_param(name).schema == properties[name] == schema
        params.get_param(name).resolve(bench.right[name])
    for name, wrong in (("threshold", 0.25), ("threshold", 1.5), ("radius", 9), ("mode", "five")):
        with pytest.raises(ParamValidationError):
            params.get_param(name).resolve(wrong)
        assert list(schema_faults(properties[name], wrong))
    assert params.get_param("options").resolve({"a": 1}) == {"a": 1}
    required = definition["inputSchema"]["data"]["required"]
    assert required == ["scene", "log", "threshold", "radius", "mode", "folder"]


def test_a_dag_file_does_not_check_what_only_a_task_knows(bench: Bench) -> None:
    """A template, and the XCom of another task; the value beside them is checked."""
    xcom = PestoPlanOperator(task_id="other", pipeline={}, inputs={}, folder="/out").href
    given: Document = {
        **bench.right, "threshold": "{{ params.threshold }}", "radius": cast("JsonValue", xcom),
    }  # fmt: skip
    assert dag_file(bench, document(), given) == []
    (expected,) = WRONG["a pattern"][1]
    assert dag_file(bench, document(), {**given, "mode": "five"}) == [expected]


def test_a_single_call_reads_a_text_by_the_type_of_its_port(bench: Bench) -> None:
    """`mode` is a string, also where it looks like a number; a number is not."""
    given = texts({name: bench.right[name] for name in ("log", "threshold", "radius", "mode")})
    call_once(
        f"{LIMITED}:limited", {**given, "image": str(bench.right["scene"])},
        keep={"image": bench.folder / "image.tif"},
    )  # fmt: skip
    assert bench.calls == ["0.75 2 5 None None 1"]

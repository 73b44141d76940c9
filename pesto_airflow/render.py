"""Render a pipeline as a DAG file, formatted as ruff would, ready to commit."""

from __future__ import annotations

import json
import os
import re
from keyword import iskeyword
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, TypeAlias

from pesto_airflow.pipelines import KnownPipeline, know_pipeline
from pesto_runtime.engines import refuse_workflow_settings
from pesto_runtime.errors import InvalidInput
from pesto_runtime.pipeline import fed_ports, input_defaults, input_schema
from pesto_runtime.run.services import known_targets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import JsonValue

    from pesto_runtime.contract import Pipeline
    from pesto_runtime.engines import RenderRequest
    from pesto_runtime.places import AnyPath

_Expression: TypeAlias = "str | tuple[str, Mapping[str, str], str]"
"""Text of an expression; or its opening, its parts by the prefix of each, and its closing."""

_DAGS, _MAX_TASKS, _COLUMNS = Path("dags"), 64, 100
_LIMITS = (
    "type", "enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf",
    "minLength", "maxLength", "pattern", "minItems", "maxItems",
)  # fmt: skip
_DAG = Template('''\
"""Run the pipeline `$name`: each chunk of the scene is a mapped task."""

from pathlib import Path

from airflow.sdk import Param, dag

from pesto_airflow import pesto_pipeline

HERE = Path(__file__).parent


@dag(
    schedule=None,
    max_active_runs=1,
    tags=["pesto"],
    params={
$params
    },
)
def $function() -> None:
    """Plan, map the chunks of each phase, and publish the outputs into the folder."""
    pesto_pipeline(
$arguments
    )


$function()
''')


class AirflowRenderer:
    """Renders DAG files."""

    def render(self, request: RenderRequest) -> str:
        """Return the text of a DAG file.

        Its paths are relative to its own folder: that of the request's `out`, or `dags/` here.

        Raises:
            InvalidInput: a process has no saved description, or a file is in a bucket.
            InvalidPipeline: the pipeline is wrong; with every error.
        """
        refuse_workflow_settings(request, "airflow")
        if request.catalog is None or request.services:
            raise InvalidInput(
                "a DAG file reads only saved descriptions: save them by `pesto discover URL… "
                "--save DIR`, and give --services DIR instead of -s"
            )
        path, catalog = _here(request.path), _here(request.catalog)
        known = know_pipeline(path, catalog, connected=None)
        pipeline = known.pipeline
        function = _identifier(pipeline.name)
        return _DAG.substitute(
            name=pipeline.name,
            function=function,
            params="\n".join(_lines(_params(known), indent=8)),
            arguments="\n".join(_lines(_arguments(request, path, catalog, pipeline), indent=8)),
        )


def _here(place: AnyPath) -> Path:
    """Return a path; Airflow reads it whenever it parses the DAG file, which uses no network."""
    if isinstance(place, Path):
        return place
    raise InvalidInput(
        f"{place} is not on this machine: a DAG file reads its pipeline and its catalog from files "
        "beside it; download them, and give the files"
    )


def _arguments(
    request: RenderRequest, path: Path, catalog: Path, pipeline: Pipeline
) -> dict[str, _Expression]:
    folder = (request.out.parent if request.out else _DAGS).resolve()
    inputs = {f'"{name}": ': f'"{_template(name, kind)}"' for name, kind in pipeline.inputs.items()}
    found: dict[str, _Expression] = {
        "": _relative(path, folder),
        "services=": _relative(catalog, folder),
        "inputs=": ("{", inputs, "}"),
        "folder=": f'"{_template(_folder_param(pipeline), "string")}"',
    }
    targets = known_targets(request.pipeline, base=path.parent, catalog=catalog)
    if unknown := [name for name, each in targets.items() if not each]:
        # Only descriptions: each URL is in a connection with the name of the process.
        ids = {f'"{name}": ': f'"{_identifier(name)}"' for name in unknown}
        found["conn_ids="] = ("{", ids, "}")
    if request.tile is not None:
        found["tile="] = str(request.tile)
    if request.max_tasks != _MAX_TASKS:
        found["max_tasks="] = str(request.max_tasks)
    return found


def _params(known: KnownPipeline) -> dict[str, _Expression]:
    """Return a param for each input, with the limits of the ports that it feeds, and the folder."""
    found: dict[str, _Expression] = {}
    pipeline, fed = known.pipeline, fed_ports(known.pipeline, known.descriptions)
    defaults = input_defaults(pipeline, known.descriptions)
    for name, kind in pipeline.inputs.items():
        if kind == "image":
            title = json.dumps(f"{name}: path or href of an image")
            schema = {"type=": '"string"', "minLength=": "1", "title=": title}
        elif kind == "images":
            title = json.dumps(f"{name}: paths or hrefs of images")
            schema = {"type=": '"array"', "title=": title}
        else:
            limits = input_schema(kind, fed[name]).items()
            schema = {f"{key}=": _literal(each) for key, each in limits if key in _LIMITS}
            default = defaults.get(name)
            # The template of a string would turn null into a text.
            if name in defaults and (default is not None or kind != "string"):
                nullable = {"type=": _literal([kind, "null"])} if default is None else {}
                schema = {"": _literal(default), **schema, **nullable}
        found[f'"{name}": '] = ("Param(", schema, ")")
    found[f'"{_folder_param(pipeline)}": '] = (
        "Param(",
        {"type=": '"string"', "minLength=": "1", "title=": '"folder for the outputs"'},
        ")",
    )
    return found


def _literal(value: JsonValue) -> str:
    """Return a value as Python, with the quotes that ruff uses."""
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _lines(parts: Mapping[str, _Expression], *, indent: int) -> Iterator[str]:
    """Yield a line for each part, or several if it is too long for one."""
    margin = " " * indent
    for key, value in parts.items():
        if isinstance(value, str):
            yield f"{margin}{key}{value},"
            continue
        opening, inner, closing = value
        flat = ", ".join(f"{name}{each}" for name, each in inner.items())
        line = f"{margin}{key}{opening}{flat}{closing},"
        if len(line) <= _COLUMNS:
            yield line
            continue
        yield f"{margin}{key}{opening}"
        yield from _lines(inner, indent=indent + 4)
        yield f"{margin}{closing},"


def _template(name: str, kind: str) -> str:
    """Return the template with which a task reads a param: text unchanged, other values as JSON."""
    place = f"params.{name}" if name.isidentifier() else f"params['{name}']"
    return f"{{{{ {place} }}}}" if kind in ("image", "string") else f"{{{{ {place} | tojson }}}}"


def _folder_param(pipeline: Pipeline) -> str:
    return "output_folder" if "folder" in pipeline.inputs else "folder"


def _relative(path: Path, folder: Path) -> str:
    """Return a path relative to the DAG file's folder: both are in one repository."""
    return f'HERE / "{Path(os.path.relpath(path.resolve(), folder)).as_posix()}"'


def _identifier(name: str) -> str:
    """Return a pipeline's name as the name of a function, which is the DAG's id."""
    found = re.sub(r"\W", "_", name).lower()
    return f"{found}_" if iskeyword(found) else found


renderer = AirflowRenderer()

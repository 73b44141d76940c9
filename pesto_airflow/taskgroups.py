"""Build the task group of a whole pipeline: plan, map and close each phase, publish.

It uses only saved descriptions: parsing a DAG file contacts no service and loads no process.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack, cast

from airflow.sdk import Asset, TaskGroup, XComArg

from pesto_airflow.operators.outputs import PestoPublishOperator
from pesto_airflow.operators.plan import PestoPlanOperator
from pesto_airflow.operators.run import PestoClosePhaseOperator, PestoMapOperator
from pesto_airflow.pipelines import KnownPipeline, closing_task_id, know_pipeline, map_task_id
from pesto_airflow.process_call import GPU_POOL, TaskPlacement, placement
from pesto_runtime.contract import Pipeline
from pesto_runtime.errors import InvalidInput, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from airflow.sdk.definitions.xcom_arg import PlainXComArg  # XComArg has no type of `[NAME]`
    from pydantic import JsonValue

    from pesto_airflow.operators.run import RunOperator
    from pesto_runtime.contract import ReportForm
    from pesto_runtime.run.planning import PhaseShape


class GroupSettings(TypedDict, total=False):
    """Settings of a task group, in addition to its pipeline."""

    base: str | Path | None
    """Folder to which the pipeline's own targets are relative; its file's folder by default."""
    store: str | XComArg | None
    """Base href of the run store; in the output folder by default."""
    tile: int | str | XComArg | None
    """Side of a tile, pixels; sized by memory by default."""
    max_tasks: int | str | XComArg
    """Maximum of mapped tasks per phase, never above 256; 64 by default."""
    workers: int | str | XComArg
    """Mapped tasks that run at once on one machine, which share its memory; 4 by default."""
    patience: float | str | XComArg
    """Seconds to wait for a service that restarts or does not respond; 60 by default."""
    concurrency: int | None
    """Tiles at once in a task; by default 8 if all processes are services, else 1."""
    pool: str | None
    """Pool of all mapped tasks; by default `pesto_gpu` for those whose processes require a GPU."""
    gpu_queue: str | None
    """Queue of mapped tasks whose processes require a GPU."""
    operator_args: Mapping[str, Mapping[str, Any]] | None
    """Stage -> arguments of the task that computes it: `executor_config`, `retries`, `queue`, …"""
    max_active_tasks: int | None
    """Maximum of mapped tasks of a phase at once, in one run; no limit by default."""
    assets: Mapping[str, Asset] | None
    """Output name -> Asset; by default `DAG.GROUP.OUTPUT` for each."""
    report: ReportForm
    """What `report.html` has of the products: `links` or `embed`; `none` for no report."""
    compress: str
    """Codec and level of image outputs: `deflate`, `deflate:9`, `zstd`, `zstd:12` or `none`."""
    cache: str | None
    """Path or href of a cache of blocks, which runs share; all workers must reach it."""
    as_cog: bool
    """Whether image outputs become cloud-optimised GeoTIFFs."""
    overviews: bool
    """Whether image outputs have overviews; cloud-optimised ones always have."""
    keep: bool
    """Whether the run store of a complete run is preserved."""
    fail_on_partial: bool
    """With `holes="keep"`: whether `publish` fails after it has published a PARTIAL run."""
    note_conn_id: str | None
    """Connection of Airflow's API server, by which a PARTIAL run gets a note; none without it."""
    take_over: bool
    """Whether the folder is taken from a run that still owns it."""
    replace: bool
    """Whether the finished result of another pipeline or scene is overwritten."""
    pesto_conn_id: str | None
    """Connection of the services that have none in `conn_ids`: credentials, time limits, URL."""
    conn_ids: Mapping[str, str] | None
    """Process name -> connection of its service, of type `pesto`."""
    store_conn_id: str | None
    """Connection of all buckets: of type `aws`, `google_cloud_platform` or `wasb`."""
    preflight: Literal["refuse", "warn"]
    """`refuse` a run with places that tasks on other machines cannot reach, or `warn`."""


_PLANNING = ("base", "store", "tile", "max_tasks", "workers", "patience", "take_over", "replace",
             "report", "compress", "cache", "preflight")  # fmt: skip
DEFAULTS: GroupSettings = {
    "base": None,
    "store": None,
    "tile": None,
    "max_tasks": 64,
    "workers": 4,
    "patience": 60.0,
    "concurrency": None,
    "pool": None,
    "gpu_queue": None,
    "operator_args": None,
    "max_active_tasks": None,
    "assets": None,
    "report": "links",
    "compress": "deflate",
    "cache": None,
    "as_cog": False,
    "overviews": False,
    "keep": False,
    "fail_on_partial": False,
    "note_conn_id": None,
    "take_over": False,
    "replace": False,
    "pesto_conn_id": None,
    "conn_ids": None,
    "store_conn_id": None,
    "preflight": "refuse",
}


TEMPLATED = ("store", "tile", "max_tasks", "workers", "patience")
"""Settings that may be templates, or results of other tasks."""
_OWN_ARGUMENTS = ("task_id", "plan", "phase", "chunk", "holes", "concurrency", "task_group", "dag",
                  "campaign", "number", "pesto_conn_id", "conn_ids", "store_conn_id")  # fmt: skip
_ARGUMENTS = ("pipeline", "folder", "services", "inputs", "scene", "group_id", "holes")


def pesto_pipeline(
    pipeline: str | Path | Mapping[str, JsonValue] | Pipeline,
    *,
    folder: str | Path | XComArg,
    services: str | Path,
    inputs: Mapping[str, JsonValue] | None = None,
    scene: str | None = None,
    group_id: str | None = None,
    holes: Literal["fail", "keep"] = "fail",
    **settings: Unpack[GroupSettings],
) -> PestoTaskGroup:
    """Create the tasks of a pipeline.

    `group.output` is the result of its last task, `publish`; `group.output["cover"]` is the value
    of an output, or the href of its file.

    Args:
        pipeline: Its file, or its JSON.
        folder: Folder for the outputs; templated. One run owns it at a time.
        services: Folder of saved descriptions, one of each process; each live service is compared
            with its description before the first tile. The URL of a connection replaces that of a
            description, which then needs none.
        inputs: Input name -> path or href of an image, or a value; templated.
        scene: The same for the one input named `scene`.
        group_id: Id of the task group; the pipeline's name by default.
        holes: `fail`: the task of a chunk with a finally failed tile fails, and clearing it
            computes only that tile again. `keep`: the run ends PARTIAL.
        settings: As `GroupSettings`.

    Raises:
        InvalidInput: a process has no saved description, or a setting is wrong.
        InvalidPipeline: the pipeline or its inputs are wrong; with every error.
    """
    chosen = with_defaults(settings, arguments=_ARGUMENTS)
    values = {**(inputs or {}), **({} if scene is None else {"scene": scene})}
    known = known_group(pipeline, services, chosen, inputs=values)
    connections = connection_arguments(chosen)
    name, tooltip = group_id or known.pipeline.name, known.pipeline.description
    group = PestoTaskGroup(name, tooltip=tooltip)
    with group:
        planned = PestoPlanOperator(
            task_id="plan",
            pipeline=pipeline.to_json() if isinstance(pipeline, Pipeline) else pipeline,
            inputs=values,
            folder=folder,
            services=services,
            **planning_arguments(chosen),
        )
        last: RunOperator = planned
        for phase in known.phases:
            last = _add_phase(phase, planned, last, known=known, holes=holes, settings=chosen)
        published = PestoPublishOperator(
            task_id="publish",
            plan=planned.href,
            folder=folder,
            assets=_assets(group, known.pipeline) if chosen["assets"] is None else chosen["assets"],
            as_cog=chosen["as_cog"],
            overviews=chosen["overviews"],
            keep=chosen["keep"],
            fail_on_partial=chosen["fail_on_partial"],
            note_conn_id=chosen["note_conn_id"],
            **connections,
        )
        last >> published
    group.publish = published
    return group


class PestoTaskGroup(TaskGroup):
    """The tasks of a pipeline.

    Attributes:
        publish: Its last task.
    """

    publish: PestoPublishOperator

    @property
    def output(self) -> PlainXComArg:
        """The result of the last task; `output[NAME]` is a value, or the href of a file."""
        return cast("PlainXComArg", self.publish.output)


def with_defaults(
    settings: GroupSettings, *, arguments: Iterable[str], function: str = "pesto_pipeline"
) -> GroupSettings:
    """Return all settings, with the default of each that is absent.

    Args:
        settings: The settings of the call.
        arguments: Names of other arguments, to suggest for a misspelt setting.
        function: Name of the function, for errors.

    Raises:
        InvalidInput: there is no such setting; with a suggestion.
    """
    unknown = [name for name in settings if name not in DEFAULTS]
    if unknown:
        messages = (_unknown_setting(name, {*DEFAULTS, *arguments}) for name in unknown)
        raise InvalidInput(f"{function}: {', '.join(messages)}")
    for name, value in settings.items():
        if name not in TEMPLATED and isinstance(value, str | XComArg) and "{{" in str(value):
            raise InvalidInput(
                f"{function}: {name} decides which tasks there are, or what they are, so it "
                f"cannot be a template ({shortened(str(value))}); give the value itself"
            )
    return {**DEFAULTS, **settings}


def _unknown_setting(name: str, known: set[str]) -> str:
    close = get_close_matches(name, sorted(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(sorted(DEFAULTS))}"
    return f"it has no setting {name!r}; {hint}"


def _add_phase(
    phase: PhaseShape,
    planned: PestoPlanOperator,
    before: RunOperator,
    *,
    known: KnownPipeline,
    holes: Literal["fail", "keep"],
    settings: GroupSettings,
) -> RunOperator:
    """Add the tasks that map a phase's chunks, if it has any, and close it; return the last one.

    The task before returns the chunk indices: Airflow maps only over return values.
    """
    href = planned.href
    connections = connection_arguments(settings)
    chosen = arguments_of_phase(phase, known, settings)
    closing = PestoClosePhaseOperator(
        task_id=closing_task_id(phase),
        plan=href,
        phase=phase.number,
        **connections,
        **({} if phase.fans_out else chosen),
    )
    if not phase.fans_out:
        before >> closing
        return closing
    mapped = PestoMapOperator.partial(
        task_id=map_task_id(phase.stages, phase.reduces),
        plan=href,
        phase=phase.number,
        holes=holes,
        concurrency=settings["concurrency"],
        **connections,
        **chosen,
    ).expand(chunk=before.output)
    mapped >> closing
    return closing


def known_group(
    pipeline: str | Path | Mapping[str, JsonValue] | Pipeline,
    services: str | Path,
    settings: GroupSettings,
    *,
    inputs: Mapping[str, JsonValue] | None,
) -> KnownPipeline:
    """Check the pipeline of a task group, and the settings that name its stages and processes.

    Args:
        pipeline: Its file, or its JSON.
        services: Folder of saved descriptions.
        settings: All settings.
        inputs: Input name -> value, or a template; None to check the pipeline alone.

    Raises:
        InvalidInput: a process has no saved description, or a setting names what there is not.
        InvalidPipeline: the pipeline or its inputs are wrong; with every error.
    """
    connected = settings["conn_ids"] or () if settings["pesto_conn_id"] is None else None
    known = know_pipeline(pipeline, services, settings["base"], inputs=inputs, connected=connected)
    _require_stages(settings["operator_args"], known.pipeline)
    _require_processes(settings["conn_ids"], known.pipeline)
    return known


def arguments_of_phase(
    phase: PhaseShape, known: KnownPipeline, settings: GroupSettings
) -> dict[str, Any]:
    """Return the arguments of the task that computes a phase: pool, queue, those of its stages.

    Raises:
        InvalidInput: two stages set different ones, or one sets what the task group decides.
    """
    return {
        "max_active_tis_per_dagrun": settings["max_active_tasks"],
        **_placement_of(phase, known, settings),
        **_own_arguments(phase, settings["operator_args"] or {}),
    }


def _placement_of(
    phase: PhaseShape, known: KnownPipeline, settings: GroupSettings
) -> TaskPlacement:
    """Return pool and queue of a phase's mapped tasks: a GPU if any of its processes needs one."""
    pool, gpu_queue = settings["pool"], settings["gpu_queue"]
    chosen: TaskPlacement = {"pool": pool} if pool else {}
    for stage in known.pipeline.stages:
        if stage.id in (*phase.stages, *phase.reduces):
            description = known.descriptions[stage.process]
            chosen |= placement(description, gpu_pool=pool or GPU_POOL, gpu_queue=gpu_queue)
    return chosen


def _own_arguments(phase: PhaseShape, arguments: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the arguments that stages of a phase set for its one task.

    Raises:
        InvalidInput: two stages set different ones, or one sets what the task group decides.
    """
    found: dict[str, tuple[str, object]] = {}
    for stage in (*phase.stages, *phase.reduces):
        for name, value in arguments.get(stage, {}).items():
            if name in _OWN_ARGUMENTS:
                raise InvalidInput(
                    f"operator_args[{stage!r}] must not have {name!r}: pesto_pipeline decides it"
                )
            other, earlier = found.setdefault(name, (stage, value))
            if earlier != value:
                raise InvalidInput(
                    f"operator_args: {other!r} and {stage!r} run in one task, and have different "
                    f"values of {name!r}: give both the same"
                )
    return {name: value for name, (_, value) in found.items()}


def _require_stages(arguments: Mapping[str, object] | None, pipeline: Pipeline) -> None:
    stages = [stage.id for stage in pipeline.stages]
    for name in set(arguments or {}) - set(stages):
        raise InvalidInput(
            f"operator_args: the pipeline has no stage {name!r}; there are {', '.join(stages)}"
        )


def planning_arguments(settings: GroupSettings) -> dict[str, Any]:
    """Return the settings of the task that plans, with its connections."""
    found: dict[str, Any] = {**settings}
    return {name: found[name] for name in _PLANNING} | connection_arguments(settings)


def connection_arguments(settings: GroupSettings) -> dict[str, Any]:
    """Return those that are given: others may be in the `default_args` of the DAG."""
    found = {
        "pesto_conn_id": settings["pesto_conn_id"],
        "conn_ids": settings["conn_ids"],
        "store_conn_id": settings["store_conn_id"],
    }
    return {name: each for name, each in found.items() if each is not None}


def _require_processes(conn_ids: Mapping[str, str] | None, pipeline: Pipeline) -> None:
    processes = sorted({stage.process for stage in pipeline.stages})
    for name in sorted(set(conn_ids or {}) - {*processes}):
        raise InvalidInput(
            f"conn_ids: the pipeline has no process {name!r}; there are {', '.join(processes)}"
        )


def _assets(group: TaskGroup, pipeline: Pipeline) -> dict[str, Asset]:
    """Return an Asset per output, by name: the href is known only at run time, as its extra."""
    return {name: Asset(scoped(group, name)) for name in pipeline.outputs}


def scoped(group: TaskGroup, name: str) -> str:
    """Return the name of an Asset of a task group: two DAGs of one pipeline have their own."""
    dag = [group.dag.dag_id] if group.dag else []
    return ".".join((*dag, str(group.group_id), name))

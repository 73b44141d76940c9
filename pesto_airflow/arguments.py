"""Type the arguments that operators pass on to Airflow's own, for editors and type checkers.

A test compares the names with Airflow's signatures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Required, TypeAlias, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, MutableMapping, Sequence
    from datetime import datetime, timedelta

    from airflow.sdk import DAG, Context, TaskGroup
    from airflow.sdk.definitions.retry_policy import RetryPolicy

    Callback: TypeAlias = Callable[[Context], None]
    Callbacks: TypeAlias = Callback | list[Callback] | None
    Duration: TypeAlias = timedelta | float


class CommonArguments(TypedDict, total=False):
    """Arguments of every operator, without those that some operators have their own defaults of."""

    task_id: Required[str]
    task_display_name: str | None
    doc: str | None
    doc_md: str | None
    doc_json: str | None
    doc_yaml: str | None
    doc_rst: str | None
    owner: str
    email: str | Sequence[str] | None
    email_on_retry: bool
    email_on_failure: bool
    dag: DAG | None
    task_group: TaskGroup | None
    default_args: dict[str, Any] | None
    params: MutableMapping[str, Any] | None
    start_date: datetime | None
    end_date: datetime | None
    depends_on_past: bool
    ignore_first_depends_on_past: bool
    wait_for_past_depends_before_skipping: bool
    wait_for_downstream: bool
    trigger_rule: str
    retry_exponential_backoff: float
    max_retry_delay: Duration | None
    execution_timeout: timedelta | None
    priority_weight: int
    weight_rule: str
    queue: str
    pool: str | None
    pool_slots: int
    executor: str | None
    executor_config: dict[str, Any] | None
    resources: dict[str, Any] | None
    run_as_user: str | None
    max_active_tis_per_dag: int | None
    max_active_tis_per_dagrun: int | None
    sla: timedelta | None
    on_execute_callback: Callbacks
    on_failure_callback: Callbacks
    on_success_callback: Callbacks
    on_retry_callback: Callbacks
    on_skipped_callback: Callbacks
    pre_execute: Callback | None
    post_execute: Callable[[Context, Any], None] | None
    do_xcom_push: bool
    multiple_outputs: bool
    render_template_as_native_obj: bool | None
    inlets: Sequence[Any] | None
    outlets: Sequence[Any] | None
    logger_name: str | None
    allow_nested_operators: bool


class MappableArguments(CommonArguments, total=False):
    """The same with the label of mapped tasks."""

    map_index_template: str | None


class TaskArguments(MappableArguments, total=False):
    """Arguments of every operator."""

    retries: int | None
    retry_policy: RetryPolicy | None
    retry_delay: Duration


class RunArguments(MappableArguments, total=False):
    """Arguments of the operators of a run."""

    retries: int
    retry_policy: RetryPolicy | None
    retry_delay: timedelta
    pesto_conn_id: str | None
    conn_ids: Mapping[str, str] | None
    store_conn_id: str | None


class SensorArguments(TaskArguments, total=False):
    """Arguments of every sensor, without `poke_interval`."""

    timeout: Duration | None
    soft_fail: bool
    mode: str
    exponential_backoff: bool
    max_wait: Duration | None
    silent_fail: bool
    never_fail: bool

"""One call of a process: at once, or as a job that a worker or the triggerer waits for."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Literal, NoReturn, TypeAlias, cast

from airflow.sdk import Asset, AssetAlias, BaseOperator, ResumableJobMixin, conf

from pesto_airflow.catalog import read_saved
from pesto_airflow.errors import PestoRetryPolicy, PestoTryAgain, native_errors
from pesto_airflow.hooks import PestoServiceLink
from pesto_airflow.process_call import (
    ServiceCall,
    call_key,
    label_of,
    looks_at,
    placement,
    prepared,
    require_jobs,
    require_known,
    require_references,
)
from pesto_airflow.triggers import Ended, PestoJobTrigger
from pesto_runtime.errors import NotFound, PestoError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from airflow.sdk import Context
    from pydantic import JsonValue

    from pesto_runtime.client.client import Client

Mode: TypeAlias = Literal["sync", "durable", "deferrable"]

LEASE_S = 120.0
"""Longer than a triggerer takes to be replaced: after it, a job that nobody asks for ends."""
MOST_SUBMISSIONS = 3
"""Times that one try of a task submits a call whose job the service has lost or let go of."""
_DEFAULT_POOL = "default_pool"


class PestoProcessOperator(ResumableJobMixin, BaseOperator):
    """Call a process of a service; what it answers, JSON and hrefs, is the task's result.

    - `sync`: one call over one connection. The only way for a PESTO service without jobs.
    - `durable`: a job. The worker waits; killed, its next try finds the same job.
    - `deferrable`: a job. The triggerer waits, and no worker is held.

    Every job has a key that is the same for all tries of a task, and a lease. Clearing the task is
    a new key: what was computed is computed anew. Marking it failed cancels the job.
    """

    template_fields: Sequence[str] = ("inputs", "out", "service", "pesto_conn_id")
    template_fields_renderers = {"inputs": "json", "out": "json"}  # noqa: RUF012  # as Airflow has it
    operator_extra_links = (PestoServiceLink(),)
    external_id_key = "pesto_job"
    ui_color = "#dcebd5"

    def __init__(
        self,
        *,
        inputs: Mapping[str, object],
        service: str | None = None,
        pesto_conn_id: str | None = None,
        saved: str | Path | None = None,
        out: Mapping[str, str] | None = None,
        mode: Mode | None = None,
        lease_s: float = LEASE_S,
        **arguments: object,
    ) -> None:
        """Describe a call; nothing is asked while a DAG file is read.

        Args:
            inputs: Input name -> JSON value; an image as an href, or `{"href", "window", "bands"}`.
            service: URL of the service; with a connection, credentials and times are its.
            pesto_conn_id: Connection of type `pesto`; `pesto_default` where no service is given.
            saved: File that `pesto discover` wrote. The service must still be that when it is
                called; its GPU chooses the pool, its URL stands in for `service`.
            out: Output name -> href for the service to write it to. Images must have one. Those
                that are no templates become Asset outlets; all are added to every `AssetAlias`
                among `outlets`.
            mode: How to wait; `durable`, or `deferrable` where `[operators] default_deferrable`.
            lease_s: Seconds without anybody asking after which the service ends a job.
            arguments: Of every operator.

        Raises:
            InvalidInput: `saved` is no saved description; or, by what it says, there is no such
                input or output, or an image output has no href in `out`.
        """
        super().__init__(**arguments)  # type: ignore[arg-type]  # Airflow judges them
        self.inputs = inputs
        self.service = service
        self.pesto_conn_id = pesto_conn_id
        self.saved = None if saved is None else str(saved)
        self.out = out or {}
        self.mode: Mode = mode or _default_mode()
        self.lease_s = lease_s
        self._job_id: str | None = None
        self._left: dict[str, dict[str, object]] = {}
        self._is_killed = False
        self._made: ServiceCall | None = None
        self._place()

    @property
    def label(self) -> str:
        """A short name for a mapped task: `map_index_template="{{ task.label }}"`."""
        return label_of(self.inputs)

    def service_url(self) -> str:
        """Address of the service, up to and with `/api/v1`."""
        return self._calling.url

    def execute(self, context: Context) -> dict[str, JsonValue]:
        """Call, and answer the outputs; or defer.

        Raises:
            PestoTaskFailed: the call, the service or its contract is at fault.
            PestoTryAgain: the service is busy, not there, or says that asking again may help.
        """
        with native_errors():
            if self.mode == "sync":
                return self._told(self._answered(context), context)
            if self.mode == "deferrable":
                self._wait_in_triggerer(context)
            return self._told(self.execute_resumable(context), context)

    def execute_complete(
        self, context: Context, event: dict[str, JsonValue], submissions: int = 1
    ) -> dict[str, JsonValue]:
        """Answer the outputs of the job that the triggerer waited for; raises as `execute`."""
        with native_errors():
            ended = Ended.parse(event)
            if ended.fate == "lost":
                self._require_patience(submissions, ended)
                self._wait_in_triggerer(context, submissions + 1)
            ended.require_success()
            return self._told(self._fetched(str(event["job_id"])), context)

    def on_kill(self) -> None:
        """Cancel the job, and let nothing submit another."""
        self._is_killed = True
        if self._job_id is not None:
            self._cancel(self._job_id)

    def inputs_for(self, context: Context) -> Mapping[str, object]:  # noqa: ARG002  # a decorated function reads it
        """The inputs of the call."""
        return self.inputs

    def submit_job(self, context: Context) -> JsonValue:
        """Submit the call under its key; the same job for every try of the task."""
        inputs = self.inputs_for(context)
        key = call_key(context["ti"], inputs, self.out)
        with self._client() as client:
            require_jobs(client.described, self.mode)
            ready = prepared(client.described, inputs)
            job = client.submit(ready, out=self.out, key=key, lease_s=self.lease_s)
        self._job_id = job.id
        self.log.info("job %s at %s, key %s", job.id, client.url, key)
        if self._is_killed:
            self._cancel(job.id)
        return {"id": job.id, "key": key}

    def get_job_status(self, external_id: JsonValue, context: Context) -> str:
        """State of a job of an earlier try; `lost` where it is not this call's any more."""
        job_id, key = _read(external_id)
        if key != call_key(context["ti"], self.inputs_for(context), self.out):
            return "lost"  # the task was cleared, or its inputs are others now
        try:
            with self._client() as client:
                return client.status(job_id).state
        except NotFound:
            return "lost"

    def is_job_active(self, status: str) -> bool:
        """Whether there is something to wait for."""
        return status in ("accepted", "running")

    def is_job_succeeded(self, status: str) -> bool:
        """Whether there is something to fetch."""
        return status == "successful"

    def poll_until_complete(self, external_id: JsonValue, context: Context) -> dict[str, object]:  # type: ignore[override]  # Airflow returns it on reconnecting
        """Wait for a job; submit it again where the service has lost it. Answers the outputs."""
        self._job_id, _ = _read(external_id)
        for submissions in range(1, MOST_SUBMISSIONS + 1):
            ended = self._watched(self._job_id)
            if ended.fate != "lost":
                ended.require_success()
                return self._fetched(self._job_id)
            self._require_patience(submissions, ended)
            external_id = self.submit_job(context)
            if store := context.get("task_state_store"):
                store.set(self.external_id_key, external_id)
            self._job_id, _ = _read(external_id)
        raise AssertionError("one submission too many")  # pragma: no cover

    def get_job_result(self, external_id: JsonValue, context: Context) -> dict[str, object]:  # noqa: ARG002  # Airflow's
        """What the last job left: `external_id`, unless that one was lost and submitted again."""
        return self._fetched(self._job_id or _read(external_id)[0])

    @property
    def _calling(self) -> ServiceCall:
        if self._made is None:  # after the templates are rendered
            self._made = ServiceCall(
                service=self.service, pesto_conn_id=self.pesto_conn_id, saved=self.saved
            )
        return self._made

    def _client(self) -> Client:
        return self._calling.client(partial(require_references, out=self.out))

    def _answered(self, context: Context) -> dict[str, object]:
        with self._client() as client:
            ready = prepared(client.described, self.inputs_for(context))
            return client.process(ready, out=self.out)

    def _fetched(self, job_id: str) -> dict[str, object]:
        """What a job left, fetched once: Airflow's mixin asks after every wait, and again."""
        if job_id not in self._left:
            with self._client() as client:
                self._left[job_id] = client.result(job_id)
        return self._left[job_id]

    def _watched(self, job_id: str) -> Ended:
        with self._client() as client:
            for verdict in looks_at(client, job_id, longest_look_s=self._poll_s):
                if self._is_killed:
                    raise PestoTryAgain(f"killed while it waited for job {job_id}")
                if isinstance(verdict, Ended):
                    return verdict
                time.sleep(verdict)
        raise AssertionError("a watch ends with an end")  # pragma: no cover

    def _wait_in_triggerer(self, context: Context, submissions: int = 1) -> NoReturn:
        job_id, _ = _read(self.submit_job(context))
        hook = self._calling.hook
        self.defer(
            trigger=PestoJobTrigger(
                job_id, service=hook.service, pesto_conn_id=hook.pesto_conn_id, poll_s=self._poll_s
            ),
            method_name="execute_complete",
            kwargs={"submissions": submissions},
            timeout=self.execution_timeout,
        )

    @property
    def _poll_s(self) -> float:
        """Longest time between two looks: four of them fit a lease."""
        return min(5.0, self.lease_s / 4)

    def _require_patience(self, submissions: int, ended: Ended) -> None:
        if submissions >= MOST_SUBMISSIONS:
            why = (ended.problem or {}).get("detail")
            raise PestoTryAgain(f"submitted {submissions} times, and lost each time: {why}")
        self.log.warning("the service has let go of the job, it is submitted again: %s", ended)

    def _cancel(self, job_id: str) -> None:
        try:
            with self._calling.client() as client:
                client.cancel(job_id)
        except PestoError as error:
            self.log.warning("job %s goes on until its lease ends: %s", job_id, error)

    def _told(self, outputs: dict[str, object], context: Context) -> dict[str, JsonValue]:
        for outlet in self.outlets:
            if isinstance(outlet, AssetAlias):
                for href in self.out.values():
                    context["outlet_events"][outlet].add(Asset(href))
        return cast("dict[str, JsonValue]", outputs)

    def _place(self) -> None:
        """Choose what the arguments leave open: retry policy, pool, outlets."""
        if self.retry_policy is None:
            self.retry_policy = PestoRetryPolicy()
        if self.saved is not None:
            saved = read_saved(self.saved)
            require_known(saved, self.inputs, self.out)
            if self.pool == _DEFAULT_POOL:
                self.pool = placement(saved.description).get("pool", self.pool)
        hrefs = self.out.values() if isinstance(self.out, dict) else ()  # else it is an XComArg
        known = [href for href in hrefs if isinstance(href, str) and "{{" not in href]
        self.outlets = [*self.outlets, *(Asset(href) for href in known)]


def _default_mode() -> Mode:
    is_deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
    return "deferrable" if is_deferrable else "durable"


def _read(external_id: JsonValue) -> tuple[str, str]:
    """Id and key of a job, as the task state store has them."""
    if not isinstance(external_id, dict):
        return str(external_id), ""
    return str(external_id["id"]), str(external_id["key"])

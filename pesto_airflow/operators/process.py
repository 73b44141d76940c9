"""Call a process of a service, on one connection or as a job.

A worker or the triggerer waits for the job. `process_call` prepares inputs, key and client.
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import TYPE_CHECKING, Literal, NoReturn, TypeAlias, Unpack, cast

from airflow.sdk import Asset, AssetAlias, BaseOperator, ResumableJobMixin, conf

from pesto_airflow.catalog import read_saved
from pesto_airflow.errors import PestoRetryPolicy, PestoTryAgain, native_errors
from pesto_airflow.hooks import PestoServiceLink
from pesto_airflow.process_call import (
    ServiceCall,
    call_key,
    client_inputs,
    label_of,
    placement,
    poll_job,
    require_jobs,
    require_known_names,
    require_references,
)
from pesto_airflow.triggers import JobEnd, PestoJobTrigger
from pesto_runtime.errors import InvalidInput, NotFound, PestoError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from airflow.sdk import Context
    from pydantic import JsonValue

    from pesto_airflow.arguments import TaskArguments
    from pesto_runtime.client.client import Client

Mode: TypeAlias = Literal["sync", "durable", "deferrable"]

LEASE_S = 120.0
"""Longer than the replacement of a triggerer takes; without a request, the job then ends."""
MOST_SUBMISSIONS = 3
"""Submissions per try of a task, if the service loses or deletes the job."""
_DEFAULT_POOL = "default_pool"
_POLL_S = 5.0


class PestoProcessOperator(ResumableJobMixin, BaseOperator):
    """Call a process of a service; its outputs, JSON and hrefs, are the result of the task.

    - `sync`: one call on one connection. The only mode for a PESTO service without jobs.
    - `durable`: a job. The worker waits; if it is killed, its next try finds the same job.
    - `deferrable`: a job. The triggerer waits, and no worker slot is occupied.

    Every job has a lease, and a key that is the same for all tries of a task. Clearing the task
    creates a new key, so the call runs again. Marking the task failed cancels the job.
    """

    template_fields: Sequence[str] = ("inputs", "out", "service", "pesto_conn_id")
    template_fields_renderers = {"inputs": "json", "out": "json"}  # noqa: RUF012  # as Airflow defines it
    operator_extra_links = (PestoServiceLink(),)
    external_id_key = "pesto_job"
    ui_color = "#dcebd5"

    def __init__(  # noqa: PLR0913  # what a call is told
        self,
        *,
        inputs: Mapping[str, object],
        service: str | None = None,
        pesto_conn_id: str | None = None,
        saved: str | Path | None = None,
        out: Mapping[str, str] | None = None,
        mode: Mode | None = None,
        deferrable: bool | None = None,
        wait_for_completion: bool = True,
        poll_interval: float | None = None,
        cancel_on_kill: bool = True,
        lease_s: float | None = None,
        **arguments: Unpack[TaskArguments],
    ) -> None:
        """Declare a call; nothing is sent while Airflow parses the DAG file.

        Args:
            inputs: Input name -> JSON value; an image as an href, or `{"href", "window", "bands"}`.
            service: URL of the service; with a connection, all other settings are those of the
                connection.
            pesto_conn_id: Connection of type `pesto`; `pesto_default` if neither `service` nor
                `saved` is set.
            saved: File that `pesto discover` wrote. When the task runs, the service must still have
                this description. Its GPU selects the pool; its URL replaces a missing `service`.
            out: Output name -> href to which the service writes it; required for images. Hrefs
                that are not templates become Asset outlets; all hrefs are added to every
                `AssetAlias` among `outlets`.
            mode: How to wait; `durable` by default, `deferrable` if
                `[operators] default_deferrable` is set.
            deferrable: True as `mode="deferrable"`, False as `mode="durable"`, which it excludes.
            wait_for_completion: False to return `{"job_id", "service"}` once the job is submitted;
                `PestoJobSensor` waits for it.
            poll_interval: Longest time between two requests for a job's state, seconds; at most,
                and by default if that is below 5 s, a quarter of the lease.
            cancel_on_kill: Whether marking the task failed cancels the job.
            lease_s: Seconds without a request after which the service ends the job; 120 by default,
                or no lease without `wait_for_completion`.
            arguments: Arguments of every operator.

        Raises:
            InvalidInput: `saved` is not a saved description; or it has no such input or output, or
                an image output without an href in `out`; or arguments about waiting exclude each
                other.
        """
        super().__init__(**arguments)
        self.inputs = inputs
        self.service = service
        self.pesto_conn_id = pesto_conn_id
        self.saved = None if saved is None else str(saved)
        self.out = out or {}
        self.mode = _mode(mode, deferrable, waits=wait_for_completion)
        self.wait_for_completion = wait_for_completion
        self.cancel_on_kill = cancel_on_kill
        self.lease_s = lease_s or (LEASE_S if wait_for_completion else None)
        self.poll_interval = _poll_interval(poll_interval, self.lease_s)
        self._job_id: str | None = None
        self._results: dict[str, dict[str, object]] = {}
        self._is_killed = False
        self._opened: ServiceCall | None = None
        self._set_defaults()

    @property
    def label(self) -> str:
        """A short label of a mapped task: `map_index_template="{{ task.label }}"`."""
        return label_of(self.inputs)

    def service_url(self) -> str:
        """URL of the service, up to and including `/api/v1`."""
        return self._service_call.url

    def execute(self, context: Context) -> dict[str, JsonValue]:
        """Call and return the outputs, or defer.

        Raises:
            PestoTaskFailed: the call, the service or its contract is wrong.
            PestoTryAgain: the service is busy or unreachable, or reports that a retry may help.
        """
        with native_errors():
            if not self.wait_for_completion:
                job_id, _ = _id_and_key(self.submit_job(context))
                return {"job_id": job_id, "service": self.service_url()}
            if self.mode == "sync":
                return self._publish_assets(self._call(context), context)
            if self.mode == "deferrable":
                self._wait_in_triggerer(context)
            return self._publish_assets(self.execute_resumable(context), context)

    def execute_complete(
        self, context: Context, event: dict[str, JsonValue], submissions: int = 1
    ) -> dict[str, JsonValue]:
        """Return the outputs of the job that the triggerer waited for; raises as `execute` does."""
        with native_errors():
            end = JobEnd.parse(event)
            # The count is an argument of the deferral, because Airflow resumes the task in another
            # process, with a new operator.
            if end.fate == "lost":
                self._require_submissions_left(submissions, end)
                self._wait_in_triggerer(context, submissions + 1)
            end.require_success()
            return self._publish_assets(self._fetch(str(event["job_id"])), context)

    def on_kill(self) -> None:
        """Cancel the job; a job that is submitted later is cancelled too."""
        # Airflow calls this in its SIGTERM handler, possibly while `submit_job` waits for the id of
        # the job: `submit_job` reads the flag afterwards.
        self._is_killed = self.cancel_on_kill
        if self._is_killed and self._job_id is not None:
            self._cancel(self._job_id)

    def inputs_for(self, context: Context) -> Mapping[str, object]:  # noqa: ARG002  # a decorated function reads it
        """Return the inputs of the call."""
        return self.inputs

    def submit_job(self, context: Context) -> JsonValue:
        """Submit the call with its key; every try of the task receives the same job."""
        inputs = self.inputs_for(context)
        key = call_key(context["ti"], inputs, self.out)
        with self._client() as client:
            require_jobs(client.described, self.mode)
            sent = client_inputs(client.described, inputs)
            job = client.submit(sent, out=self.out, key=key, lease_s=self.lease_s)
        self._job_id = job.id
        self.log.info("job %s at %s, key %s", job.id, client.url, key)
        if self._is_killed:
            self._cancel(job.id)
        return {"id": job.id, "key": key}

    def get_job_status(self, external_id: JsonValue, context: Context) -> str:
        """Return the state of a job of an earlier try; `lost` if it is not this call's any more."""
        job_id, key = _id_and_key(external_id)
        # Airflow's task state store survives a clear: the job of an older key must not be returned.
        if key != call_key(context["ti"], self.inputs_for(context), self.out):
            return "lost"
        try:
            with self._client() as client:
                return client.status(job_id).state
        except NotFound:
            return "lost"

    def is_job_active(self, status: str) -> bool:
        """Return whether the job still runs, or waits to run."""
        return status in ("accepted", "running")

    def is_job_succeeded(self, status: str) -> bool:
        """Return whether the job has results."""
        return status == "successful"

    def poll_until_complete(self, external_id: JsonValue, context: Context) -> dict[str, object]:  # type: ignore[override]  # Airflow returns it on reconnecting
        """Wait for a job and return its outputs; submit it again if the service has lost it."""
        self._job_id, _ = _id_and_key(external_id)
        for submissions in range(1, MOST_SUBMISSIONS + 1):
            end = self._wait_for_end(self._job_id)
            if end.fate != "lost":
                end.require_success()
                return self._fetch(self._job_id)
            self._require_submissions_left(submissions, end)
            external_id = self.submit_job(context)
            if store := context.get("task_state_store"):
                store.set(self.external_id_key, external_id)
            self._job_id, _ = _id_and_key(external_id)
        raise AssertionError("one submission too many")  # pragma: no cover

    def get_job_result(self, external_id: JsonValue, context: Context) -> dict[str, object]:  # noqa: ARG002  # Airflow's
        """Return the outputs of the last job: `external_id`, unless it was submitted again."""
        return self._fetch(self._job_id or _id_and_key(external_id)[0])

    @property
    def _service_call(self) -> ServiceCall:
        # Not in `__init__`: Airflow renders the templates of `service` after it.
        if self._opened is None:
            self._opened = ServiceCall(
                service=self.service, pesto_conn_id=self.pesto_conn_id, saved=self.saved
            )
        return self._opened

    def _client(self) -> Client:
        return self._service_call.client(partial(require_references, out=self.out))

    def _call(self, context: Context) -> dict[str, object]:
        with self._client() as client:
            sent = client_inputs(client.described, self.inputs_for(context))
            return client.process(sent, out=self.out)

    def _fetch(self, job_id: str) -> dict[str, object]:
        """Return a job's outputs, requested once: Airflow's mixin fetches them twice."""
        if job_id not in self._results:
            with self._client() as client:
                self._results[job_id] = client.result(job_id)
        return self._results[job_id]

    def _wait_for_end(self, job_id: str) -> JobEnd:
        with self._client() as client:
            for step in poll_job(client, job_id, longest_wait_s=self.poll_interval):
                if self._is_killed:
                    raise PestoTryAgain(f"killed while it waited for job {job_id}")
                if isinstance(step, JobEnd):
                    return step
                time.sleep(step)
        raise AssertionError("polling ends with a JobEnd")  # pragma: no cover

    def _wait_in_triggerer(self, context: Context, submissions: int = 1) -> NoReturn:
        job_id, _ = _id_and_key(self.submit_job(context))
        hook = self._service_call.hook
        self.defer(
            trigger=PestoJobTrigger(
                job_id,
                service=hook.service,
                pesto_conn_id=hook.pesto_conn_id,
                poll_s=self.poll_interval,
                cancel_on_kill=self.cancel_on_kill,
            ),
            method_name="execute_complete",
            kwargs={"submissions": submissions},
            timeout=self.execution_timeout,
        )

    def _require_submissions_left(self, submissions: int, end: JobEnd) -> None:
        if submissions >= MOST_SUBMISSIONS:
            reason = (end.problem or {}).get("detail")
            raise PestoTryAgain(f"submitted {submissions} times, and lost each time: {reason}")
        self.log.warning("the service has lost or deleted the job; submitting it again: %s", end)

    def _cancel(self, job_id: str) -> None:
        try:
            with self._service_call.client() as client:
                client.cancel(job_id)
        except PestoError as error:
            self.log.warning("job %s continues until its lease ends: %s", job_id, error)

    def _publish_assets(self, outputs: dict[str, object], context: Context) -> dict[str, JsonValue]:
        """Add every href of `out` to the outlets that are an AssetAlias; return the outputs."""
        for outlet in self.outlets:
            if isinstance(outlet, AssetAlias):
                for href in self.out.values():
                    context["outlet_events"][outlet].add(Asset(href))
        return cast("dict[str, JsonValue]", outputs)

    def _set_defaults(self) -> None:
        """Set retry policy, pool and outlets, unless the arguments did."""
        if self.retry_policy is None:
            self.retry_policy = PestoRetryPolicy()
        if self.saved is not None:
            saved = read_saved(self.saved)
            require_known_names(saved, self.inputs, self.out)
            if self.pool == _DEFAULT_POOL:
                self.pool = placement(saved.description).get("pool", self.pool)
        hrefs = self.out.values() if isinstance(self.out, dict) else ()  # else it is an XComArg
        known = [href for href in hrefs if isinstance(href, str) and "{{" not in href]
        self.outlets = [*self.outlets, *(Asset(href) for href in known)]


def _mode(mode: Mode | None, deferrable: bool | None, *, waits: bool) -> Mode:
    """Return the one way of waiting that several arguments can tell.

    Raises:
        InvalidInput: they exclude each other.
    """
    if mode is not None and deferrable is not None and deferrable != (mode == "deferrable"):
        raise InvalidInput(f"mode={mode!r} and deferrable={deferrable}: give one of them")
    if mode == "sync" and not waits:
        raise InvalidInput("mode='sync' waits for its call: leave wait_for_completion=False out")
    if deferrable is None:
        deferrable = conf.getboolean("operators", "default_deferrable", fallback=False)
    return mode or ("deferrable" if deferrable else "durable")


def _poll_interval(given: float | None, lease_s: float | None) -> float:
    """Return the longest time between two requests: four of them fit into a lease.

    Raises:
        InvalidInput: it is not above 0, or the job could end between two requests.
    """
    most = math.inf if lease_s is None else lease_s / 4
    if given is not None and not 0 < given <= most:
        limit = (
            "" if lease_s is None else f", and at most {most:g}, a quarter of lease_s={lease_s:g}"
        )
        raise InvalidInput(f"poll_interval {given:g} must be above 0{limit}")
    return min(_POLL_S, most) if given is None else given


def _id_and_key(external_id: JsonValue) -> tuple[str, str]:
    """Read the id and key of a job, as the task state store has them."""
    if not isinstance(external_id, dict):
        return str(external_id), ""
    return str(external_id["id"]), str(external_id["key"])

"""Prepare one call of a process for an Airflow task: placement, idempotency key, inputs, client.

The operators and triggers send the calls; this module sends only requests for the description.
"""

from __future__ import annotations

import hashlib
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Protocol, TypedDict
from urllib.parse import urlsplit

import rfc8785
from pydantic import ValidationError

from pesto_airflow.catalog import read_saved, require_no_drift
from pesto_airflow.hooks import PestoHook
from pesto_airflow.triggers import JobEnd, JobPoller
from pesto_runtime.contract import ImageReference, bad_fields
from pesto_runtime.errors import BadField, InvalidInput, PestoError, shortened
from pesto_runtime.hrefs import looks_like_href

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pesto_airflow.catalog import Saved
    from pesto_runtime.client.client import Client
    from pesto_runtime.client.describing import Described
    from pesto_runtime.contract import Description, Port


GPU_POOL = "pesto_gpu"
"""Pool of calls to processes that require a GPU; create it with one slot per device."""
_LABEL_CHARS = 60


class TaskPlacement(TypedDict, total=False):
    """Arguments of an operator that select where it runs."""

    pool: str
    queue: str


def placement(
    description: Description, *, gpu_pool: str | None = GPU_POOL, gpu_queue: str | None = None
) -> TaskPlacement:
    """Return pool and queue of the calls of a process; empty if it requires no GPU.

    Args:
        description: Description of the process; `resources.gpu` declares a GPU.
        gpu_pool: Pool that limits calls to GPU services; None to set no pool.
        gpu_queue: Queue whose workers have a GPU, for processes that run in the worker itself.
    """
    if not description.known.resources.gpu:
        return {}
    chosen: TaskPlacement = {}
    if gpu_pool is not None:
        chosen["pool"] = gpu_pool
    if gpu_queue is not None:
        chosen["queue"] = gpu_queue
    return chosen


class TaskInstanceKey(Protocol):
    """The fields of a task instance that identify its call."""

    @property
    def dag_id(self) -> str: ...  # noqa: D102  # as Airflow defines it, and all below
    @property
    def run_id(self) -> str: ...  # noqa: D102
    @property
    def task_id(self) -> str: ...  # noqa: D102
    @property
    def map_index(self) -> int | None: ...  # noqa: D102
    @property
    def max_tries(self) -> int: ...  # noqa: D102


def call_key(task: TaskInstanceKey, inputs: Mapping[str, object], out: Mapping[str, str]) -> str:
    """Compute the Idempotency-Key of a task's call; it is the same for every try.

    Raises:
        InvalidInput: the inputs are not JSON.
    """
    # Airflow increases `max_tries` when a user clears a task, and does not change it for a retry:
    # a retry finds the existing job, a cleared task computes again (docs/decisions/012).
    identity = [
        task.dag_id, task.run_id, task.task_id, task.map_index, task.max_tries, dict(inputs),
        dict(out),
    ]  # fmt: skip
    try:
        return hashlib.sha256(rfc8785.dumps(identity)).hexdigest()  # type: ignore[arg-type]  # checked by rfc8785
    except rfc8785.CanonicalizationError as error:
        raise InvalidInput(f"the inputs are not JSON: {error}") from error


class ServiceCall:
    """The service of an operator; its description is requested once per process.

    Attributes:
        hook: Uses the connection, the URL, or the URL of the saved description, in that order.
        saved: Description that the service must still have; None if none was saved.
    """

    def __init__(
        self, *, service: str | None, pesto_conn_id: str | None, saved: str | None
    ) -> None:
        """Select a service; nothing is sent yet.

        Args:
            service: Its URL; with a connection, all other settings are those of the connection.
            pesto_conn_id: Connection; `pesto_default` if none of the three is set.
            saved: File of a saved description.

        Raises:
            InvalidInput: the file does not exist, or is not a saved description.
        """
        self.saved: Saved | None = None if saved is None else read_saved(saved)
        if pesto_conn_id is None and service is None:
            service = self.saved.url if self.saved else None
            pesto_conn_id = None if service else PestoHook.default_conn_name
        self.hook = PestoHook(pesto_conn_id, service=service)
        self._described: Described | None = None

    @property
    def url(self) -> str:
        """URL up to and including `/api/v1`; raises as `PestoHook.endpoint` does."""
        from pesto_runtime.client.transport import service_url

        return service_url(self.hook.endpoint().url)

    def client(self, require: Callable[[Described], None] | None = None) -> Client:
        """Open a client, to use in a `with` block, after comparing the service with `saved`.

        Args:
            require: Raises if the service cannot perform the call.

        Raises:
            InvalidContract: the description has changed in a way that breaks the saved one.
            PestoError: the service is unreachable, or returns no valid description.
        """
        client = self.hook.client(described=self._described)
        try:
            self._require_saved_description(client)
            if require is not None:
                require(client.described)
        except BaseException:
            client.close()
            raise
        return client

    def _require_saved_description(self, client: Client) -> None:
        """Compare the live description with the saved one, at the first call."""
        if self._described is None:
            described = client.described
            if self.saved is not None:
                for change in require_no_drift(self.saved, described.description, where=client.url):
                    self.hook.log.info("%s changed since it was saved: %s", client.url, change)
            self._described = described


def poll_job(client: Client, job_id: str, *, longest_wait_s: float) -> Iterator[float | JobEnd]:
    """Request a job's state at each step; yield seconds to sleep, and at last the job's end."""
    poller = JobPoller(longest_wait_s=longest_wait_s)
    while True:
        try:
            step = poller.next_step(client.status(job_id))
        except PestoError as error:
            step = poller.next_step(error)
        yield step
        if isinstance(step, JobEnd):
            return


def require_known_names(saved: Saved, inputs: object, out: object) -> None:
    """Reject unknown inputs and outputs while Airflow parses the DAG file.

    Only names are checked. Templates and results of other tasks are checked when the task runs.

    Raises:
        InvalidInput: with every unknown input, and all errors of `require_references`.
    """
    faults: list[BadField] = []
    if isinstance(inputs, dict):
        faults += _unknown_inputs(saved.description, inputs)
    if isinstance(out, dict) and not any(_is_template(name) for name in out):
        faults += _output_faults(saved.description, out, is_plain_pesto=saved.is_plain_pesto)
    if faults:
        raise InvalidInput.of(f"call of {saved.description.name!r}, {saved.path.name}", faults)


def require_references(described: Described, out: Mapping[str, str]) -> None:
    """Reject a call that would return pixels: only references and JSON cross a task boundary.

    Raises:
        InvalidInput: with every image output without an href, and every href of an unknown output.
    """
    faults = _output_faults(described.description, out, is_plain_pesto=described.is_plain_pesto)
    if faults:
        raise InvalidInput.of(f"outputs of {described.description.name!r}", faults)


def require_jobs(described: Described, mode: str) -> None:
    """Reject a mode that submits jobs if the service has none.

    Raises:
        InvalidInput: it is a plain PESTO service whose process is not asynchronous.
    """
    description = described.description
    if described.is_plain_pesto and not description.known.asynchronous:
        raise InvalidInput(
            f"{description.name} is a PESTO service without jobs, so mode={mode!r} has nothing to "
            "wait for; use mode='sync'"
        )


def client_inputs(described: Described, inputs: Mapping[str, object]) -> dict[str, object]:
    """Convert inputs to those of the client: hrefs of images as references, without None.

    The worker reads a reference that the service must not read, and sends its pixels. A string for
    a plain PESTO service stays unchanged: PESTO reads it as a URI or as base64.

    Raises:
        InvalidInput: with every image that is neither an href nor `{"href", "window", "bands"}`.
    """
    faults: list[BadField] = []
    converted: dict[str, object] = {}
    for name, value in inputs.items():
        port = described.description.input(name)
        if value is None and not (port is not None and port.required):
            continue
        is_uri = described.is_plain_pesto and isinstance(value, str)
        converted[name] = value if is_uri else _client_value(port, value, f"/{name}", faults)
    if faults:
        raise InvalidInput.of(f"inputs of {described.description.name!r}", faults)
    return converted


def label_of(inputs: Mapping[str, object]) -> str:
    """Return a short label of a call: the file name of its first image, else all its inputs.

    >>> label_of({"scene": {"href": "s3://scenes/2024/a.tif"}, "threshold": 0.1})
    'a.tif'
    >>> label_of({"path": "/data/log", "count": 3})
    'path=log, count=3'
    """
    for value in inputs.values():
        href = value.get("href") if isinstance(value, dict) else value
        if isinstance(href, str) and looks_like_href(href):
            return PurePosixPath(urlsplit(href).path).name
    named = (f"{name}={str(value).rpartition('/')[2]}" for name, value in inputs.items())
    return ", ".join(named)[:_LABEL_CHARS]


def _unknown_inputs(description: Description, inputs: Mapping[str, object]) -> list[BadField]:
    known = [port.name for port in description.inputs]
    return [
        BadField(f"/inputs/{name}", f"is not an input; {_suggestion(name, known)}")
        for name in inputs
        if name not in known and not _is_template(name)
    ]


def _suggestion(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known) or 'none'}"


def _is_template(name: object) -> bool:
    return "{{" in str(name) or "{%" in str(name)


def _output_faults(
    description: Description, out: Mapping[str, str], *, is_plain_pesto: bool
) -> list[BadField]:
    names = ", ".join(port.name for port in description.outputs) or "none"
    solution = (
        "a plain PESTO service cannot write it; make it a stage of a pipeline"
        if is_plain_pesto
        else "name where the service writes it: out={{{name!r}: 's3://bucket/{name}.tif'}}"
    )
    faults = [
        BadField(f"/out/{port.name}", "is an image: " + solution.format(name=port.name))
        for port in description.outputs
        if port.kind in ("image", "images") and port.name not in out
    ]
    faults += [
        BadField(f"/out/{name}", f"is not an output; there are {names}")
        for name in out
        if description.output(name) is None
    ]
    return faults


def _client_value(port: Port | None, value: object, where: str, faults: list[BadField]) -> object:
    if port is None or port.kind not in ("image", "images"):
        return value
    if port.kind == "images" and isinstance(value, (list, tuple)):
        return [_reference(each, f"{where}/{at}", faults) for at, each in enumerate(value)]
    return _reference(value, where, faults)


def _reference(value: object, where: str, faults: list[BadField]) -> object:
    if isinstance(value, str) and not looks_like_href(value):
        return value
    try:
        return ImageReference.parse(value)  # type: ignore[arg-type]  # validated there
    except InvalidInput as error:
        faults.append(BadField(where, error.detail, shortened(value)))
        return value
    except ValidationError as error:
        faults += bad_fields(error, prefix=where, value=value)
        return value

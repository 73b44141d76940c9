"""One call, made ready: inputs as the client takes them, its key, and what it may not answer."""

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
from pesto_airflow.triggers import Ended, JobPoller
from pesto_runtime.contract import ImageReference, bad_fields
from pesto_runtime.errors import BadField, InvalidInput, PestoError
from pesto_runtime.hrefs import looks_like_href

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from pesto_airflow.catalog import Saved
    from pesto_runtime.client.client import Client
    from pesto_runtime.client.describing import Described
    from pesto_runtime.contract import Description, Port


GPU_POOL = "pesto_gpu"
"""Pool of calls to processes that want a GPU; make it with as many slots as there are devices."""


class TaskPlacement(TypedDict, total=False):
    """Arguments of an operator."""

    pool: str
    queue: str


def placement(
    description: Description, *, gpu_pool: str | None = GPU_POOL, gpu_queue: str | None = None
) -> TaskPlacement:
    """Where calls of a process run; empty for one that wants no GPU (`resources.gpu`).

    Args:
        description: Of the process.
        gpu_pool: Pool that bounds calls to GPU services; None for no pool of theirs.
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


_LABEL_CHARS = 60


class TaskInstanceKey(Protocol):
    """What is read of a task instance."""

    @property
    def dag_id(self) -> str: ...  # noqa: D102  # as Airflow has it, and all below
    @property
    def run_id(self) -> str: ...  # noqa: D102
    @property
    def task_id(self) -> str: ...  # noqa: D102
    @property
    def map_index(self) -> int | None: ...  # noqa: D102
    @property
    def max_tries(self) -> int: ...  # noqa: D102


def call_key(task: TaskInstanceKey, inputs: Mapping[str, object], out: Mapping[str, str]) -> str:
    """The Idempotency-Key of a task's call: the same for every try, so that none runs it twice.

    Airflow counts `max_tries` up when somebody clears the task, and never when it retries it: so a
    retry finds the job that is there, and a clear has it computed anew.

    Raises:
        InvalidInput: the inputs are no JSON.
    """
    told = [
        task.dag_id, task.run_id, task.task_id, task.map_index, task.max_tries, dict(inputs),
        dict(out),
    ]  # fmt: skip
    try:
        return hashlib.sha256(rfc8785.dumps(told)).hexdigest()  # type: ignore[arg-type]  # it judges
    except rfc8785.CanonicalizationError as error:
        raise InvalidInput(f"the inputs are not JSON: {error}") from error


def require_references(described: Described, out: Mapping[str, str]) -> None:
    """Refuse a call whose answer would hold pixels: only references and JSON cross a task boundary.

    Raises:
        InvalidInput: with every output that is an image and has no href to be written to, and every
            href for what is no output.
    """
    faults = output_faults(described.description, out, is_plain_pesto=described.is_plain_pesto)
    if faults:
        raise InvalidInput.of(f"outputs of {described.description.name!r}", faults)


def require_known(saved: Saved, inputs: object, out: object) -> None:
    """Refuse a call that what was saved of its service tells to be wrong, when a DAG is read.

    Only names are looked at, and only where they are there: what is a template, or another task's
    result, is looked at when the task runs.

    Raises:
        InvalidInput: with every input that there is not, and all that `require_references` refuses.
    """
    faults: list[BadField] = []
    if isinstance(inputs, dict):
        faults += _unknown_inputs(saved.description, inputs)
    if isinstance(out, dict) and not any(_is_template(name) for name in out):
        faults += output_faults(saved.description, out, is_plain_pesto=saved.is_plain_pesto)
    if faults:
        raise InvalidInput.of(f"call of {saved.description.name!r}, {saved.path.name}", faults)


def output_faults(
    description: Description, out: Mapping[str, str], *, is_plain_pesto: bool
) -> list[BadField]:
    """Images without an href to be written to, and hrefs for what is no output."""
    names = ", ".join(port.name for port in description.outputs) or "none"
    way_out = (
        "a plain PESTO service cannot write it; make it a stage of a pipeline"
        if is_plain_pesto
        else "name where the service writes it: out={{{name!r}: 's3://bucket/{name}.tif'}}"
    )
    faults = [
        BadField(f"/out/{port.name}", "is an image: " + way_out.format(name=port.name))
        for port in description.outputs
        if port.kind in ("image", "images") and port.name not in out
    ]
    faults += [
        BadField(f"/out/{name}", f"is no output; there are {names}")
        for name in out
        if description.output(name) is None
    ]
    return faults


def require_jobs(described: Described, mode: str) -> None:
    """Refuse a mode that submits jobs to a service that has none.

    Raises:
        InvalidInput: it is a plain PESTO service of a process that is not asynchronous.
    """
    description = described.description
    if described.is_plain_pesto and not description.known.asynchronous:
        raise InvalidInput(
            f"{description.name} is a PESTO service without jobs, so mode={mode!r} has nothing to "
            "wait for; use mode='sync'"
        )


def prepared(described: Described, inputs: Mapping[str, object]) -> dict[str, object]:
    """Inputs as the client takes them: hrefs of images as references; None is left out.

    A reference that the service may not read is read by the worker, and sent as pixels. A string
    for a plain PESTO service stays the URI, or the base64, that PESTO takes it for.

    Raises:
        InvalidInput: with every image that is neither an href nor `{"href", "window", "bands"}`.
    """
    faults: list[BadField] = []
    ready: dict[str, object] = {}
    for name, value in inputs.items():
        port = described.description.input(name)
        if value is None and not (port is not None and port.required):
            continue
        is_uri = described.is_plain_pesto and isinstance(value, str)
        ready[name] = value if is_uri else _ready(port, value, f"/{name}", faults)
    if faults:
        raise InvalidInput.of(f"inputs of {described.description.name!r}", faults)
    return ready


def label_of(inputs: Mapping[str, object]) -> str:
    """A short name for a call: of an image's file where there is one, else of all its inputs.

    >>> label_of({"scene": {"href": "s3://scenes/2024/a.tif"}, "threshold": 0.1})
    'a.tif'
    >>> label_of({"path": "/data/told", "count": 3})
    'path=told, count=3'
    """
    for value in inputs.values():
        href = value.get("href") if isinstance(value, dict) else value
        if isinstance(href, str) and looks_like_href(href):
            return PurePosixPath(urlsplit(href).path).name
    told = (f"{name}={str(value).rpartition('/')[2]}" for name, value in inputs.items())
    return ", ".join(told)[:_LABEL_CHARS]


def _ready(port: Port | None, value: object, where: str, faults: list[BadField]) -> object:
    if port is None or port.kind not in ("image", "images"):
        return value
    if port.kind == "images" and isinstance(value, (list, tuple)):
        return [_reference(each, f"{where}/{at}", faults) for at, each in enumerate(value)]
    return _reference(value, where, faults)


def _reference(value: object, where: str, faults: list[BadField]) -> object:
    if isinstance(value, str):
        return ImageReference(href=value) if looks_like_href(value) else value
    try:
        return ImageReference.model_validate(value)
    except ValidationError as error:
        faults += bad_fields(error, prefix=where, value=value)
        return value


def _unknown_inputs(description: Description, inputs: Mapping[str, object]) -> list[BadField]:
    known = [port.name for port in description.inputs]
    return [
        BadField(f"/inputs/{name}", f"is no input; {_meant(name, known)}")
        for name in inputs
        if name not in known and not _is_template(name)
    ]


def _meant(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known) or 'none'}"


def _is_template(name: object) -> bool:
    return "{{" in str(name) or "{%" in str(name)


class ServiceCall:
    """Where an operator's service is; asked what it is once per process.

    Attributes:
        hook: By a connection, a URL, or the URL of the saved description, in that order.
        saved: What the service must still be; None where nothing was saved.
    """

    def __init__(
        self, *, service: str | None, pesto_conn_id: str | None, saved: str | None
    ) -> None:
        """Name a service.

        Args:
            service: Its URL; with a connection, all else is the connection's.
            pesto_conn_id: Connection; `pesto_default` where nothing at all is given.
            saved: File of a saved description.

        Raises:
            InvalidInput: there is no such file, or it is no saved description.
        """
        self.saved: Saved | None = None if saved is None else read_saved(saved)
        if pesto_conn_id is None and service is None:
            service = self.saved.url if self.saved else None
            pesto_conn_id = None if service else PestoHook.default_conn_name
        self.hook = PestoHook(pesto_conn_id, service=service)
        self._described: Described | None = None

    @property
    def url(self) -> str:
        """Address up to and with `/api/v1`; raises as `PestoHook.endpoint` does."""
        from pesto_runtime.client.transport import service_url

        return service_url(self.hook.endpoint().url)

    def client(self, require: Callable[[Described], None] | None = None) -> Client:
        """A client to use in a `with` block, of a service that is what was saved of it.

        Args:
            require: Raises where what the service is does not do.

        Raises:
            InvalidContract: it has changed in a way that breaks what was saved.
            PestoError: it is not there, or does not say what it is.
        """
        client = self.hook.client(described=self._described)
        try:
            self._hold(client)
            if require is not None:
                require(client.described)
        except BaseException:
            client.close()
            raise
        return client

    def _hold(self, client: Client) -> None:
        """Hold the service to what was saved, once."""
        if self._described is None:
            described = client.described
            if self.saved is not None:
                for change in require_no_drift(self.saved, described.description, where=client.url):
                    self.hook.log.info("%s changed since it was saved: %s", client.url, change)
            self._described = described


def looks_at(client: Client, job_id: str, *, longest_look_s: float) -> Iterator[float | Ended]:
    """Look at a job at each step: seconds to sleep before the next one, and at last its end."""
    watch = JobPoller(longest_look_s=longest_look_s)
    while True:
        try:
            verdict = watch.told(client.status(job_id))
        except PestoError as error:
            verdict = watch.told(error)
        yield verdict
        if isinstance(verdict, Ended):
            return

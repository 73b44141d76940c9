"""Make definitions known to a server: linted, validated by it, then registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pesto_conductor.lint import is_event_handler, lint
from pesto_conductor.render import render
from pesto_conductor.taskdefs import service_definition, task_definitions
from pesto_conductor.workflows import failure_definition
from pesto_runtime.activities import find, load_pipeline, read_document
from pesto_runtime.engines import RenderRequest
from pesto_runtime.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from pydantic import JsonValue

    from pesto_conductor.rest import Conductor
    from pesto_conductor.taskdefs import TaskDefinition

    Document = dict[str, JsonValue]


def read_definitions(
    path: Path, *, services: Sequence[str] = (), catalog: Path | None = None
) -> list[Document]:
    """Read a file: a definition, several in an array, or a pipeline, which is rendered.

    Args:
        path: The file.
        services: `NAME=TARGET_OR_URL` or URLs, for a pipeline.
        catalog: `{name: target}` or a folder of saved descriptions, for a pipeline.

    Raises:
        InvalidInput: it is not there, or neither of these.
        PestoError: a pipeline does not check.
    """
    document = read_document(path)
    if isinstance(document, dict) and "stages" in document:
        pipeline = load_pipeline(path)
        return [render(RenderRequest(pipeline, path, services=tuple(services), catalog=catalog))]
    found = document if isinstance(document, list) else [document]
    known = [e for e in found if isinstance(e, dict) and e.keys() & {"tasks", "event"}]
    if len(known) < len(found):
        raise InvalidInput(f"{path} is no workflow definition, event handler or pipeline")
    return known


def service_tasks(urls: Sequence[str]) -> list[TaskDefinition]:
    """A task type for each of these services.

    Raises:
        PestoError: a service does not answer.
    """
    found = [find((url,)) for url in urls]
    return [service_definition(each.description, each.service.targets) for each in found]


def register(
    conductor: Conductor,
    documents: Mapping[str, Sequence[Document]],
    *,
    tasks: Iterable[TaskDefinition] = (),
) -> list[str]:
    """Register definitions, our task types and the workflow that cleans up; answers all names.

    Nothing is registered unless everything is right.

    Args:
        conductor: The server.
        documents: Where they come from -> definitions.
        tasks: Further task types.

    Raises:
        InvalidInput: the lint or the server finds something wrong with one; with every reason.
    """
    known = (*task_definitions(), *tasks)
    given = [each for found in documents.values() for each in found]
    handlers = [each for each in given if is_event_handler(each)]
    others = [each for each in given if not is_event_handler(each)]
    workflows = list({str(each["name"]): each for each in (failure_definition(), *others)}.values())
    for source, found in documents.items():
        for document in found:
            require_sound(document, source, known, workflows)
    conductor.register_tasks([each.to_json() for each in known])
    for workflow in workflows:
        conductor.validate(workflow)
    conductor.register_workflows(workflows)
    for handler in handlers:
        conductor.register_event_handler(handler)
    return [
        *(each.name for each in known),
        *(str(each["name"]) for each in (*workflows, *handlers)),
    ]


def require_sound(
    document: Document,
    source: str,
    tasks: Iterable[TaskDefinition],
    workflows: Iterable[Document] = (),
) -> None:
    """Lint a definition.

    Raises:
        InvalidInput: with everything that is wrong with it.
    """
    faults = lint(document, tasks=tasks, workflows=workflows)
    if faults:
        raise InvalidInput.of(source, faults)

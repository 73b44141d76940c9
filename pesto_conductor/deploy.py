"""Start a workflow with inputs as they are written on a command line."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_conductor.lint import is_event_handler, lint
from pesto_conductor.taskdefs import service_definition, task_definitions
from pesto_conductor.workflows import failure_definition, render
from pesto_runtime.engines import RenderRequest
from pesto_runtime.errors import InvalidInput
from pesto_runtime.hrefs import file_href, looks_like_href
from pesto_runtime.run.planning import load_pipeline
from pesto_runtime.run.services import find, read_document
from pesto_runtime.schema import schema_faults

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pydantic import JsonValue

    Document = dict[str, JsonValue]
    from pesto_conductor.client import Conductor
    from pesto_conductor.taskdefs import TaskDefinition


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


_INPUT = re.compile(r"\$\{workflow\.input\.([^{}.\[\]]+)\}")


def start_workflow(conductor: Conductor, definition: Document, texts: Mapping[str, str]) -> str:
    """Start a registered workflow; answers its id.

    Args:
        conductor: The server.
        definition: Its definition: the schema of its input says which texts are paths.
        texts: Input name -> JSON, or text.

    Raises:
        InvalidInput: an input is missing, unknown or of the wrong kind; with every one.
    """
    inputs = read_inputs(definition, texts)
    name, version = str(definition["name"]), definition.get("version")
    return conductor.start(
        name,
        inputs,
        version=version if isinstance(version, int) else None,
        domains=domains_of(definition),
    )


def read_inputs(definition: Mapping[str, JsonValue], texts: Mapping[str, str]) -> Document:
    """Turn texts into the workflow's input: JSON where they are, paths made hrefs.

    A folder that targets are relative to becomes absolute, as workers run elsewhere; so does the
    definition's own where it lies below the current directory.

    Raises:
        InvalidInput: they do not fit the definition; with every reason.
    """
    schema = _input_schema(definition)
    properties = schema.get("properties")
    kinds = properties if isinstance(properties, dict) else {}
    inputs = {name: _value(text, kinds.get(name)) for name, text in texts.items()}
    faults = tuple(schema_faults(schema, inputs))
    if faults:
        raise InvalidInput.of(f"inputs of {definition.get('name')}", faults)
    return inputs | _folders(definition, inputs)


def _folders(definition: Mapping[str, JsonValue], inputs: Document) -> Document:
    """Inputs that are `base` of a plan, made absolute; defaults only where they exist here."""
    template = definition.get("inputTemplate")
    defaults = template if isinstance(template, dict) else {}
    made: Document = {}
    for name in _bases(definition):
        text = inputs.get(name, defaults.get(name))
        if not isinstance(text, str) or looks_like_href(text) or Path(text).is_absolute():
            continue
        if name in inputs or Path(text).is_dir():
            made[name] = str(Path(text).resolve())
    return made


def _bases(definition: Mapping[str, JsonValue]) -> list[str]:
    """Inputs of the workflow that its tasks take for `base`."""
    tasks = definition.get("tasks")
    given = [
        task.get("inputParameters")
        for task in (tasks if isinstance(tasks, list) else [])
        if isinstance(task, dict) and task.get("name") == "pesto_plan"
    ]
    read = [_INPUT.fullmatch(str(each.get("base"))) for each in given if isinstance(each, dict)]
    return [found[1] for found in read if found]


def domains_of(definition: Mapping[str, JsonValue]) -> dict[str, str]:
    """Task domains that a definition asks for: of its tasks that want a GPU."""
    metadata = definition.get("metadata")
    domains = metadata.get("taskToDomain") if isinstance(metadata, dict) else None
    return (
        {name: str(domain) for name, domain in domains.items()} if isinstance(domains, dict) else {}
    )


def _input_schema(definition: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """The schema that it declares; else the names of its inputs."""
    declared = definition.get("inputSchema")
    data = declared.get("data") if isinstance(declared, dict) else None
    if isinstance(data, dict):
        return data
    names = definition.get("inputParameters")
    known = [str(name) for name in names] if isinstance(names, list) else []
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "properties": dict.fromkeys(known, True),
        "additionalProperties": False,
    }


def _value(text: str, kind: JsonValue) -> JsonValue:
    wanted = kind if isinstance(kind, dict) else {}
    if wanted.get("format") == "uri-reference":
        return text if looks_like_href(text) else file_href(text)
    if wanted.get("type") == "string":
        return text
    try:
        value: JsonValue = json.loads(text)
    except ValueError:
        return text
    return value

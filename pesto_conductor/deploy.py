"""Read, lint and register definitions, and start workflows with inputs as texts.

Requests are sent by `client.py`, and errors of a definition are found by `lint.py`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from pesto_conductor.definitions import failure_definition
from pesto_conductor.lint import RULES, is_event_handler, lint
from pesto_conductor.scopes import started_workflows
from pesto_conductor.sites import site_of
from pesto_conductor.taskdefs import OWNER, is_newer, service_definition, task_definitions
from pesto_conductor.workflows import render
from pesto_runtime.engines import RenderRequest
from pesto_runtime.errors import InvalidInput, NotFound, PestoError
from pesto_runtime.hrefs import as_href, image_reference, looks_like_href
from pesto_runtime.run.catalogs import read_document
from pesto_runtime.run.planning import load_pipeline
from pesto_runtime.run.services import find, resolve_services
from pesto_runtime.schema import schema_faults, typed_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from pydantic import JsonValue

    from pesto_conductor.client import Conductor
    from pesto_conductor.lint import Describe, Finding
    from pesto_conductor.taskdefs import TaskDefinition
    from pesto_runtime.contract import Description, Pipeline
    from pesto_runtime.places import AnyPath

    Document = dict[str, JsonValue]

_INPUT = re.compile(r"\$\{workflow\.input\.([^{}.\[\]]+)\}")


def read_definitions(
    path: AnyPath, *, services: Sequence[str] = (), catalog: AnyPath | None = None
) -> list[Document]:
    """Read a file: a definition, an array of them, or a pipeline, which is rendered.

    Args:
        path: The file, also in a bucket.
        services: `NAME=TARGET_OR_URL` or URLs, for a pipeline.
        catalog: `{name: target}` or a folder of saved descriptions, for a pipeline.

    Raises:
        InvalidInput: the file does not exist, or contains none of these.
        PestoError: a pipeline has errors; names each.
    """
    document = read_document(path)
    if isinstance(document, dict) and "stages" in document:
        pipeline = load_pipeline(path)
        return [render(RenderRequest(pipeline, path, services=tuple(services), catalog=catalog))]
    found = document if isinstance(document, list) else [document]
    known = [e for e in found if isinstance(e, dict) and e.keys() & {"tasks", "event"}]
    if len(known) < len(found):
        raise InvalidInput(f"{path} is not a workflow definition, event handler or pipeline")
    return known


def service_tasks(urls: Sequence[str]) -> list[TaskDefinition]:
    """Return a task type for each of these services.

    Raises:
        PestoError: the description of a service cannot be requested.
    """
    found = [find((url,)) for url in urls]
    return [service_definition(each.description, each.service.targets) for each in found]


def lint_all(
    documents: Mapping[str, Sequence[Document]],
    *,
    tasks: Iterable[TaskDefinition] = (),
    registered: Iterable[Document] = (),
    describe: Describe | None = None,
    allow: Sequence[str] = (),
) -> dict[str, tuple[Finding, ...]]:
    """Return file -> its findings; a definition may refer to those of all files.

    Args:
        documents: File -> its definitions.
        tasks: Further task types.
        registered: Further workflows: those of a server.
        describe: Returns the descriptions of a pipeline's processes, empty if they are not known.
        allow: Rules whose findings are left out.

    Raises:
        InvalidInput: a rule does not exist.
    """
    unknown = [rule for rule in allow if rule not in RULES]
    if unknown:
        raise InvalidInput(f"there is no rule {', '.join(unknown)}, only {', '.join(RULES)}")
    known = (*task_definitions(), *tasks)
    every = [each for found in documents.values() for each in found if not is_event_handler(each)]
    workflows = (failure_definition(), *registered, *every)
    describe = describe or (lambda _pipeline: {})
    return {
        source: tuple(
            finding
            for document in found
            for finding in lint(
                document, tasks=known, workflows=workflows, describe=describe, allow=allow
            )
        )
        for source, found in documents.items()
    }


def descriptions_of(
    base: Path, services: Sequence[str] = (), catalog: AnyPath | None = None
) -> Describe:
    """Return a function that finds the descriptions of a pipeline's processes.

    No service is contacted that a catalog describes. Without all descriptions it returns none.

    Args:
        base: Folder to which targets are relative.
        services: `NAME=TARGET_OR_URL` or URLs.
        catalog: `{name: target}` or a folder of saved descriptions.
    """

    def describe(pipeline: Pipeline) -> Mapping[str, Description]:
        with suppress(PestoError):
            return resolve_services(
                pipeline, base=base, options=services, catalog=catalog, ask=False
            ).descriptions
        return {}

    return describe


def register(
    conductor: Conductor,
    documents: Mapping[str, Sequence[Document]],
    *,
    tasks: Iterable[TaskDefinition] = (),
    allow: Sequence[str] = (),
    owner: str | None = None,
    poll_timeout_s: int | None = None,
) -> list[str]:
    """Register definitions, our task types and the workflow `pesto_failure`; return all names.

    No workflow is registered if one of the definitions has an error. A task type that a newer
    version of this package has registered stays, and is not among the names.

    Args:
        conductor: The server.
        documents: File -> its definitions.
        tasks: Further task types.
        allow: Rules of the lint whose findings are left out.
        owner: Email address of the owner of task types and of `pesto_failure`.
        poll_timeout_s: Longest time that a task waits for a worker, in each attempt.

    Raises:
        InvalidInput: the lint or the server finds errors in a definition; with every error.
    """
    known = (*task_definitions(), *tasks)
    definitions = [each for found in documents.values() for each in found]
    handlers = [each for each in definitions if is_event_handler(each)]
    own = (failure_definition(owner), *(e for e in definitions if not is_event_handler(e)))
    workflows = list({str(each["name"]): each for each in own}.values())
    others = _registered(conductor, definitions, workflows)
    found = lint_all(documents, tasks=tasks, registered=others, allow=allow)
    for source, findings in found.items():
        if findings:
            raise InvalidInput.of(source, [each.with_rule for each in findings])
    newer = {str(each["name"]) for each in conductor.task_definitions() if is_newer(each)}
    registered = [each for each in known if each.name not in newer]
    if registered:
        timed = [replace(each, poll_timeout_s=poll_timeout_s) for each in registered]
        conductor.register_tasks([each.to_json(owner=owner or OWNER) for each in timed])
    for workflow in workflows:
        conductor.validate(workflow)
    conductor.register_workflows(workflows)
    for handler in handlers:
        conductor.register_event_handler(handler)
    return [
        *(each.name for each in registered),
        *(str(each["name"]) for each in (*workflows, *handlers)),
    ]


def _registered(
    conductor: Conductor, definitions: Iterable[Document], own: Iterable[Document]
) -> Iterator[Document]:
    """Yield the workflows of the server that definitions refer to."""
    names = {name for each in definitions for name in started_workflows(each)}
    for name in sorted(names - {str(each["name"]) for each in own}):
        with suppress(NotFound):
            yield conductor.definition(name)


def start_workflow(
    conductor: Conductor,
    definition: Document,
    texts: Mapping[str, str],
    *,
    sites: Mapping[str, str] | None = None,
) -> str:
    """Start a registered workflow; return its id.

    Args:
        conductor: The server.
        definition: Its definition; the schema of its input declares which texts are paths.
        texts: Input name -> JSON, or text.
        sites: Prefix of an href -> task domain of the workers near such scenes.

    Raises:
        InvalidInput: inputs are missing, unknown or of the wrong type, with each name; or the
            scenes are at several sites.
    """
    inputs = read_inputs(definition, texts)
    site = site_of(inputs, sites or {})
    name, version = str(definition["name"]), definition.get("version")
    return conductor.start(
        name,
        inputs,
        version=version if isinstance(version, int) else None,
        domains={**({"*": site} if site else {}), **domains_of(definition)},
    )


def read_inputs(definition: Mapping[str, JsonValue], texts: Mapping[str, str]) -> Document:
    """Convert texts to the workflow's input: JSON is parsed, a path becomes an href.

    The `base` of a plan becomes absolute, because workers run in other folders; that of the
    definition only if it exists below the current directory.

    Raises:
        InvalidInput: inputs do not fit the definition; names each.
    """
    schema = _input_schema(definition)
    properties = schema.get("properties")
    schemas = properties if isinstance(properties, dict) else {}
    inputs = {name: _value(text, schemas.get(name)) for name, text in texts.items()}
    faults = tuple(schema_faults(schema, inputs))
    if faults:
        raise InvalidInput.of(f"inputs of {definition.get('name')}", faults)
    return inputs | _folders(definition, inputs)


def domains_of(definition: Mapping[str, JsonValue]) -> dict[str, str]:
    """Return the task domains that a definition declares, for tasks that require a GPU."""
    metadata = definition.get("metadata")
    domains = metadata.get("taskToDomain") if isinstance(metadata, dict) else None
    return (
        {name: str(domain) for name, domain in domains.items()} if isinstance(domains, dict) else {}
    )


def _folders(definition: Mapping[str, JsonValue], inputs: Document) -> Document:
    """Return the `base` inputs of plans as absolute paths; a default only if it exists here."""
    template = definition.get("inputTemplate")
    defaults = template if isinstance(template, dict) else {}
    folders: Document = {}
    for name in _bases(definition):
        text = inputs.get(name, defaults.get(name))
        if not isinstance(text, str) or looks_like_href(text) or Path(text).is_absolute():
            continue
        if name in inputs or Path(text).is_dir():
            folders[name] = str(Path(text).resolve())
    return folders


def _bases(definition: Mapping[str, JsonValue]) -> list[str]:
    """Return the workflow inputs that a task `pesto_plan` reads as `base`."""
    tasks = definition.get("tasks")
    parameters = [
        task.get("inputParameters")
        for task in (tasks if isinstance(tasks, list) else [])
        if isinstance(task, dict) and task.get("name") == "pesto_plan"
    ]
    bases = [_INPUT.fullmatch(str(p.get("base"))) for p in parameters if isinstance(p, dict)]
    return [found[1] for found in bases if found]


def _input_schema(definition: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    """Return the declared schema of the input, or else one with the names of the inputs."""
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


def _value(text: str, schema: JsonValue) -> JsonValue:
    declared = schema if isinstance(schema, dict) else {}
    if declared.get("format") == "uri-reference":
        return str(image_reference(text)) if text else as_href(text)
    return typed_text(declared, text)

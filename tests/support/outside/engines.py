"""What Airflow and Conductor know of us: operators, provider, connection; task definitions."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pesto_airflow
import tests.support.airflow_home  # noqa: F401  # before anything imports Airflow
from pesto_runtime import Description
from tests.support.outside.command import entry_point
from tests.support.outside.inside import service_definition, task_definitions

if TYPE_CHECKING:
    from pydantic import JsonValue

_OF_OPERATORS = ("template_fields", "template_ext", "template_fields_renderers")
_OF_HOOKS = ("conn_type", "conn_name_attr", "default_conn_name", "hook_name")
_WORDS = ("label", "description", "placeholders", "relabeling", "external-doc-url")
_MODULES = "python-modules"


def airflow() -> dict[str, JsonValue]:
    """Write down the provider, and class attributes that Airflow reads."""
    found = {name: getattr(pesto_airflow, name) for name in pesto_airflow.__all__}
    classes = {name: _attributes(each) for name, each in found.items() if inspect.isclass(each)}
    info = entry_point("apache_airflow_provider", "provider_info")()  # type: ignore[operator]  # a function
    return {"provider": _unplaced(info), "classes": {**classes}}


def conductor() -> dict[str, JsonValue]:
    """Write down every task definition, and that of a service of its own."""
    document: dict[str, JsonValue] = {
        "name": "cloud-mask", "version": "1", "input": {"type": "object", "properties": {}},
        "output": {"type": "object", "properties": {}}, "resources": {"gpu": 1},
    }  # fmt: skip
    service = service_definition(Description.parse(document), ["http://a/api/v1"], at_once=3)
    found = {each.name: each.to_json() for each in (*task_definitions(), service)}
    for each in found.values():
        del each["description"]
    return {"task definitions": dict(found), "domain of a service with GPU": service.domain}


def _attributes(thing: type) -> dict[str, JsonValue]:
    names = (*_OF_OPERATORS, *_OF_HOOKS)
    found = {name: _listed(getattr(thing, name)) for name in names if hasattr(thing, name)}
    links = getattr(thing, "operator_extra_links", ())
    return {**found, "links": [each.name for each in links]} if found else {}


def _listed(value: object) -> JsonValue:
    if isinstance(value, (tuple, list)):
        return [str(each) for each in value]
    return dict(value) if isinstance(value, dict) else str(value)


def _unplaced(value: object) -> JsonValue:
    """The provider's document without words for people, and without the modules of our names."""
    if isinstance(value, dict):
        kept = {key: each for key, each in value.items() if key not in (*_WORDS, _MODULES)}
        return {key: _unplaced(each) for key, each in kept.items()}
    if isinstance(value, list):
        return [_unplaced(each) for each in value]
    text = str(value)
    return text.rpartition(".")[2] if text.startswith("pesto_") else value  # type: ignore[return-value]  # JSON

"""The provider document: it matches Airflow's own schema, and every name in it exists."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

import airflow
import pytest
from airflow.providers_manager import ProvidersManager
from jsonschema import Draft7Validator

import pesto_airflow
from pesto_airflow import provider_info

if TYPE_CHECKING:
    from collections.abc import Iterator

INFO = provider_info.get_provider_info()


def named_in(document: object) -> Iterator[str]:
    """Every dotted name of ours in a document."""
    if isinstance(document, dict):
        document = [*document.values()]
    if isinstance(document, list):
        for each in document:
            yield from named_in(each)
    elif isinstance(document, str) and document.startswith("pesto_airflow."):
        yield document


def test_the_provider_document_is_as_airflow_wants_it() -> None:
    """It validates against the schema that Airflow ships; the control, a wrong key, does not."""
    schema = json.loads(Path(airflow.__file__).with_name("provider_info.schema.json").read_text())
    validator = Draft7Validator(schema)
    assert not [*validator.iter_errors(INFO)]
    assert [*validator.iter_errors({**INFO, "extra-links": "not a list"})]


def test_everything_that_the_document_names_is_there() -> None:
    """Every module imports, and every class is in its module."""
    names = set(named_in(INFO))
    assert len(names) >= 8
    for name in names:
        module, _, last = name.rpartition(".")
        try:
            import_module(name)
        except ModuleNotFoundError:
            assert hasattr(import_module(module), last), name


def test_every_operator_is_listed() -> None:
    """Airflow would not list the operators of a module that is missing in the document."""
    folder = Path(pesto_airflow.__file__).parent / "operators"
    modules = {f"pesto_airflow.operators.{path.stem}" for path in folder.glob("*.py")}
    listed = set(named_in(INFO["operators"]))
    assert listed == modules - {"pesto_airflow.operators.__init__"}


def test_the_document_imports_nothing() -> None:
    """Airflow reads it in every process: only the standard library is loaded with it."""
    tree = ast.parse(Path(provider_info.__file__).read_text())
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert [node.module for node in imports if isinstance(node, ast.ImportFrom)] == ["__future__"]
    assert len(imports) == 1
    program = "import sys, pesto_airflow.provider_info; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout.split()
    roots = {name.partition(".")[0] for name in loaded}
    assert "pesto_airflow" in roots
    assert not roots & {"airflow", "pesto_runtime", "pydantic", "httpx", "numpy"}


def test_airflow_finds_the_provider_and_its_form() -> None:
    """By its entry point: the connection type has its fields, and no field without meaning."""
    (entry,) = (
        each for each in entry_points(group="apache_airflow_provider") if "pesto" in each.value
    )
    assert entry.load() is provider_info.get_provider_info
    manager = ProvidersManager()  # type: ignore[no-untyped-call]  # Airflow's
    assert "pesto-workflows" in manager.providers
    fields = {name for name in manager.connection_form_widgets if name.startswith("extra__pesto__")}
    assert fields == {f"extra__pesto__{n}" for n in ("timeout", "retries", "patience", "verify")}
    assert "bearer token" in manager.field_behaviours["pesto"]["relabeling"]["password"]


def test_names_of_the_package_load_on_first_use() -> None:
    """Every public name exists; another name is an AttributeError."""
    assert all(hasattr(pesto_airflow, name) for name in pesto_airflow.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        pesto_airflow.Nothing  # type: ignore[attr-defined]  # noqa: B018  # asking is the test

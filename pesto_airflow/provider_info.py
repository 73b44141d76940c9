"""Describe this provider to Airflow, which reads it in every process: so it imports nothing."""

from __future__ import annotations

_LINKS = ("Report", "Result", "Store", "Campaign")


def get_provider_info() -> dict[str, object]:
    """Return the provider document of Airflow's `provider_info.schema.json`."""
    return {
        "package-name": "pesto-workflows",
        "name": "PESTO workflows",
        "description": "Chains PESTO services over whole scenes, tiled, as mapped tasks.",
        "integrations": [
            {
                "integration-name": "PESTO",
                "external-doc-url": "https://github.com/AirbusDefenceAndSpace/pesto",
                "tags": ["service"],
            }
        ],
        "hooks": _modules("hooks"),
        "operators": _modules(
            "operators.campaign",
            "operators.discover",
            "operators.outputs",
            "operators.plan",
            "operators.plan_campaign",
            "operators.process",
            "operators.run",
        ),
        "sensors": _modules("sensors"),
        "triggers": _modules("triggers"),
        "connection-types": [_connection_type()],
        "extra-links": [
            "pesto_airflow.hooks.PestoServiceLink",
            *(f"pesto_airflow.links.Pesto{name}Link" for name in _LINKS),
        ],
        "task-decorators": [{"name": "pesto", "class-name": "pesto_airflow.decorators.pesto_task"}],
    }


def _modules(*names: str) -> list[dict[str, object]]:
    modules = [f"pesto_airflow.{name}" for name in names]
    return [{"integration-name": "PESTO", "python-modules": modules}]


def _connection_type() -> dict[str, object]:
    return {
        "connection-type": "pesto",
        "hook-class-name": "pesto_airflow.hooks.PestoHook",
        "hook-name": "PESTO service",
        "ui-field-behaviour": {
            "hidden-fields": ["extra"],
            "relabeling": {
                "host": "URL or host",
                "schema": "Scheme",
                "password": "Password, or bearer token if there is no login",
            },
            "placeholders": {
                "host": "http://cloud-mask:8000",
                "schema": "http, or https",
                "port": "8000",
            },
        },
        "conn-fields": {
            "timeout": _field(
                "Timeout (s)",
                "Seconds without a byte after which a request is cancelled; 300 if empty.",
                {"type": ["number", "null"], "exclusiveMinimum": 0},
            ),
            "retries": _field(
                "Retries",
                "Repetitions of a call without a response, before the task fails; 3 if empty.",
                {"type": ["integer", "null"], "minimum": 0},
            ),
            "patience": _field(
                "Patience (s)",
                "Total seconds to wait while the service is busy, before the task releases its "
                "slot and is retried; 60 if empty.",
                {"type": ["number", "null"], "minimum": 0},
            ),
            "verify": _field(
                "Verify certificate",
                "true, false, or the path of a file of trusted authorities.",
                {"type": ["string", "null"]},
            ),
        },
    }


def _field(label: str, description: str, schema: dict[str, object]) -> dict[str, object]:
    return {"label": label, "description": description, "schema": schema}

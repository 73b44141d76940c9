"""JSON values of a run that a task tells others: small ones only, the rest is in its outputs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import JsonValue

MOST_BYTES = 4096


def stage_values(plan: str, stage: str) -> dict[str, JsonValue]:
    """The JSON outputs of a finished stage, by name; those over 4 KB in all are left out.

    Raises:
        NotFound: it has not finished.
    """
    from pesto_runtime.activities import load_context
    from pesto_runtime.contract import Reference
    from pesto_runtime.pipeline import JsonType

    context = load_context(plan)
    found: dict[str, JsonValue] = {}
    for port, made in context.stages[stage].makes.items():
        if isinstance(made, JsonType):
            value = context.value(Reference(owner=stage, port=port))
            if len(json.dumps({**found, port: value})) <= MOST_BYTES:
                found[port] = value
    return found

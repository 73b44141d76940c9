"""Write and read the plan of a run in its run store."""

from __future__ import annotations

import hashlib

from pydantic import ValidationError

from pesto_runtime.contract import Plan, bad_fields
from pesto_runtime.contract.run import PlanVersion
from pesto_runtime.errors import InvalidInput
from pesto_runtime.store import open_store

PLANS = "plans"
"""Folder of the plans in a run store; the name of a plan starts with the key of its run."""


def plan_name(plan: Plan, data: bytes) -> str:
    """Return the name of the object that has a plan.

    Args:
        plan: The plan.
        data: The plan as JSON.
    """
    return f"{PLANS}/{plan.run}-{hashlib.sha256(data).hexdigest()[:8]}.json"


def save_plan(plan: Plan) -> str:
    """Store a plan in its run store, and return its href.

    Raises:
        StoreFailed: the store cannot be written.
    """
    store, data = open_store(plan.store), plan.model_dump_json().encode()
    name = plan_name(plan, data)
    store.put(name, data)
    return store.href(name)


def read_plan(href: str) -> Plan:
    """Read a plan by its href.

    Raises:
        NotFound: the plan does not exist.
        OtherVersion: another version of the package made it, with other plans or products.
        InvalidInput: it is no plan.
    """
    base, _, name = href.rpartition(f"/{PLANS}/")
    data = open_store(base).get(f"{PLANS}/{name}")
    try:
        PlanVersion.model_validate_json(data).require_own(href)
        return Plan.model_validate_json(data)
    except ValidationError as error:
        raise InvalidInput.of(f"plan {href}", bad_fields(error)) from error

"""The only names from inside the packages that the golden files are made with."""

from __future__ import annotations

from pesto_conductor.taskdefs import service_definition, task_definitions
from pesto_runtime.contract import PRODUCT_FORMAT
from pesto_runtime.service.limits import Limits
from tests.contract.web import in_process

__all__ = ["PRODUCT_FORMAT", "Limits", "in_process", "service_definition", "task_definitions"]

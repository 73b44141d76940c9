"""The golden files of `tests/data/outside`: what was frozen, what is, and where they differ."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.support.outside import cli, engines, names, plans, products, wire
from tests.support.outside.command import DATA

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pydantic import JsonValue

REFRESH = "python -m tests.support.outside"
KINDS: dict[str, Callable[[], dict[str, JsonValue]]] = {
    "airflow": engines.airflow,
    "cli": cli.commands,
    "conductor": engines.conductor,
    "entry_points": names.entries,
    "errors": names.errors,
    "examples": plans.examples,
    "plans": plans.plans,
    "products": products.products,
    "public": names.public,
    "schemas": names.schemas,
    "wire": wire.wire,
}


def frozen(kind: str) -> dict[str, JsonValue]:
    """Read a golden file."""
    found: dict[str, JsonValue] = json.loads((DATA / f"{kind}.json").read_text())
    return found


def differences(was: JsonValue, now: JsonValue, *, at: str = "") -> Iterator[str]:
    """Name every value that is another one than it was, by its keys."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted({*was, *now}):
            if key not in now:
                yield f"{at}/{key}: is gone"
            elif key not in was:
                yield f"{at}/{key}: is new"
            else:
                yield from differences(was[key], now[key], at=f"{at}/{key}")
    elif (before := _text(was)) != (after := _text(now)):  # true is not 1, and 1 is not 1.0
        yield f"{at}: was {before}, is {after}"


def refresh(kind: str, now: dict[str, JsonValue]) -> None:
    """Write a golden file anew.

    Raises:
        ValueError: the bytes of products changed, and `PRODUCT_FORMAT` did not.
    """
    path = DATA / f"{kind}.json"
    if kind == "products" and path.exists() and products.are_unannounced(frozen(kind), now):
        raise ValueError(products.COUNT_UP)
    path.write_text(json.dumps(now, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def _text(value: JsonValue) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)

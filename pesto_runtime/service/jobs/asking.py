"""What a request's headers ask of jobs: to be one, under which key, for how long without a sign."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pesto_runtime.errors import InvalidInput, shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY_HEADER = "idempotency-key"
LEASE_HEADER = "x-pesto-lease"
_KEY_CHARS = 255
_LONGEST_WAIT_S = 30.0


@dataclass(frozen=True)
class JobHeaders:
    """What a request asks of jobs.

    Attributes:
        at_once: Whether to answer before the work is done (`Prefer: respond-async`).
        wait_s: Seconds that the caller would wait (`Prefer: wait=5`); None where it does not say.
        key: Never two executions of one key.
        lease_s: Seconds without anybody asking after which the job is dismissed.
    """

    at_once: bool = False
    wait_s: float | None = None
    key: str | None = None
    lease_s: float | None = None


def asked_of(headers: Mapping[str, str]) -> JobHeaders:
    """Read the headers of a request; their names are lower case.

    >>> asked_of({"prefer": "respond-async, wait=5", "idempotency-key": "tile-7"})
    JobHeaders(at_once=True, wait_s=5.0, key='tile-7', lease_s=None)

    Raises:
        InvalidInput: a key that is empty or too long, or a lease that is no positive number.
    """
    wishes = [each.strip().lower() for each in headers.get("prefer", "").split(",")]
    waits = [_number(each.partition("=")[2]) for each in wishes if each.startswith("wait=")]
    return JobHeaders(
        at_once="respond-async" in wishes,
        wait_s=min(waits[0], _LONGEST_WAIT_S) if waits and waits[0] is not None else None,
        key=_key(headers.get(KEY_HEADER)),
        lease_s=_lease(headers.get(LEASE_HEADER)),
    )


def _key(text: str | None) -> str | None:
    if text is None:
        return None
    key = text.strip().removeprefix('"').removesuffix('"')
    if not 0 < len(key) <= _KEY_CHARS:
        raise InvalidInput(
            f"an Idempotency-Key has 1 to {_KEY_CHARS} characters, not {len(key)}: {shortened(key)}"
        )
    return key


def _lease(text: str | None) -> float | None:
    if text is None:
        return None
    lease_s = _number(text)
    if not lease_s:
        raise InvalidInput(f"X-Pesto-Lease is a number of seconds above 0, not {shortened(text)}")
    return lease_s


def _number(text: str) -> float | None:
    try:
        number = float(text.strip().strip('"'))
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None

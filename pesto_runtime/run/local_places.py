"""Find the places of a plan that only this machine reaches: its files, and servers of loopback.

It reads the plan and the environment. What another machine really reaches is seen there only.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from pesto_runtime.contract.band_files import files_of
from pesto_runtime.errors import BadField
from pesto_runtime.hrefs import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pesto_runtime.contract import Plan

_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_S3_ENDPOINT")


def local_places(plan: Plan, *, endpoint: str = "/store") -> Iterator[BadField]:
    """Yield each place of a plan that only this machine reaches: of files, of services.

    Args:
        plan: The plan.
        endpoint: Pointer for the endpoint of buckets, if it is on this machine.
    """
    places = _places(plan)
    for pointer, place in places.items():
        for href in files_of(place):
            if _is_of_this_machine(href):
                yield BadField(pointer, f"{href} is on this machine")
    for name, service in plan.services.items():
        for target in service.targets:
            if service.is_remote and _is_of_this_machine(target):
                yield BadField(f"/services/{name}", f"{target} is a service of this machine")
    yield from _endpoint([each for place in places.values() for each in files_of(place)], endpoint)


def _places(plan: Plan) -> dict[str, str]:
    """Return the places of files, by pointers."""
    places = {"/folder": plan.folder}
    if not plan.store.startswith(f"{plan.folder}/"):
        places["/store"] = plan.store
    if plan.cache:
        places["/cache"] = plan.cache.href
    return places | {f"/inputs/{name}": scene.href for name, scene in plan.scenes.items()}


def _endpoint(places: list[str], pointer: str) -> Iterator[BadField]:
    endpoint = next((url for name in _ENDPOINTS if (url := os.environ.get(name))), "")
    url = endpoint if "://" in endpoint else f"https://{endpoint}"
    if any(each.startswith("s3://") for each in places) and _is_of_this_machine(url):
        yield BadField(pointer, f"{endpoint} is an endpoint of this machine")


def _is_of_this_machine(href: str) -> bool:
    """Whether an href is that of a file, or of a server of this machine."""
    parts = urlsplit(href)
    if parts.scheme in ("http", "https"):
        return is_loopback(parts.hostname or "")
    return parts.scheme == "file" or href.startswith("/")

"""The HTTP face of a service: its routes, and status, headers and keys of fixed answers."""

from __future__ import annotations

import base64
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

from tests.contract.serving import AT_ONCE, until
from tests.contract.web import ready
from tests.support.outside.command import DATA, PROCESSES
from tests.support.outside.inside import Limits, in_process

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx
    from pydantic import JsonValue

    from tests.contract.web import InProcess

SCENE = (DATA / "small.tif").read_bytes()
_OUTPUTS = ("application/json", "image/tiff", "application/x-npy", "multipart/form-data")
_FOREIGN = "x-nobody/nothing"
_KEY = "of a golden call"
_ID = re.compile(r"\b[0-9a-f]{32}\b")
_LATER = ("started", "finished", "expires")
"""Keys that an accepted job may have already where a worker was quick."""


def wire() -> dict[str, JsonValue]:
    """Serve a process and write down what anybody sees of it over HTTP."""
    with _served() as service, TemporaryDirectory() as folder:
        answers = {
            **_operations(service), **_calls(service), **_refusals(service, Path(folder)),
            **_jobs(service),
        }  # fmt: skip
        return {
            "routes": _routes(service),
            "metrics": _metrics(answers["metrics"]),
            "answers": {name: _shown(answer) for name, answer in answers.items()},
        }


@contextmanager
def _served() -> Iterator[InProcess]:
    with in_process(f"{PROCESSES}:held", [], Limits(workers=1, queue=0)) as web:
        ready(web)
        yield cast("InProcess", web)


def _routes(service: InProcess) -> JsonValue:
    found: dict[str, JsonValue] = {}
    for route in service.app.routes:
        methods = sorted(route.methods)  # type: ignore[attr-defined]  # every route of ours has both
        found |= dict.fromkeys(f"{each} {route.path}" for each in methods)  # type: ignore[attr-defined]
    return found


def _metrics(answer: httpx.Response) -> JsonValue:
    lines = [line.split()[2:] for line in answer.text.splitlines() if line.startswith("# TYPE")]
    return [*sorted(f"{name}: {kind}" for name, kind in lines if name.startswith("pesto_"))]


def _operations(service: InProcess) -> dict[str, httpx.Response]:
    host = replace(service, url=service.url.removesuffix("/api/v1"))
    described = service("GET", "/describe")
    known = {"If-None-Match": described.headers["ETag"]}
    return {
        "health": service("GET", "/health"),
        "health as JSON": service("GET", "/health", headers={"Accept": "application/json"}),
        "describe": described,
        "describe, known": service("GET", "/describe", headers=known),
        "version": service("GET", "/version"),
        "openapi": service("GET", "/openapi"),
        "metrics": host("GET", "/metrics"),
        "docs": host("GET", "/docs"),
    }


def _calls(service: InProcess) -> dict[str, httpx.Response]:
    form = [("image", ("a.tif", SCENE, "image/tiff"))]
    keyed = {"Content-Type": "image/tiff", "Idempotency-Key": _KEY}
    return {
        **{f"call, as {each}": _call(service, each) for each in (*_OUTPUTS, "image/png")},
        "call, JSON body": service("POST", "/process", json=_body()),
        "call, form": service("POST", "/process", files=form),
        "call, with a key": service("POST", "/process", content=SCENE, headers=keyed),
        "call, key of another": service("POST", "/process", json=_body(), headers=keyed),
    }


def _call(service: InProcess, accept: str, **query: str) -> httpx.Response:
    headers = {"Content-Type": "image/tiff", "Accept": accept}
    return service("POST", "/process", content=SCENE, headers=headers, params=query)


def _body(**more: JsonValue) -> dict[str, JsonValue]:
    return {"image": base64.b64encode(SCENE).decode(), **more}


def _refusals(service: InProcess, folder: Path) -> dict[str, httpx.Response]:
    bare, foreign = {"Content-Type": "application/json"}, {"Content-Type": _FOREIGN}
    lease = {**AT_ONCE, "X-Pesto-Lease": "soon"}
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(_call, service, "image/tiff", until=str(folder / "now"))
        until(lambda: _admitted(service) == 1)
        busy = _call(service, "image/tiff")
        (folder / "now").touch()
        running.result()
    return {
        "busy": busy,
        "no such path": service("GET", "/nowhere"),
        "no such method": service("DELETE", "/process"),
        "no such job": service("GET", "/jobs/none"),
        "no JSON": service("POST", "/process", content=b"{", headers=bare),
        "foreign type": service("POST", "/process", content=b"x", headers=foreign),
        "wrong input": service("POST", "/process", json=_body(until=3)),
        "wrong lease": service("POST", "/process", json=_body(), headers=lease),
    }


def _admitted(service: InProcess) -> int:
    answer = service("GET", "/health", headers={"Accept": "application/json"})
    return int(answer.json()["queue"]["admitted"])


def _jobs(service: InProcess) -> dict[str, httpx.Response]:
    submitted = service("POST", "/process", json=_body(), headers=AT_ONCE)
    job = f"/jobs/{submitted.json()['id']}"
    over = service("GET", job, headers={"Prefer": "wait=20"})
    return {
        "job, submitted": submitted,
        "job, submitted to /jobs": service("POST", "/jobs", json=_body(), headers=AT_ONCE),
        "job, waited for": over,
        "job": service("GET", job),
        "jobs of a key": service("GET", "/jobs", params={"key": _KEY}),
        "job, status": service("GET", f"{job}/status"),
        "job, log": service("GET", f"{job}/log"),
        "job, results": service("GET", f"{job}/results"),
        "job, result": service("GET", f"{job}/results/image"),
        "job, result, deleted": service("DELETE", f"{job}/results/image"),
        "job, result, gone": service("GET", f"{job}/results/image"),
        "job, dismissed": service("DELETE", job),
    }


def _shown(answer: httpx.Response) -> JsonValue:
    """Status, type, names of headers, and keys of a JSON object; a problem with its slug."""
    media_type = answer.headers.get("content-type", "").partition("; boundary")[0]
    shown: dict[str, JsonValue] = {
        "status": answer.status_code,
        "type": media_type,
        "headers": [*sorted(set(answer.headers))],
    }
    if "json" in media_type and isinstance(document := answer.json(), dict):
        unsure = _LATER if answer.status_code == 201 else ()
        names = {_ID.sub("ID", name) for name in document if name not in unsure}
        shown["keys"] = [*sorted(names)]
        if "problem" in media_type:
            shown["problem"] = document["type"]
    return shown

"""Serves STAC items as a STAC API does: landing page, conformance, and a search with pages.

A search here compares `collections` and `bbox` alone. It is a real server on loopback, by uvicorn.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from fastapi import FastAPI, Request

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_CONFORMS = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]


@contextmanager
def stac_api(items: Sequence[dict[str, Any]], *, page: int = 2) -> Iterator[str]:
    """Serve items; yields the address of the API. A page of a search has `page` items."""
    app = FastAPI()

    @app.get("/")
    def landing(request: Request) -> dict[str, Any]:
        root = str(request.base_url)
        return {
            "type": "Catalog", "id": "api", "description": "items", "stac_version": "1.0.0",
            "conformsTo": _CONFORMS,
            "links": [
                {"rel": "self", "href": root}, {"rel": "root", "href": root},
                {"rel": "search", "href": f"{root}search", "method": "POST",
                 "type": "application/geo+json"},
            ],
        }  # fmt: skip

    @app.post("/search")
    async def search(request: Request) -> dict[str, Any]:
        body = await request.json()
        wanted, box = body.get("collections"), body.get("bbox")
        found = [each for each in items if (not wanted or each["collection"] in wanted)
                 and (not box or _overlaps(each["bbox"], box))]  # fmt: skip
        start = int(body.get("token", 0))
        links = []
        if start + page < len(found):
            links = [{"rel": "next", "href": f"{request.base_url}search", "method": "POST",
                      "body": {**body, "token": start + page}}]  # fmt: skip
        return {"type": "FeatureCollection", "features": found[start : start + page],
                "links": links}  # fmt: skip

    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


def _overlaps(one: list[float], other: list[float]) -> bool:
    return one[0] <= other[2] and other[0] <= one[2] and one[1] <= other[3] and other[1] <= one[3]

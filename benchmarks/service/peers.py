"""What our service is compared with: routes that do the same codec work and nothing else.

Run as `python -m benchmarks.service.peers starlette|fastapi PORT`.
"""

from __future__ import annotations

import io
import sys

import numpy as np
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request  # noqa: TC002  # FastAPI reads it at run time
from starlette.responses import Response
from starlette.routing import Route

PREFIX = "/api/v1"
NPY = "application/x-npy"
_MOST_HEADER = 1024  # bytes of a .npy header


class Number(BaseModel):
    """The body and the answer of the tiny call."""

    number: float


def starlette() -> Starlette:
    """Raw .npy and forms, as a few lines of Starlette answer them."""
    routes = [
        Route(f"{PREFIX}/process", _raw, methods=["POST"]),
        Route(f"{PREFIX}/form", _form, methods=["POST"]),
        Route(f"{PREFIX}/health", _health),
    ]
    return Starlette(routes=routes)


def fastapi() -> FastAPI:
    """The tiny call, as a few lines of FastAPI answer it."""
    app = FastAPI()

    @app.post(f"{PREFIX}/process")
    async def process(body: Number) -> Number:
        return body

    app.router.routes.append(Route(f"{PREFIX}/health", _health))
    return app


async def _health(_request: Request) -> Response:
    return Response("OK", media_type="text/plain")


async def _raw(request: Request) -> Response:
    return await run_in_threadpool(_inverted, await request.body())


async def _form(request: Request) -> Response:
    async with request.form(max_part_size=1 << 30) as form:
        file = form["image"]
        data = b"" if isinstance(file, str) else await file.read()
    return await run_in_threadpool(_inverted, data)


def _inverted(data: bytes) -> Response:
    # As by hand for speed: the pixels are a view of the body; `np.load` would copy them.
    head = io.BytesIO(data[:_MOST_HEADER])
    np.lib.format.read_magic(head)
    _, _, dtype = np.lib.format.read_array_header_1_0(head)
    size = head.tell()
    return Response(
        data[:size] + (~np.frombuffer(data, dtype, offset=size)).tobytes(), media_type=NPY
    )


if __name__ == "__main__":
    made = {"starlette": starlette, "fastapi": fastapi}[sys.argv[1]]()
    uvicorn.run(made, port=int(sys.argv[2]), log_level="warning", access_log=False)

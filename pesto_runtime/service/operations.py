"""What people and machines that run a service look at: `/metrics`, `/docs`, a line per request."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from fastapi import Response

from pesto_runtime.service.observing import MEDIA_TYPE, Metrics, RequestObserver
from pesto_runtime.service.page import Page
from pesto_runtime.service.static_responses import PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from fastapi import FastAPI

    from pesto_runtime.contract import Description
    from pesto_runtime.service.observing import Queue


def add_operations(
    app: FastAPI,
    description: Description,
    *,
    queue: Queue,
    jobs: Callable[[], Mapping[str, int]] = dict,
    build: str = "",
) -> None:
    """Add the routes and the middleware to a service's application.

    Args:
        app: Of the service; its other routes are observed too.
        description: Of the process that is served.
        queue: Calls that hold a place now.
        jobs: Jobs by state.
        build: Identity of the code.
    """
    about = {"process": description.name, "version": description.version, "build": build}
    metrics = Metrics(queue, jobs=jobs, about=about)
    told = partial(_metrics, metrics)
    app.add_api_route(f"{PREFIX}/metrics", told, methods=["GET"], response_class=Response)
    app.add_api_route("/metrics", told, methods=["GET"], include_in_schema=False)
    page = partial(_docs, Page.of(description))
    app.add_api_route("/docs", page, methods=["GET"], include_in_schema=False)
    app.add_middleware(RequestObserver, metrics=metrics)


def _metrics(metrics: Metrics) -> Response:
    """Answer the figures; not on the event loop, for they may be asked of a database."""
    return Response(metrics.text(), headers={"Content-Type": MEDIA_TYPE})


async def _docs(page: Page) -> Response:
    """Answer the page."""
    headers = {"Content-Security-Policy": page.policy, "X-Content-Type-Options": "nosniff"}
    return Response(page.content, headers=headers, media_type="text/html")

"""Build and digest in the headers of responses that no endpoint writes."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from pesto_runtime.hrefs import Gate
from pesto_runtime.processor import load_processor
from pesto_runtime.service.app import create_app
from pesto_runtime.service.threads import ThreadRunner

ERRAND = "tests/contract/errands.py:errand"


def _broken() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(("path", "status"), [("broken", 500), ("nothing", 404), ("health", 503)])
def test_a_bug_of_the_service_states_its_code_too(path: str, status: int) -> None:
    """Starlette answers for a bug outside of all middleware; another page is the control."""
    processor = load_processor(ERRAND)
    app = create_app(ThreadRunner(processor, gate=Gate(local_files=True)))
    app.add_api_route("/api/v1/broken", _broken)
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)

    async def asked() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return await client.get(f"/api/v1/{path}")

    response = asyncio.run(asked())
    assert response.status_code == status
    assert response.headers.get_list("x-pesto-build") == [processor.build]
    assert response.headers.get_list("x-pesto-digest") == [processor.description.digest]

"""A real pygeoapi, from the environment of programs that tests run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.support.buckets import TOOLS
from tests.support.commands import waited

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def pygeoapi_server(folder: Path) -> Iterator[str]:
    """Run pygeoapi with its processes hello-world and echo, and give its address."""
    if not TOOLS.with_name("pygeoapi").exists():
        pytest.skip(f"{TOOLS} has no pygeoapi: make setup")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, config = f"http://127.0.0.1:{port}", folder / "config.yml"
    config.write_text(json.dumps(_settings(address, port, folder)))  # JSON is YAML
    environment = {
        **os.environ, "PYGEOAPI_CONFIG": str(config),
        "PYGEOAPI_OPENAPI": str(folder / "openapi.yml"),
    }  # fmt: skip
    command = [str(TOOLS.with_name("pygeoapi")), "openapi", "generate", str(config)]
    subprocess.run(
        [*command, "--output-file", str(folder / "openapi.yml")],
        env=environment, check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    # Not `pygeoapi serve`: it starts a second process, which outlives the first one.
    start = f"from pygeoapi.flask_app import APP; APP.run('127.0.0.1', {port})"
    silent = subprocess.DEVNULL
    with subprocess.Popen(
        [str(TOOLS), "-c", start], env=environment, stdout=silent, stderr=silent
    ) as server:
        try:
            waited(lambda: _responds(port), timeout_s=60)
            yield address
        finally:
            server.kill()


def _settings(address: str, port: int, folder: Path) -> dict[str, object]:
    texts = ("name", "position", "address", "city", "stateorprovince", "postalcode", "country",
             "phone", "fax", "email", "url", "hours", "instructions", "role")  # fmt: skip
    processes = {"hello-world": "HelloWorld", "echo": "Echo"}
    jobs = {"name": "TinyDB", "connection": str(folder / "jobs.db"), "output_dir": str(folder)}
    return {
        "server": {
            "bind": {"host": "127.0.0.1", "port": port}, "url": address, "encoding": "utf-8",
            "mimetype": "application/json; charset=UTF-8", "languages": ["en-US"],
            "limits": {"default_items": 10, "max_items": 10}, "manager": jobs,
            "map": {"url": "https://tile.example.org/{z}/{x}/{y}.png", "attribution": "none"},
        },
        "logging": {"level": "ERROR"},
        "metadata": {
            "identification": {"title": "t", "description": "d", "keywords": ["k"],
                               "keywords_type": "theme", "terms_of_service": "none",
                               "url": "https://example.org"},
            "license": {"name": "none", "url": "https://example.org"},
            "provider": {"name": "none", "url": "https://example.org"},
            "contact": dict.fromkeys(texts, "none"),
        },
        "resources": {
            name: {"type": "process", "processor": {"name": kind}}
            for name, kind in processes.items()
        },
    }  # fmt: skip


def _responds(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
